"""`python -m backend.demo`: a Label Studio with pre-annotated pictures, from nothing.

Everything lies under one folder (`.demo`): Label Studio's own virtual environment, its data,
the logs of what was started, and the login of the last run.
"""
