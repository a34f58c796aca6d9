"""From an annotator's corrections to a better model: the store, the policy, the round.

It builds on `segzero_ml` and is driven by `backend`; it imports nothing from the latter.
"""
