"""One watch of the runner for all browser windows of a person."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator
from typing import Any

from dcde.errors import DcdeError
from dcde_models.logs import new_request_id, request_id

from .relay import Relay

FIRST_PAUSE, LONGEST_PAUSE = 0.3, 5.0
QUEUE_LENGTH = 1000
"""Events that may wait for one window; one that is further behind is closed, comes again and reads all anew."""

Event = dict[str, Any]


class TooSlow(Exception):
    """A subscriber did not take its events in time."""


class EventFan:
    """Watches the runner while anybody listens, connects again by itself, and hands every event to all subscribers.

    Between the runner's own events stand `{"type": "runner", "state": "up" | "away"}`: after an `up` a subscriber
    must read again what it shows, since events may have been missed.
    """

    def __init__(self, relay: Relay, log: logging.Logger) -> None:
        self._relay = relay
        self._log = log
        self._queues: dict[asyncio.Queue[Event | None], bool] = {}
        self._task: asyncio.Task[None] | None = None
        self._last: Event = {"type": "runner", "state": "away"}

    async def events(self) -> AsyncIterator[Event]:
        """Yield events for one subscriber, the runner's state first; raises TooSlow when it falls too far behind."""
        queue: asyncio.Queue[Event | None] = asyncio.Queue(QUEUE_LENGTH)
        queue.put_nowait(self._last)
        self._queues[queue] = True
        if self._task is None:
            self._task = asyncio.create_task(self._watch(), name="dcde-events")
        try:
            while (event := await queue.get()) is not None:
                yield event
                if not self._queues.get(queue):
                    raise TooSlow
        finally:
            self._queues.pop(queue, None)
            if not self._queues:
                await self._rest()

    async def close(self) -> None:
        """End all subscriptions."""
        for queue in list(self._queues):
            while queue.full():
                queue.get_nowait()
            queue.put_nowait(None)
        await self._rest()

    async def _rest(self) -> None:
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
            self._last = {"type": "runner", "state": "away"}

    async def _watch(self) -> None:
        pause = FIRST_PAUSE
        while True:
            try:
                if await self._relay.answers():
                    self._say({"type": "runner", "state": "up"})
                    pause = FIRST_PAUSE
                    request_id.set(new_request_id())
                    async for event in self._relay.watch():
                        self._hand_out(event)
            except DcdeError as error:
                self._log.debug("DCDE: events are interrupted: %s", error)
            self._say({"type": "runner", "state": "away"})
            await asyncio.sleep(pause)
            pause = min(LONGEST_PAUSE, pause * 2)

    def _say(self, event: Event) -> None:
        if event != self._last:
            self._last = event
            self._hand_out(event)

    def _hand_out(self, event: Event) -> None:
        for queue in list(self._queues):
            if queue.full():
                self._queues[queue] = False
            else:
                queue.put_nowait(event)
