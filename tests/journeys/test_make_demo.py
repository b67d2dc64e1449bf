"""`make demo` as a person meets it: in a terminal, with ctrl-C at the end, and again."""

from __future__ import annotations

import contextlib
import hashlib
import os
import pty
import select
import signal
import socket
import subprocess
import time
from pathlib import Path

import pytest
from dcde_testbed import outside
from dcde_testbed.world import World

from tests.journeys.conftest import MOVIES, ROOT, make_movies

READY = "Press ctrl-C"
AGAIN_SECONDS = 30


class Terminal:
    """A program in a terminal of its own."""

    def __init__(self, *argv: str) -> None:
        pid, self.fd = pty.fork()
        if pid == 0:
            paths = f"{ROOT}/testbed/src:{ROOT}/demo/src"
            os.execve(argv[0], argv, {**os.environ, "PYTHONPATH": paths})  # noqa: S606
        self.pid = pid
        self.text = ""

    def read_until(self, wanted: str, seconds: float) -> str:
        """Return all that was printed as soon as `wanted` is in it."""
        end = time.monotonic() + seconds
        while wanted not in self.text:
            ready, _, _ = select.select([self.fd], [], [], max(0, end - time.monotonic()))
            assert ready, f"{wanted!r} was not printed within {seconds:g} s:\n{self.text}"
            self.text += os.read(self.fd, 65536).decode()
        return self.text

    def control_c(self) -> int:
        """Press ctrl-C and return the program's exit code."""
        os.write(self.fd, b"\x03")
        while True:
            try:
                self.text += os.read(self.fd, 65536).decode()
            except OSError:  # the terminal is closed when its last program has ended
                break
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])

    def end(self) -> None:
        """End the program whatever it does."""
        try:
            os.kill(self.pid, signal.SIGKILL)
        except ProcessLookupError:
            return


def host() -> dict[str, object]:
    """What a demo could change on the machine, and other worlds that run here at the same time do not."""
    links = subprocess.run(["ip", "-o", "link"], capture_output=True, text=True, check=True).stdout
    return {
        "accounts": [hashlib.sha256(Path(f).read_bytes()).hexdigest() for f in ("/etc/passwd", "/etc/group")],
        "mounts": Path("/proc/self/mounts").read_text(),
        "links": links.splitlines(),
    }


def inhabitants(state: Path) -> set[str]:
    """The processes of the world and their namespaces: each as `pid start-time`, and as `net:[...]`."""
    found: set[str] = set()
    waiting = [outside.first_process(state)]
    while waiting:
        pid = waiting.pop()
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            waiting += [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
            found |= {born(pid), os.readlink(f"/proc/{pid}/ns/net"), os.readlink(f"/proc/{pid}/ns/mnt")}
    return found


def born(pid: int) -> str:
    """Name a process so that another one with the same id is not taken for it."""
    return f"{pid} {Path(f'/proc/{pid}/stat').read_text().rsplit(')', 1)[1].split()[19]}"


def alive() -> set[str]:
    """All processes of this machine and their namespaces, named as `inhabitants` does."""
    found: set[str] = set()
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError, PermissionError):
            found |= {born(int(folder.name)), os.readlink(folder / "ns/net"), os.readlink(folder / "ns/mnt")}
    return found


@pytest.mark.timeout(300)
def test_it_starts_ends_and_starts_again(tmp_path: Path) -> None:
    if not (MOVIES / "truth.json").exists():
        make_movies()
    state = tmp_path / "demo"
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    argv = ["/usr/bin/python3", "-m", "dcde_demo", "--state", str(state), "--port", port]
    before = host()
    first = Terminal(*argv)
    try:
        said = first.read_until(READY, 240)
        assert f"https://hub.localhost:{port}/" in said
        assert "drivers@pnnl.example" in said
        world = World(state, int(port))
        world.run("bnl-sdcc", "login", ["sh", "-c", "echo kept > kept.txt"], user="u12345")
        lived = inhabitants(state)
        assert len(lived) > 50
        assert first.control_c() == 0
    finally:
        first.end()
    assert not world.is_up
    assert not lived & alive()
    assert host() == before
    started = time.monotonic()
    second = Terminal(*argv)
    try:
        second.read_until(READY, 120)
        assert time.monotonic() - started < AGAIN_SECONDS
        assert world.run("bnl-sdcc", "login", ["cat", "kept.txt"], user="u12345").stdout == "kept\n"
        assert second.control_c() == 0
    finally:
        second.end()
    clean = subprocess.run(
        [*argv[:3], "--state", str(state), "--clean"],
        env={**os.environ, "PYTHONPATH": f"{ROOT}/testbed/src:{ROOT}/demo/src"},
        capture_output=True,
        text=True,
    )
    assert clean.returncode == 0, clean.stderr
    assert not state.exists()
