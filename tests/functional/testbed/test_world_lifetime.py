"""Worlds come up, go down and leave nothing: twice, side by side, killed, refused, and without root."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from dcde_testbed import outside
from dcde_testbed.guest import parse
from dcde_testbed.preflight import SEARCH
from dcde_testbed.world import World, WorldError

from . import conftest

PACKAGE = Path(outside.__file__).parent
USER = 54321


def host_traces() -> dict[str, object]:
    """Everything on the host that a world could leave behind."""
    accounts = [
        hashlib.sha256(Path(name).read_bytes()).hexdigest() for name in ("/etc/passwd", "/etc/group", "/etc/hosts")
    ]
    links = json.loads(subprocess.run(["ip", "-j", "link"], capture_output=True, text=True, check=True).stdout)
    groups = [line.split(":", 2) for line in Path("/proc/self/cgroup").read_text().splitlines()]
    memory = next(
        (Path("/sys/fs/cgroup/memory" + path) for _, names, path in groups if "memory" in names.split(",")), None
    )
    return {
        "mounts": Path("/proc/self/mountinfo").read_text().count("\n"),
        "accounts": accounts,
        "links": sorted(link["ifname"] for link in links),
        "netns": sorted(p.name for p in Path("/run/netns").glob("*")),
        "groups": sorted(p.name for p in memory.glob("dcde-*")) if memory and memory.is_dir() else [],
        "tables": subprocess.run(["nft", "list", "tables"], capture_output=True, text=True).stdout,
    }


def processes_of(state: Path) -> list[str]:
    """Command lines of processes whose root or lock belongs to the world of this state."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            ours = str(state / "root") in (folder / "mountinfo").read_text()
            ours = ours or any(str(state) in os.readlink(fd) for fd in (folder / "fd").iterdir())
            if ours and int(folder.name) != os.getpid():
                found.append((folder / "cmdline").read_text().replace("\0", " "))
    return found


def members(one: int) -> set[int]:
    """All processes in the PID namespaces of a world's process 1 and below."""
    children: dict[int, list[int]] = {}
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            parent = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
            children.setdefault(parent, []).append(int(folder.name))
    seen, todo = set(), [one]
    while todo:
        pid = todo.pop()
        seen.add(pid)
        todo += children.get(pid, [])
    return seen


def alive(pids: set[int]) -> set[int]:
    return {
        pid for pid in pids if Path(f"/proc/{pid}/stat").exists() and " Z " not in Path(f"/proc/{pid}/stat").read_text()
    }


def small(state: Path, **options: object) -> World:
    """A world without environments: sites, door and the guest only."""
    return World(state, conftest.unused_port(), environments=state / "none", **options)  # type: ignore[arg-type]


def test_down_leaves_nothing_and_what_lasts_is_there_again(tmp_path: Path) -> None:
    before = host_traces()
    world = small(tmp_path / "state")
    world.up()
    pids = members(outside.first_process(world.state))
    assert len(pids) > 30
    with pytest.raises(WorldError, match="already"):
        world.up()
    world.run("bnl-sdcc", "login", ["sh", "-c", "echo kept > note"], user="u12345")
    job = world.run(
        "bnl-sdcc", "login", ["sbatch", "--parsable", "--wait", "--wrap", "true"], user="u12345"
    ).stdout.strip()
    key, identity = world.facts["sites"]["bnl-sdcc"]["host_key"], world.facts["world"]
    began = time.monotonic()
    world.down()
    assert time.monotonic() - began < 3
    assert not alive(pids)
    assert not world.is_up
    assert host_traces() == before
    world.down()  # again is no error

    world.up()
    try:
        assert world.run("bnl-sdcc", "login", ["cat", "note"], user="u12345").stdout == "kept\n"
        assert (
            job
            in world.run("bnl-sdcc", "login", ["squeue", "-h", "-t", "all", "-o", "%i"], user="u12345").stdout.split()
        )
        assert world.facts["sites"]["bnl-sdcc"]["host_key"] == key
        assert world.facts["world"] != identity
    finally:
        world.down()
    assert host_traces() == before


