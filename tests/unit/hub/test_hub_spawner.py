"""What the spawner remembers of a server, and the address each person has."""

from __future__ import annotations

import ast
import sys
from pathlib import Path

import pytest
from dcde_hub import room
from dcde_hub.errors import AccountRefused
from dcde_hub.spawner import RoomSpawner, address_of


@pytest.mark.parametrize(("uid", "address"), [(51001, "10.79.1.1"), (51254, "10.79.1.254"), (51257, "10.79.2.1")])
def test_addresses_follow_the_uid(uid: int, address: str) -> None:
    assert address_of(uid, "10.79.1.0", 51000) == address


@pytest.mark.parametrize("uid", [51000, 50999, 0, 51255, 51256, 51000 + 200 * 256])
def test_no_address_for_other_uids(uid: int) -> None:
    with pytest.raises(AccountRefused):
        address_of(uid, "10.79.1.0", 51000)


def test_a_process_of_another_world_is_nobody() -> None:
    first, second = RoomSpawner(world="one"), RoomSpawner(world="two")
    first.pid = 4711
    state = first.get_state()
    second.load_state(state)
    assert second.pid == 0
    again = RoomSpawner(world="one")
    again.load_state(state)
    assert again.pid == 4711


def test_the_room_needs_the_standard_library_only() -> None:
    tree = ast.parse(Path(room.__file__).read_text())
    names = {
        alias.name.split(".")[0] for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names
    }
    names |= {(node.module or "").split(".")[0] for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert names <= set(sys.stdlib_module_names)
