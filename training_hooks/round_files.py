"""What lies in the folder of a round, and how its process ends; see `training_hooks.round`.

Read by whoever runs or shows rounds, too, so nothing here loads torch.
"""

from __future__ import annotations

from typing import Final

PROGRESS: Final = "progress.json"
RESULT: Final = "result.json"
REPORT: Final = "report.html"
GOLDEN: Final = "golden.json"
CANCEL: Final = "cancel"
OPTIONS: Final = "options.json"
BLENDED: Final = "blended"
"""Folder of the adapters that are compared, where only a share of what was learnt is kept."""
LOG: Final = "log.txt"
OUTCOME: Final = "outcome.json"
"""How its job ended; written after the end of its process."""
ERROR: Final = "error.json"
"""Why its process refused: `error`, `message` and `remedy`. A launcher of several processes passes
on neither their exit status nor what they wrote last."""

REFUSED: Final = 2
"""Exit status: an error that the round understands, told in `ERROR` and in its last line."""
CANCELLED: Final = 3
"""Exit status: somebody asked for its end."""
