"""Starts the person's runner and starts it again when it ends."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from dcde.errors import DcdeError

from .relay import Relay

_TETHER = (sys.executable, "-m", "dcde_lab.tether")
RUNNER = (sys.executable, "-m", "dcde.runner")
FIRST_PAUSE, LONGEST_PAUSE = 0.5, 30.0
STEADY = 60.0
"""Seconds after which a runner counts as having started well, so that the next pause is short again."""
PATIENCE = 10.0
"""Seconds that a runner has to end itself after SIGTERM."""

_STDERR = 2
"""What the runner prints goes to the server's log, which is its standard error."""

State = Literal["starting", "up", "away"]


@dataclass
class RunnerSupervisor:
    """Keeps one runner at work: the one that is there already, or one of its own.

    The runner learns the hub's addresses and the token from the first line of its standard input, never from its
    environment or arguments. The input stays open as long as the supervisor lives.
    """

    relay: Relay
    first_line: Mapping[str, str]
    log: logging.Logger
    command: Sequence[str] = RUNNER
    state: State = "starting"
    reason: str = ""
    _process: asyncio.subprocess.Process | None = None
    _task: asyncio.Task[None] | None = None
    _pause: float = field(default=FIRST_PAUSE)

    def start(self) -> None:
        """Begin to supervise; returns at once."""
        self._task = asyncio.create_task(self._supervise(), name="dcde-runner-supervisor")

    async def stop(self) -> None:
        """End supervising and the runner that was started here. Jobs at the sites are not touched by it."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
        if self._process is not None and self._process.returncode is None:
            await _end(self._process)
        self.state = "away"

    async def _supervise(self) -> None:
        while True:
            began = time.monotonic()
            try:
                await self._use_existing()
                await self._run_own()
            except OSError as error:
                self._away(f"The runner could not be started: {error}")
            except DcdeError as error:
                self._away(str(error))
            if time.monotonic() - began > STEADY:
                self._pause = FIRST_PAUSE
            await asyncio.sleep(self._pause)
            self._pause = min(LONGEST_PAUSE, self._pause * 2)

    async def _use_existing(self) -> None:
        """Stay with a runner that somebody else started, such as the keeper or a command, as long as it is there."""
        if not await self.relay.answers():
            return
        self.state, self.reason = "up", ""
        self.log.info("DCDE: a runner is at work already; it is used")
        try:
            await self.relay.until_gone()
        except DcdeError as error:
            if not error.retry:
                raise

    async def _run_own(self) -> None:
        if self.state != "away":
            self.state = "starting"
        process = self._process = await asyncio.create_subprocess_exec(
            *_TETHER, str(os.getpid()), *self.command, stdin=asyncio.subprocess.PIPE, stdout=_STDERR, cwd=Path.home()
        )
        assert process.stdin is not None  # noqa: S101  a pipe was asked for
        process.stdin.write(json.dumps(dict(self.first_line)).encode() + b"\n")
        with contextlib.suppress(OSError):
            await process.stdin.drain()
        noticing = asyncio.create_task(self._notice_up())
        try:
            code = await process.wait()
        finally:
            noticing.cancel()
        self._away(f"The runner ended ({_ending(code)}).")

    async def _notice_up(self) -> None:
        """Say `up` as soon as the new runner listens. Its first moment is known only by trying."""
        while True:
            with contextlib.suppress(DcdeError):
                if await self.relay.answers():
                    self.state, self.reason = "up", ""
                    return
            await asyncio.sleep(0.1)

    def _away(self, reason: str) -> None:
        self.state, self.reason = "away", reason
        self.log.warning("DCDE: %s Next try in %.1f s.", reason, self._pause)

    def to_json(self) -> dict[str, Any]:
        """Return the runner's state for the panel."""
        return {"state": self.state, "reason": self.reason}


async def _end(process: asyncio.subprocess.Process) -> None:
    with contextlib.suppress(ProcessLookupError):
        process.terminate()
        try:
            await asyncio.wait_for(process.wait(), PATIENCE)
        except TimeoutError:
            process.kill()
            await process.wait()


def _ending(code: int) -> str:
    return f"signal {-code}" if code < 0 else f"exit code {code}"
