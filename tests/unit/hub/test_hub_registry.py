"""The registry in a file: who is found, who is refused, and what a broken file does."""

from __future__ import annotations

import datetime
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from dcde_hub.errors import EntryRefused, RegistryUnavailable
from dcde_hub.registry import FileRegistry, UidRange

Entry = Callable[..., dict[str, Any]]
Write = Callable[..., Path]


async def test_a_member_is_found_by_id_and_by_identity(entry: Entry, registry_file: Write) -> None:
    registry = FileRegistry(registry_file(entry(1, identities=["P1@PNNL.example", "p1@bnl.example"]), entry(2)))
    member = await registry.by_id("dcde1000001")
    assert member and member.uid_number == 51001 and member.active
    assert member.policies == {"https://dcde.example/aup/2": datetime.date(2026, 1, 15)}
    assert await registry.by_identity("p1@pnnl.EXAMPLE") == member == await registry.by_identity("p1@bnl.example")
    assert await registry.by_id("dcde1000007") is None and await registry.by_identity("nobody@pnnl.example") is None
    assert (await registry.policies())["https://dcde.example/aup/2"].title == "Acceptable use"


@pytest.mark.parametrize(
    "change",
    [
        {"uid_number": 0},
        {"uid_number": 49999},
        {"uid_number": 60000},
        {"uid_number": -1},
        {"uid_number": "51001"},
        {"uid_number": True},
        {"dcde_id": "root"},
        {"dcde_id": "dcde1000001\n"},
        {"dcde_id": "dcde１000001"},
        {"identities": []},
        {"identities": ["no-scope"]},
        {"status": "half"},
        {"name": "a:b"},
        {"name": "a\nroot:x:0:0::/:/bin/sh"},
        {"groups": ["a b"]},
        {"policies": {"x": "yesterday"}},
        {"shell": "/bin/sh"},
    ],
)
async def test_a_bad_entry_refuses_that_person_and_nobody_else(
    change: dict[str, Any], entry: Entry, registry_file: Write, caplog: pytest.LogCaptureFixture
) -> None:
    registry = FileRegistry(registry_file(entry(1) | change, entry(2)))
    assert await registry.by_id("dcde1000002")
    refused = (entry(1) | change)["dcde_id"]
    with pytest.raises(EntryRefused):
        await registry.by_id(refused)
    assert "is not used" in caplog.text


@pytest.mark.parametrize("same", ["dcde_id", "uid_number", "identities"])
async def test_what_two_entries_share_belongs_to_neither(same: str, entry: Entry, registry_file: Write) -> None:
    registry = FileRegistry(registry_file(entry(1), entry(2) | {same: entry(1)[same]}, entry(3)))
    with pytest.raises(EntryRefused, match="several entries"):
        await registry.by_identity("p1@pnnl.example")
    assert await registry.by_id("dcde1000003")


async def test_a_bad_entry_does_not_free_its_id_for_another(entry: Entry, registry_file: Write) -> None:
    registry = FileRegistry(registry_file(entry(1, status="half"), entry(2, dcde_id="dcde1000001")))
    with pytest.raises(EntryRefused):
        await registry.by_id("dcde1000001")
    with pytest.raises(EntryRefused):
        await registry.by_identity("p2@pnnl.example")


async def test_the_range_can_be_moved(entry: Entry, registry_file: Write) -> None:
    with pytest.raises(EntryRefused, match="52000 to 53000"):
        await FileRegistry(registry_file(entry(1)), UidRange(52000, 53000)).by_id("dcde1000001")


async def test_a_change_acts_at_once(entry: Entry, registry_file: Write) -> None:
    registry = FileRegistry(registry_file(entry(1)))
    assert (await registry.by_id("dcde1000001")).active  # type: ignore[union-attr]
    registry_file(entry(1, status="suspended"))
    assert not (await registry.by_id("dcde1000001")).active  # type: ignore[union-attr]
    registry_file()
    assert await registry.by_id("dcde1000001") is None


@pytest.mark.parametrize("text", ["people: [{", "- 1", "people: 7", "persons: []", "", "\x00"])
async def test_a_broken_file_keeps_the_last_good_one(
    text: str, entry: Entry, registry_file: Write, caplog: pytest.LogCaptureFixture
) -> None:
    path = registry_file(entry(1))
    registry = FileRegistry(path)
    assert await registry.by_id("dcde1000001")
    path.write_text(text)
    assert await registry.by_id("dcde1000001")
    assert "the last good one stays in force" in caplog.text
    registry_file()
    assert await registry.by_id("dcde1000001") is None


async def test_a_missing_file_keeps_the_last_good_one(entry: Entry, registry_file: Write) -> None:
    path = registry_file(entry(1))
    registry = FileRegistry(path)
    assert await registry.by_id("dcde1000001")
    path.unlink()
    assert await registry.by_id("dcde1000001")


async def test_a_file_that_was_never_good_lets_nobody_in(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.ERROR)
    with pytest.raises(RegistryUnavailable) as raised:
        await FileRegistry(tmp_path / "registry.yaml").by_id("dcde1000001")
    assert raised.value.retry and "nobody can log in" in caplog.text
