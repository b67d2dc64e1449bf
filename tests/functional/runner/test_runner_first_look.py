"""The template First look with the real RELION, by a real runner at three sites; its averages are judged by the truth."""

from __future__ import annotations

import base64
import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from dcde_testbed.guest import parse
from dcde_testbed.outside import make_state
from dcde_testbed.world import World

from .conftest import ACCOUNTS, TOP, Room, binds

STEPS_AT = ["bnl-sdcc", "bnl-sdcc", "ornl-cades", "ornl-cades", "anl-lcrc", "anl-lcrc"]

pytestmark = [pytest.mark.long, pytest.mark.timeout(900)]


@pytest.fixture(scope="module")
def movies_world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    data = tmp_path_factory.mktemp("sample")
    command = [sys.executable, "-m", "dcde_testbed.microscope", "--out", str(data / "movies")]
    environment = os.environ | {"PYTHONPATH": str(TOP / "testbed/src")}
    subprocess.run(
        [*command, "--truth", str(data / "truth"), "--movies", "4", "--seed", "1"], env=environment, check=True
    )
    state = tmp_path_factory.mktemp("first-look-world")
    make_state(state)
    for site in ACCOUNTS:
        folder = state / "inside" / "onboarding" / site
        folder.mkdir(mode=0o711, parents=True)
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / "user_ca")], check=True)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    guest = parse({"binds": binds()})
    with World(state, port, environments=TOP / "build" / "env", guest=guest, sample_data=data) as world:
        yield world


@pytest.fixture
def movies_room(movies_world: World) -> Iterator[Room]:
    room = Room(movies_world, "firstlook")
    room.start()
    yield room
    room.end()


def test_first_look_goes_from_movies_to_averages(movies_room: Room, tmp_path: Path) -> None:
    room = movies_room
    run = room.ask("runs.launch", template="first-look", parameters={}, project=room.project)
    assert "error" not in run, run
    done = room.until(run["id"], "-", "succeeded", seconds=800)
    assert done["state"] == "succeeded", json.dumps(done, indent=1)
    assert [step["site"] for step in done["steps"]] == STEPS_AT
    assert len(room.starts()) == len(STEPS_AT)
    shown = [(step["id"], p["name"]) for step in done["steps"] for p in step["pictures"]]
    assert len(shown) >= 3, shown
    for step, name in shown:
        picture = room.ask("runs.picture", run=run["id"], step=step, name=name)
        assert base64.b64decode(picture["png_base64"]).startswith(b"\x89PNG")
    assert done["steps"][-1]["rows"]
