"""Comparing the store with Label Studio: whatever webhooks missed is made good.

Label Studio sends each webhook once, and none for some changes: imports with annotations, some
bulk deletions, marking another annotation as ground truth. So the project is read as a whole,
from time to time (`schedule`), as a job (`job`), or by `segzero sync`.
"""

from __future__ import annotations

from backend.reconcile.compare import reconcile
from backend.reconcile.result import Failure, Reconciled

__all__ = ["Failure", "Reconciled", "reconcile"]
