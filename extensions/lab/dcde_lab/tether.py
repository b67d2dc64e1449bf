"""Becomes another program, which ends with the process that started it.

Use: `python -m dcde_lab.tether PARENT PROGRAM ARGUMENT...`

A server that is killed cannot end its runner, and a runner that outlived it would hold a token that the hub has
withdrawn.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1  # linux/prctl.h; it stays over execve


def main() -> None:
    """Ask the kernel for SIGTERM at the parent's end, and become the program."""
    parent, *command = sys.argv[1:]
    if sys.platform.startswith("linux"):
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
        if os.getppid() != int(parent):  # it ended in between
            sys.exit(0)
    os.execv(command[0], command)  # noqa: S606


if __name__ == "__main__":
    main()
