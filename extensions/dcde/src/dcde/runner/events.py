"""Hands changes to everyone who watches, without ever waiting for them.

A watcher that is slow does not get every state of a thing: for each thing only the newest waits for it.
"""

from __future__ import annotations

import asyncio
from typing import Any, Literal

Event = dict[str, Any]
EventType = Literal["run", "step", "site", "transfer"]

MOST_WAITING = 5000
"""So many different things may wait for one watcher; one that lets more pile up is sent away."""


class Subscription:
    """What waits for one watcher: for each thing its newest state, in the order of the first change."""

    def __init__(self, run: str | None) -> None:
        self._run = run
        self._waiting: dict[tuple[str, ...], Event] = {}
        self._changed = asyncio.Event()
        self.overrun = False

    def offer(self, key: tuple[str, ...], event: Event) -> None:
        """Let `event` take the place of an older one about the same thing."""
        if self._run is not None and not _concerns(event, self._run):
            return
        if key not in self._waiting and len(self._waiting) >= MOST_WAITING:
            self.overrun = True
        else:
            self._waiting[key] = event
        self._changed.set()

    async def next(self) -> list[Event]:
        """Wait for changes and return all that are there; an empty list means that the watcher was too slow."""
        await self._changed.wait()
        self._changed.clear()
        if self.overrun:
            return []
        batch = list(self._waiting.values())
        self._waiting.clear()
        return batch


class Events:
    """Where changes are told, and where watchers come and go."""

    def __init__(self) -> None:
        self._subscriptions: set[Subscription] = set()

    @property
    def watched(self) -> bool:
        """Whether anybody watches."""
        return bool(self._subscriptions)

    def subscribe(self, run: str | None = None) -> Subscription:
        """Begin to collect events: all of them, or those that concern one run."""
        subscription = Subscription(run)
        self._subscriptions.add(subscription)
        return subscription

    def unsubscribe(self, subscription: Subscription) -> None:
        """Stop collecting."""
        self._subscriptions.discard(subscription)

    def tell(self, kind: EventType, thing: dict[str, Any], *, owner: str = "") -> None:
        """Tell everyone how a thing is now. `owner` is the run of a step."""
        key, event = as_event(kind, thing, owner=owner)
        for subscription in self._subscriptions:
            subscription.offer(key, event)


def as_event(kind: EventType, thing: dict[str, Any], *, owner: str = "") -> tuple[tuple[str, ...], Event]:
    """Return what identifies a thing among all events, and the event that describes it."""
    name = str(thing.get("id", thing.get("name", "")))
    event: Event = {"type": kind, **thing}
    if owner:
        event["run"] = owner
    return (kind, owner, name), event


def _concerns(event: Event, run: str) -> bool:
    if event["type"] == "run":
        return bool(event.get("id") == run)
    return bool(event["type"] == "step" and event.get("run") == run)
