"""Turns a process forked from the warm one into a kernel that is like one started in the ordinary way."""

from __future__ import annotations

import ctypes
import gc
import importlib.util
import os
import select
import signal
import sys
import threading
import time
from collections.abc import Mapping
from pathlib import Path

from .asking import KernelRequest

LAUNCHER = "ipykernel_launcher"
"""The module of the ordinary start: `python -m ipykernel_launcher -f CONNECTION_FILE ...`."""

_WATCHED = 1
"""Tells ipykernel that somebody waits for the end of the parent, so that it neither does so nor prints advice."""


def prepare(request: KernelRequest, server: int, added: Mapping[str, str]) -> None:
    """Take on everything that the request says; what the warm process had of its own goes.

    Args:
        request: How the kernel shall start.
        server: A pidfd of the server; the kernel ends with it, as an ordinary one does.
        added: Variables that libraries have set when they were imported, as they do in an ordinary kernel.
    """
    os.setsid()
    for number in signal.valid_signals():
        if number in (signal.SIGPIPE, getattr(signal, "SIGXFSZ", signal.SIGPIPE)):
            signal.signal(number, signal.SIG_IGN)  # as Python itself does
        elif number == signal.SIGINT:
            signal.signal(number, signal.default_int_handler)
        elif callable(signal.getsignal(number)):
            signal.signal(number, signal.SIG_DFL)
    os.chdir(request.cwd)
    os.umask(request.umask)
    os.environ.clear()
    os.environ.update({**added, **request.env})
    show_command(request.argv)
    time.tzset()
    launcher = importlib.util.find_spec(LAUNCHER)
    sys.argv = [str(launcher.origin if launcher else LAUNCHER), *request.argv[3:]]
    sys.orig_argv = list(request.argv)
    renew_secrets()
    gc.enable()
    threading.Thread(target=_end_with, args=(server,), name="dcde-server-watch", daemon=True).start()


def run() -> None:
    """Run the kernel until it is asked to end."""
    from ipykernel import kernelapp

    kernelapp.launch_new_instance(parent_handle=_WATCHED)


def renew_secrets() -> None:
    """Give this process random numbers and keys of its own. Python's own `random` does so at every fork."""
    if numpy_random := sys.modules.get("numpy.random"):
        numpy_random.seed()
    if multiprocessing := sys.modules.get("multiprocessing.process"):
        multiprocessing.current_process().authkey = os.urandom(32)


def show_command(argv: list[str]) -> None:
    """Let `ps` and /proc/PID/cmdline show the command of the ordinary start, as far as there is room for it.

    The memory of the arguments and of the first environment is overwritten (proc(5), PID/stat, fields 48 to 51): Python
    has copies of both, and variables that have been set anew lie elsewhere, so set all of them before. Where the two
    adjoin, Linux takes text that goes beyond the arguments as one long name, up to its first zero byte.
    """
    fields = Path("/proc/self/stat").read_text().rpartition(")")[2].split()
    start, end, env_start, env_end = (int(field) for field in fields[45:49])
    text = b"\0".join(os.fsencode(argument) for argument in argv) + b"\0"
    last = env_end if env_start == end else end
    if not start or last <= start:
        return
    room = last - start
    if len(text) > end - start:
        text = text.replace(b"\0", b" ")[: room - 1]
    ctypes.memset(start, 0, room)
    ctypes.memmove(start, text, min(len(text), room))


def _end_with(server: int) -> None:
    """Wait for the end of the server and end too, at once, as ipykernel's own watch over its parent does."""
    watch = select.poll()
    watch.register(server, select.POLLIN)
    watch.poll()
    os._exit(1)
