"""The link at the three sites of a world: real Slurm, real firewalls, a site that is cut off."""

from __future__ import annotations

import base64
import json
import os
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from dcde_testbed import preflight
from dcde_testbed.guest import parse
from dcde_testbed.outside import environment, make_state
from dcde_testbed.world import World

TOP = Path(__file__).parents[3]
PEOPLE = {
    "bnl-sdcc": ("u12345", "dcde1000001@bnl-sdcc"),
    "ornl-cades": ("d7c", "dcde1000001@ornl-cades"),
    "anl-lcrc": ("drivers", "dcde1000001@anl-lcrc"),
}

pytestmark = pytest.mark.world


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """A world whose sites trust certificates of ours, with the library's source and the near end in the hub's room."""
    if os.geteuid() != 0 and preflight.problems():
        pytest.skip("; ".join(preflight.problems()))
    state = tmp_path_factory.mktemp("world")
    make_state(state)
    for site in PEOPLE:
        folder = state / "inside" / "onboarding" / site
        folder.mkdir(mode=0o711, parents=True, exist_ok=True)
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / "user_ca")], check=True)
    sources = {
        "/opt/dcde/near/models": TOP / "extensions/models/src",
        "/opt/dcde/near/dcde": TOP / "extensions/dcde/src",
        "/opt/dcde/near/test": Path(__file__).parent,
    }
    binds = [{"source": str(source), "target": target, "read_only": True} for target, source in sources.items()]
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    options = ["anl-lcrc.storage_mb=16"]
    guest = parse({"binds": binds})
    with World(state, port, environments=TOP / "build" / "env", guest=guest, site_options=options) as running:
        yield running


def near_end(world: World, scenario: str, site: str) -> subprocess.Popen[str]:
    account, principal = PEOPLE[site]
    argv = [
        "/usr/bin/env", "PYTHONPATH=/opt/dcde/near/models:/opt/dcde/near/dcde", "/opt/dcde/user/bin/python", "-B",
        "/opt/dcde/near/test/near_end.py", scenario, site, account, principal,
        f"/var/lib/dcde/onboarding/{site}/user_ca",
    ]  # fmt: skip
    pipe = subprocess.PIPE
    command = world.argv("hub", None, argv)
    # Its errors are among what it says, so that a failed assertion shows them.
    return subprocess.Popen(
        command, stdout=pipe, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, text=True, env=environment()
    )


def outcome(world: World, scenario: str, site: str) -> dict[str, Any]:
    """Return what a near end said, by the word for it."""
    with near_end(world, scenario, site) as process:
        out, _ = process.communicate(timeout=110)
    assert process.returncode == 0, out
    return {line["what"]: line for line in map(json.loads, out.splitlines())}


@pytest.mark.parametrize("site", PEOPLE)
def test_jobs_of_one_key_are_one_job(world: World, site: str) -> None:
    said = outcome(world, "jobs", site)
    answers = said["submitted"]["answers"]
    assert len({answer["job_id"] for answer in answers}) == 1
    assert sorted(answer["how"] for answer in answers) == ["attached", "attached", "new"]
    assert said["again"]["answer"] == {"job_id": answers[0]["job_id"], "how": "recovered"}
    jobs = said["ended"]["jobs"]
    good, bad, long = (jobs[f"t-r1-{name}-a1"] for name in ("s", "bad", "long"))
    assert (good["slurm_state"], good["exit_code"]) == ("COMPLETED", 0)
    assert good["node"] in ("n1", "n2")
    assert (bad["slurm_state"], bad["exit_code"]) == ("FAILED", 3)
    assert long["slurm_state"] == "CANCELLED"
    assert base64.b64decode(said["starts"]["tail"]).decode().split() == [good["node"]]
    assert said["queue"]["queue"]["nodes_total"] == 2
    error = said["refused"]["error"]
    assert (error["code"], error["retry"]) == ("SchedulerError", False)
    assert "partition" in error["message"]
    assert sorted(entry["name"] for entry in said["left"]["entries"]) == ["t-r1-bad-a1", "t-r1-long-a1", "t-r1-no-a1"]
    # Slurm's own list: one job of that name, whatever we believe.
    listed = world.run(site, "login", ["squeue", "-h", "-t", "all", "-o", "%j"]).stdout.split()
    assert listed.count("t-r1-s-a1") == 1


def test_a_site_that_is_cut_off_loses_and_doubles_nothing(world: World) -> None:
    lines = []
    with near_end(world, "cut", "ornl-cades") as process:
        for text in process.stdout or ():
            assert text.startswith("{"), text
            lines.append(line := json.loads(text))
            if line["what"] == "cut me":
                world.cut("ornl-cades")
            elif line["what"] == "lost" and [x["what"] for x in lines].count("lost") == 2:
                # The second one is an attempt to connect that failed: the site is still away.
                world.mend("ornl-cades")
    assert process.returncode == 0, lines
    at = {line["what"]: line.get("at") for line in reversed(lines)}
    assert at["lost"] - at["cut me"] <= 15
    said = {line["what"]: line for line in lines}
    assert sorted(answer["how"] for answer in said["submitted"]["answers"]) == ["new"] * 5
    assert len(set(said["ended"]["starts"])) == 1, "each job wrote one line"


def test_a_full_storage_is_said(world: World) -> None:
    said = outcome(world, "full", "anl-lcrc")
    error = said["full"]["error"]
    assert (error["code"], error["retry"], error["where"]) == ("DiskFull", True, "anl-lcrc:too-big")
    assert "Remove files" in error["remedy"]
    assert not [entry for entry in said["left"]["entries"] if entry["name"].startswith((".", "too"))]
    assert said["fits"]["equal"] is True