def test_two_worlds_side_by_side_do_not_see_each_other(world: World, tmp_path: Path) -> None:
    with small(tmp_path / "second") as second:
        second.run("bnl-sdcc", "login", ["touch", "only-here"], user="u12345")
        assert world.run("bnl-sdcc", "login", ["ls", "only-here"], user="u12345", check=False).returncode != 0
        before = world.counters("bnl-sdcc")["in_ssh"]
        second.run("hub", None, ["bash", "-c", "exec 3<>/dev/tcp/10.77.0.11/22"])
        assert second.counters("bnl-sdcc")["in_ssh"] == 1
        assert world.counters("bnl-sdcc")["in_ssh"] == before
    assert world.status()["ready"]
    assert "idle" in world.run("bnl-sdcc", "login", ["sinfo"]).stdout


def test_a_killed_world_is_gone_at_once_and_can_start_again(tmp_path: Path) -> None:
    before = host_traces()
    world = small(tmp_path / "state")
    world.up()
    one = outside.first_process(world.state)
    pids = members(one)
    os.kill(int((world.state / "pid").read_text()), signal.SIGKILL)
    outside.wait_until_down(world.state)
    end = time.monotonic() + 5
    while alive(pids):
        assert time.monotonic() < end, alive(pids)
        time.sleep(0.02)
    assert not world.is_up
    world.up()
    world.down()
    assert host_traces() == before


def test_preparation_that_fails_makes_up_fail_with_its_last_words(tmp_path: Path) -> None:
    guest = parse({"prepare": [["/usr/bin/python3", "-c", "raise SystemExit('the lake is dry')"]]})
    world = small(tmp_path / "state", guest=guest)
    with pytest.raises(WorldError, match="the lake is dry"):
        world.up()
    assert not world.is_up
    assert not processes_of(world.state)


def test_a_port_that_is_taken_is_a_clear_refusal(world: World, tmp_path: Path) -> None:
    second = World(tmp_path / "state", world.port, environments=tmp_path)
    with pytest.raises(WorldError, match=f"port {world.port}"):
        second.up()
    assert not second.is_up


def test_sample_movies_are_laid_into_the_first_persons_storage_once(tmp_path: Path) -> None:
    movies = tmp_path / "data" / "movies"
    movies.mkdir(parents=True)
    (movies / "movie_001.mrcs").write_bytes(b"frames")
    world = small(tmp_path / "state", sample_data=tmp_path / "data")
    with world:
        folder = "/hpcgpfs01/work/dcde/u12345/movies"
        assert (
            world.run("bnl-sdcc", "login", ["stat", "-c", "%a %U", f"{folder}/movie_001.mrcs"]).stdout == "600 u12345\n"
        )
        world.run("bnl-sdcc", "login", ["rm", f"{folder}/movie_001.mrcs"], user="u12345")
    with world:
        assert world.run("bnl-sdcc", "login", ["ls", folder]).stdout == ""


def cli(*arguments: str, **options: object) -> subprocess.Popen[str]:
    environment = {"PATH": SEARCH, "PYTHONPATH": str(PACKAGE.parent)}
    return subprocess.Popen([sys.executable, "-m", "dcde_testbed", *arguments], env=environment, text=True, **options)  # type: ignore[call-overload,no-any-return]


