"""Tells the keeper which runs are unfinished, so that it brings this runner back while there are any."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Iterable

import aiohttp
from dcde_models.logs import new_request_id

log = logging.getLogger(__name__)

_LONGEST_PAUSE = 60.0
_AGAIN = 600.0
"""Seconds after which the same is told again, in case the keeper forgot."""


class Keeper:
    """The way to the keeper: whatever was wanted last is told until it is delivered.

    Args:
        url: The keeper's address, ending with a slash; empty where there is no keeper.
        token: The token of the person's server.
    """

    def __init__(self, url: str, token: str) -> None:
        self._url = url
        self._token = token
        self._wanted: list[str] = []
        self._delivered: list[str] | None = None
        self._changed = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to deliver; returns at once."""
        if self._url:
            self._task = asyncio.create_task(self._deliver(), name="keeper")

    async def close(self) -> None:
        """Stop delivering. What the keeper knows stays: that is how the runner is brought back."""
        if self._task:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    def needed(self, runs: Iterable[str]) -> None:
        """Set the runs for which this runner is needed; returns at once."""
        self._wanted = sorted(runs)
        if self._wanted != self._delivered:
            self._changed.set()

    async def _deliver(self) -> None:
        pause = 1.0
        timeout = aiohttp.ClientTimeout(total=15)
        async with aiohttp.ClientSession(timeout=timeout) as session:
            while True:
                self._changed.clear()
                wanted = self._wanted
                if await self._put(session, wanted):
                    self._delivered, pause = wanted, 1.0
                    if self._wanted == wanted:
                        await self._wait(_AGAIN)
                else:
                    await asyncio.sleep(pause * random.uniform(0.8, 1.2))  # noqa: S311  not for secrets
                    pause = min(_LONGEST_PAUSE, pause * 2)

    async def _wait(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                await self._changed.wait()
        except TimeoutError:
            return

    async def _put(self, session: aiohttp.ClientSession, runs: list[str]) -> bool:
        headers = {"Authorization": f"token {self._token}", "X-Request-ID": new_request_id()}
        try:
            async with session.put(f"{self._url}needed", json={"runs": runs}, headers=headers) as answer:
                if answer.status < 300:
                    return True
                log.warning("the keeper answered %d", answer.status)
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            log.info("the keeper does not answer: %s", type(error).__name__)
        return False
