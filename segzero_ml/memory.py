"""Running out of memory, however the device puts it."""

from __future__ import annotations

import torch


def is_out_of_memory(error: Exception) -> bool:
    """Whether a model failed for want of memory.

    A GPU raises an error of its own for it; on a CPU torch raises a plain RuntimeError that
    only its text tells from others, and Python and numpy a MemoryError.
    """
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and "can't allocate memory" in str(error)
