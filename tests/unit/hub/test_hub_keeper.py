"""The keeper's rounds, with a hub that only notes what it is asked."""

from __future__ import annotations

import itertools
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from dcde_hub.errors import HubUnavailable
from dcde_hub.keeper.hubapi import Server, StartRefused
from dcde_hub.keeper.memory import Memory
from dcde_hub.keeper.rounds import Rounds
from dcde_hub.registry import FileRegistry
from dcde_hub.settings import KeeperSettings

ONE, TWO = "dcde1000001", "dcde1000002"


class NotingHub:
    def __init__(self) -> None:
        self.running: dict[str, Server] = {}
        self.asked: list[tuple[str, str]] = []
        self.refuses = False
        self.silent = False

    async def servers(self) -> dict[str, Server]:
        if self.silent:
            raise HubUnavailable("silent")
        return dict(self.running)

    async def start(self, person: str) -> None:
        self.asked.append(("start", person))
        if self.refuses:
            raise StartRefused("503")

    async def stop(self, person: str) -> None:
        self.asked.append(("stop", person))


class Table:
    """Everything a round needs, with a clock that stands still until it is moved."""

    def __init__(self, folder: Path, registry: Path) -> None:
        self.time = 1_000_000.0
        self.hub = NotingHub()
        self.memory = Memory(folder / "keeper.sqlite")
        settings = KeeperSettings(
            address="127.0.0.1", port=0, hub_api_url="", token_file=folder, registry=registry, database=folder, idle_seconds=3600, backoff_seconds=10, backoff_limit_seconds=100
        )  # fmt: skip
        self.rounds = Rounds(self.hub, FileRegistry(registry), self.memory, settings, now=lambda: self.time)

    async def round(self, forward: float = 0) -> list[tuple[str, str]]:
        self.time += forward
        self.hub.asked.clear()
        await self.rounds.once()
        return list(self.hub.asked)

    def runs(self, person: str, *, idle: float = 0, pending: bool = False) -> None:
        self.hub.running[person] = Server(ready=not pending, pending=pending, last_activity=self.time - idle)


@pytest.fixture
def table(tmp_path: Path, entry: Callable[..., dict[str, Any]], registry_file: Callable[..., Path]) -> Any:
    made = Table(tmp_path, registry_file(entry(1), entry(2)))
    yield made
    made.memory.close()


async def test_a_needed_server_is_started(table: Table) -> None:
    table.memory.put(ONE, ["r1"])
    assert await table.round() == [("start", ONE)]


async def test_nothing_is_done_while_it_starts_or_runs(table: Table) -> None:
    table.memory.put(ONE, ["r1"])
    table.runs(ONE, pending=True)
    assert await table.round() == []
    table.runs(ONE)
    assert await table.round(10_000) == []


async def test_failed_starts_are_tried_ever_more_rarely(table: Table) -> None:
    table.memory.put(ONE, ["r1"])
    table.hub.refuses = True
    tries = [table.time for _ in range(1000) if await table.round(1)]
    pauses = [later - earlier for earlier, later in itertools.pairwise(tries)]
    assert 8 <= pauses[0] <= 13 and pauses[1] > 12 and 80 <= pauses[-1] <= 121
    assert len(tries) < 20 and max(pauses) <= 121


async def test_after_it_ran_the_first_try_comes_at_once_again(table: Table) -> None:
    table.memory.put(ONE, ["r1"])
    for _ in range(3):
        await table.round(1000)
    table.runs(ONE)
    await table.round(1)
    table.hub.running.clear()
    assert await table.round(1) == [("start", ONE)]


async def test_a_server_that_nobody_needs_is_stopped_when_idle(table: Table) -> None:
    table.runs(ONE, idle=3599)
    table.runs(TWO, idle=3601)
    assert await table.round() == [("stop", TWO)]
    table.memory.put(TWO, ["r1"])
    assert await table.round() == []


@pytest.mark.parametrize("change", [{"status": "suspended"}, {"status": "expired"}, {"uid_number": 0}, None])
async def test_who_left_is_stopped_and_never_started(
    table: Table,
    change: dict[str, Any] | None,
    entry: Callable[..., dict[str, Any]],
    registry_file: Callable[..., Path],
) -> None:
    table.memory.put(ONE, ["r1"])
    table.runs(ONE)
    registry_file(*([entry(1, **change)] if change else []), entry(2))
    assert await table.round() == [("stop", ONE)]
    table.hub.running.clear()
    assert await table.round(1000) == []


async def test_a_registry_that_is_gone_stops_nobody(table: Table, tmp_path: Path) -> None:
    table.runs(ONE)
    table.rounds.registry = FileRegistry(tmp_path / "nowhere.yaml")
    table.memory.put(TWO, ["r1"])
    assert await table.round() == []


async def test_a_silent_hub_ends_the_round_only(table: Table) -> None:
    table.hub.silent = True
    with pytest.raises(HubUnavailable):
        await table.round()
    table.hub.silent = False
    table.memory.put(ONE, ["r1"])
    assert await table.round() == [("start", ONE)]


def test_memory_lasts_and_is_private(tmp_path: Path) -> None:
    path = tmp_path / "keeper.sqlite"
    memory = Memory(path)
    memory.put(ONE, ["r1", "r2"])
    memory.put(TWO, ["r3"])
    memory.put(ONE, ["r2"])
    memory.put(TWO, [])
    memory.close()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    again = Memory(path)
    assert again.needed() == {ONE: ["r2"]}
    again.close()
