"""Runs a command that ends when its parent does, however the parent ends.

Started as a file of its own, without importing the package: `python guard.py PID COMMAND...`
asks the kernel for SIGTERM at the parent's death and becomes the command. Only Linux can do
that; elsewhere the parent's own clean-up has to do.

The kernel means the parent's *thread*: start the command from one that lives on.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1


def main() -> None:
    """Become the command, unless the parent is gone already."""
    parent, command = int(sys.argv[1]), sys.argv[2:]
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != parent:
        sys.exit(1)
    os.execvp(command[0], command)  # noqa: S606 - the command is the caller's


if __name__ == "__main__":
    main()
