"""`python -m dcde.runner`: reads one line from standard input and works until SIGTERM or SIGINT."""

from __future__ import annotations

import argparse
import asyncio
import ctypes
import logging
import os
import signal
import sys
from pathlib import Path

from dcde_models.logs import set_up_logs

from dcde.errors import DcdeError
from dcde.runner.process import FirstLine, Runner
from dcde.runner.state import default_state_folder
from dcde.wire import runtime_folder

log = logging.getLogger("dcde.runner")


_PR_SET_DUMPABLE = 4  # linux/prctl.h


def keep_memory_private() -> None:
    """Keep other processes of the same person, such as notebooks, from reading the token out of this memory."""
    if sys.platform.startswith("linux"):
        ctypes.CDLL(None).prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)


async def serve(runner: Runner) -> None:
    """Run until a signal asks for the end; no job is touched by it."""
    loop = asyncio.get_running_loop()
    ended = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, ended.set)
    await runner.start()
    try:
        await ended.wait()
    finally:
        await runner.close()


def main() -> int:
    """Run the runner and return its exit code: 0 after a signal, 2 when it could not start."""
    parser = argparse.ArgumentParser(
        prog="python -m dcde.runner",
        description="The runner of one person. Standard input: one line of JSON with broker_url, keeper_url and token.",
    )
    parser.add_argument("--state", type=Path, default=default_state_folder(), help="folder of what must last")
    parser.add_argument("--log-level", default="INFO", choices=["DEBUG", "INFO", "WARNING"])
    options = parser.parse_args()
    os.umask(0o077)
    keep_memory_private()
    set_up_logs(options.log_level)
    for noisy in ("asyncssh", "aiohttp.access"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    try:
        first_line = FirstLine.read(sys.stdin.buffer.readline())
        asyncio.run(serve(Runner(first_line, options.state, runtime_folder())))
    except DcdeError as error:
        log.error("the runner cannot work: %s", error)
        print(f"dcde.runner: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