def test_foreground_stays_and_ctrl_c_takes_everything_down(tmp_path: Path, free_port: int) -> None:
    before = host_traces()
    state = tmp_path / "state"
    arguments = [
        "up",
        "--state",
        str(state),
        "--port",
        str(free_port),
        "--env",
        str(tmp_path),
        "--sample-data",
        "none",
        "--foreground",
    ]
    with cli(*arguments, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as process:
        assert process.stdout is not None
        said = []
        for line in process.stdout:
            said.append(line)
            if "ctrl-C" in line:
                break
        assert any("sites ready" in line for line in said), said
        assert all(line.split()[1] == "s" for line in said if line.startswith("  ") and "warning" not in line)
        with cli("status", "--state", str(state), stdout=subprocess.PIPE) as status:
            assert status.communicate(timeout=20)[0].startswith("up, port")
        process.send_signal(signal.SIGINT)
        assert process.wait(10) == 0
    assert not outside.is_up(state)
    assert host_traces() == before
    with cli("status", "--state", str(state), stdout=subprocess.PIPE) as status:
        assert status.communicate(timeout=20)[0] == "down\n"
        assert status.returncode == 3


def test_ctrl_c_while_it_starts_leaves_nothing(tmp_path: Path, free_port: int) -> None:
    before = host_traces()
    state = tmp_path / "state"
    arguments = ["up", "--state", str(state), "--port", str(free_port), "--env", str(tmp_path), "--sample-data", "none"]
    with cli(*arguments, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as process:
        assert process.stdout is not None
        while "networks" not in process.stdout.readline():
            assert process.poll() is None
        process.send_signal(signal.SIGINT)
        assert process.wait(15) == 130
    assert not outside.is_up(state)
    assert host_traces() == before


ROOTLESS = """
set -e
for name in passwd group subuid subgid; do mount --bind "$1/etc/$name" "/etc/$name"; done
cd "$1/home"
shift
exec setpriv --reuid {user} --regid {user} --clear-groups --inh-caps=-all env -i "PATH={path}" "PYTHONPATH=$PACKAGE" "$@"
"""


@pytest.fixture
def throw_away(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[str]]:
    """A command prefix that runs as an ordinary account with subordinate ids, which exists in a private mount namespace only."""
    if os.geteuid() != 0:
        pytest.skip("the tests run as an ordinary user already: every world here is rootless")
    if shutil.which("newuidmap", path=SEARCH) is None:
        pytest.skip("newuidmap (package uidmap) is missing: a world without root is impossible here")
    folder = Path("/tmp") / f"dcde-rootless-{os.getpid()}"
    (folder / "etc").mkdir(parents=True)
    folder.chmod(0o755)
    for name, line in (("passwd", f"throw-away:x:{USER}:{USER}::{folder}/home:/bin/bash\n"), ("group", f"throw-away:x:{USER}:\n"),
                       ("subuid", "throw-away:200000:65536\n"), ("subgid", "throw-away:200000:65536\n")):  # fmt: skip
        target = Path("/etc", name)
        if not target.exists():
            pytest.skip(f"/etc/{name} does not exist, so nothing can be laid over it")
        (folder / "etc" / name).write_text(target.read_text() + line)
    (folder / "home").mkdir(mode=0o700)
    os.chown(folder / "home", USER, USER)
    shutil.copytree(PACKAGE, folder / "package" / PACKAGE.name, ignore=shutil.ignore_patterns("__pycache__"))
    script = ROOTLESS.format(user=USER, path=SEARCH).replace("$PACKAGE", str(folder / "package"))
    yield ["unshare", "--mount", "--propagation", "private", "bash", "-c", script, "rootless", str(folder)]
    shutil.rmtree(folder)


def test_an_ordinary_user_gets_the_same_world(throw_away: list[str], free_port: int) -> None:
    def run(*arguments: str, check: bool = True) -> str:
        argv = [*throw_away, "/usr/bin/python3", "-m", "dcde_testbed", *arguments]
        done = subprocess.run(argv, capture_output=True, text=True, timeout=100)
        assert done.returncode == 0 or not check, done.stdout + done.stderr
        return done.stdout

    state = Path(throw_away[-1], "home", "state")
    try:
        said = run(
            "up", "--state", str(state), "--port", str(free_port), "--env", "/nonexistent", "--sample-data", "none"
        )
        assert "in all" in said
        pids = members(outside.first_process(state))
        owners = {os.stat(f"/proc/{pid}").st_uid for pid in alive(pids)}
        assert 0 not in owners
        assert {USER, 200000 + 64030 - 1} <= owners  # its own, and Slurm's as a subordinate
        shown = run(
            "in",
            "--state",
            str(state),
            "--user",
            "u12345",
            "bnl-sdcc",
            "sbatch",
            "--wait",
            "--output=out",
            "--wrap",
            "id -u",
        )
        assert "Submitted" in shown
        assert run("in", "--state", str(state), "--user", "u12345", "bnl-sdcc", "cat", "out") == "31001\n"
        assert run("in", "--state", str(state), "--user", "u12399", "bnl-sdcc", "squeue", "-h", "-t", "all") == ""
        run("link", "--state", str(state), "anl-lcrc", "cut")
        assert "link to anl-lcrc         cut" in run("status", "--state", str(state))
        assert "out_rejected" in run("in", "--state", str(state), "ornl-cades/dtn", "nft", "list", "counters")
    finally:
        run("down", "--state", str(state), check=False)
    assert not alive(pids)
