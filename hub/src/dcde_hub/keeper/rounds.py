"""The keeper's rounds: what it does about each server, again and again."""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

from dcde_hub.errors import HubError
from dcde_hub.keeper.hubapi import Server, StartRefused
from dcde_hub.keeper.memory import Memory
from dcde_hub.registry import Registry
from dcde_hub.settings import KeeperSettings

log = logging.getLogger("dcde.keeper")


class Servers(Protocol):
    """What the keeper can do about servers; HubApi does it."""

    async def servers(self) -> dict[str, Server]:
        """Return the servers there are, by person."""

    async def start(self, person: str) -> None:
        """Start a person's server."""

    async def stop(self, person: str) -> None:
        """Stop a person's server."""


@dataclass
class _Tries:
    """The failed starts of a person's server since it last ran."""

    count: int = 0
    not_before: float = 0.0


@dataclass
class Rounds:
    """Compares what runs with what is needed and allowed, and acts on it.

    Args:
        servers: Looks at servers, starts and stops them.
        registry: Says who is still a member.
        memory: Says who has unfinished runs.
        settings: Times.
        now: The clock, seconds since the epoch.
    """

    servers: Servers
    registry: Registry
    memory: Memory
    settings: KeeperSettings
    now: Callable[[], float] = time.time
    _tries: dict[str, _Tries] = field(default_factory=dict)

    async def run(self) -> None:
        """Make rounds until cancelled. What fails is noted, and tried again in the next round."""
        while True:
            try:
                await self.once()
            except HubError as error:
                log.warning("this round ended early: %s", error)
            await asyncio.sleep(self.settings.interval_seconds)

    async def once(self) -> None:
        """Make one round; raises HubError when the hub does not answer."""
        running = await self.servers.servers()
        needed = self.memory.needed()
        for person, server in running.items():
            await self._look_at(person, server, bool(needed.get(person)))
        for person in needed:
            if person not in running:
                await self._bring_back(person)

    async def _look_at(self, person: str, server: Server, needed: bool) -> None:
        if server.ready:
            self._tries.pop(person, None)
        if server.pending:
            return
        if await self._left(person):
            await self._stop(person, "the membership is not in force any more")
        elif server.ready and not needed and self.now() - server.last_activity > self.settings.idle_seconds:
            await self._stop(person, "it was idle, and no run needs it")

    async def _bring_back(self, person: str) -> None:
        tries = self._tries.setdefault(person, _Tries())
        if self.now() < tries.not_before or not await self._active(person):
            return
        tries.count += 1
        tries.not_before = self.now() + self._backoff(tries.count)
        log.info("starting the server: unfinished runs need it (try %d)", tries.count, extra={"person": person})
        try:
            await self.servers.start(person)
        except StartRefused as error:
            log.error("the server was not started: %s", error, extra={"person": person})

    def _backoff(self, count: int) -> float:
        longest = self.settings.backoff_limit_seconds
        return min(longest, self.settings.backoff_seconds * 2.0 ** min(count - 1, 30)) * random.uniform(0.8, 1.2)  # noqa: S311

    async def _stop(self, person: str, why: str) -> None:
        log.info("stopping the server: %s", why, extra={"person": person})
        try:
            await self.servers.stop(person)
        except StartRefused as error:
            log.error("the server was not stopped: %s", error, extra={"person": person})

    async def _active(self, person: str) -> bool:
        try:
            member = await self.registry.by_id(person)
        except HubError as error:
            log.warning("not known to be a member: %s", error, extra={"person": person})
            return False
        return member is not None and member.active

    async def _left(self, person: str) -> bool:
        """Tell whether the registry says that this person is out; no answer from it is no such word."""
        try:
            member = await self.registry.by_id(person)
        except HubError as error:
            return error.status == 403
        return member is None or not member.active
