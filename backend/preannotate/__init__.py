"""Predictions for whole projects: by jobs of the queue `predict`, through the served model.

A job names some tasks of a project and a model version. Its worker holds no model: it asks the
backend of its machine, which has one in memory already, batches what several jobs ask, and lets
annotators go first. What comes back is written through Label Studio's API of predictions, once
for each task and version (`pushing`). What waits and what failed stands in Redis (`book`), so
that a run goes on after any process was killed.
"""
