"""Keeps a warm process at work beside a server."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import sys
import time
from collections.abc import Mapping

from .asking import socket_path, sweep
from .warm import CHANGED

FIRST_PAUSE, LONGEST_PAUSE = 1.0, 300.0
STEADY = 60.0
"""Seconds after which a warm process counts as having started well, so that the next pause is short again."""
PATIENCE = 5.0
"""Seconds that a warm process has to end after SIGTERM."""

_NOT_FOR_KERNELS = ("JPY_", "JUPYTERHUB_")
"""How the names of variables begin that tell a server about its hub or parent; a kernel's come with its request."""


class WarmProcess:
    """Starts the warm process of this server, and starts it again when it ends."""

    def __init__(self, log: logging.Logger) -> None:
        """Take the log of the server."""
        self._log = log
        self._process: asyncio.subprocess.Process | None = None
        self._task: asyncio.Task[None] | None = None

    @property
    def pid(self) -> int | None:
        """The process id of the warm process; None while there is none."""
        process = self._process
        return process.pid if process is not None and process.returncode is None else None

    def start(self) -> None:
        """Begin, and return at once. Where the system has no pidfds, kernels start in the ordinary way."""
        if hasattr(os, "pidfd_open"):
            self._task = asyncio.create_task(self._keep(), name="dcde-warm-process")

    async def stop(self) -> None:
        """End the warm process. Kernels go on."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
        if self._process is not None and self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                self._process.terminate()
            try:
                await asyncio.wait_for(self._process.wait(), PATIENCE)
            except TimeoutError:
                self._process.kill()
                await self._process.wait()
        socket_path(os.getpid()).unlink(missing_ok=True)

    async def _keep(self) -> None:
        pause = FIRST_PAUSE
        while True:
            began = time.monotonic()
            try:
                code = await self._run()
            except OSError as error:
                self._log.warning("DCDE: the warm process could not be started: %s", error)
            else:
                if code == CHANGED:
                    self._log.info("DCDE: the library has changed on disk; the warm process starts anew")
                    continue
                self._log.warning("DCDE: the warm process ended (%d); kernels start in the ordinary way", code)
            if time.monotonic() - began > STEADY:
                pause = FIRST_PAUSE
            await asyncio.sleep(pause)
            pause = min(LONGEST_PAUSE, pause * 2)

    async def _run(self) -> int:
        sweep()
        self._process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "dcde.kernel.warm", str(os.getpid())),
            stdin=asyncio.subprocess.DEVNULL,
            cwd="/",  # modules are looked for in the working directory first, and nobody has put any there
            env=environment(os.environ),
            start_new_session=True,  # ctrl-C in the server's terminal is not meant for it
        )
        return await self._process.wait()


def environment(server: Mapping[str, str]) -> dict[str, str]:
    """Return the environment of the warm process: the server's, without what is the server's alone."""
    return {name: value for name, value in server.items() if not name.startswith(_NOT_FOR_KERNELS)}
