"""The world as seen from outside: start it, find it, enter it, end it.

STATE is one 0700 folder. `STATE/lock` is held by the world's process 1 (inherited from here), so "is it up" is "is it
locked", and nothing can be stale. `STATE/inside` is what the world sees as /var/lib/dcde; it is 0711 because services
with accounts of their own pass through it, which nobody outside can, since STATE is 0700. What people look for lies
beside it as links.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import ipaddress
import json
import os
import select
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from dcde_testbed import control, memory, preflight
from dcde_testbed.guest import Guest
from dcde_testbed.layout import DEFAULT_PORT, Site, sites_with
from dcde_testbed.supervisor import PATH, first_child, open_log

UP_SECONDS = 600.0
_INSIDE = "inside"
_ours: dict[Path, subprocess.Popen[bytes]] = {}
"""Worlds started by this very process, whose end it has to collect."""
_FOLDERS = ("logs", "door", "onboarding", "sample-data")
_FILES = ("registry.yaml", "world.json")


class WorldError(Exception):
    """The world cannot do what was asked; the message says why and what to do."""


@dataclass(frozen=True)
class Options:
    """How a world is started."""

    state: Path
    port: int = DEFAULT_PORT
    environments: Path = Path("build/env")
    guest: Guest = field(default_factory=Guest)
    sites: tuple[Site, ...] = field(default_factory=lambda: sites_with(()))
    sample_data: Path | None = None
    """A folder with `movies/`, or None for none."""
    listen: str = "127.0.0.1"
    expose: bool = False


def check_listen(address: str, expose: bool) -> None:
    """Refuse to show the world to other machines by accident: its passwords are public. Raises WorldError."""
    try:
        loopback = ipaddress.ip_address(address).is_loopback
    except ValueError as error:
        raise WorldError(f"--listen {address}: give an address in numbers, such as 127.0.0.1") from error
    if not loopback and not expose:
        raise WorldError(
            f"--listen {address} would open the world to other machines, and its sample passwords are public. "
            "Use `ssh -L` to reach it from another machine, or say --expose if you mean it."
        )


def check_machine() -> None:
    """Raise WorldError with everything that this machine lacks for a world."""
    lacking = preflight.problems()
    if lacking:
        raise WorldError("\n".join(["A world cannot run here:", *(f"- {each}" for each in lacking)]))


# -- STATE


def make_state(state: Path) -> None:
    """Have the state folder with everything `up` needs in it.

    Raises WorldError for a folder that is somebody else's, or has other things in it: it is about to become 0700.
    """
    state.mkdir(mode=0o700, parents=True, exist_ok=True)
    if not (state / _INSIDE).is_dir() and any(state.iterdir()):
        raise WorldError(f"{state} has other things in it; choose an empty folder or a new one with --state")
    if state.stat().st_uid != os.geteuid():
        raise WorldError(f"{state} belongs to another account; choose another --state")
    state.chmod(0o700)
    inside = state / _INSIDE
    inside.mkdir(mode=0o711, exist_ok=True)
    inside.chmod(0o711)
    (state / "root").mkdir(exist_ok=True)
    for name in _FOLDERS:
        with contextlib.suppress(PermissionError):
            (inside / name).mkdir(mode=0o711 if name != "logs" else 0o700, exist_ok=True)
    for name in (*_FOLDERS, *_FILES):
        if not (state / name).is_symlink():
            (state / name).symlink_to(f"{_INSIDE}/{name}")


def _lock(state: Path) -> IO[bytes] | None:
    """The lock of a world that is down, or None when it is up."""
    file = open(state / "lock", "ab")  # noqa: SIM115 - whoever gets it closes it
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.close()
        return None
    return file


def is_up(state: Path) -> bool:
    """Whether a world lives in this state folder (perhaps still starting)."""
    if not (state / "lock").exists():
        return False
    free = _lock(state)
    if free is None:
        return True
    free.close()
    return False


def _outer_pid(state: Path) -> int | None:
    """The `unshare` process around the world. Only to be believed while the lock is held."""
    with contextlib.suppress(OSError, ValueError):
        return int((state / "pid").read_text())
    return None


def first_process(state: Path) -> int:
    """The world's process 1 as seen from here. Raises WorldError when the world is down."""
    outer = _outer_pid(state) if is_up(state) else None
    one = first_child(outer) if outer else None
    if one is None:
        raise WorldError(f"no world is up in {state}; start it with `dcde-testbed up --state {state}`")
    return one


# -- up


def up(options: Options, tell: Callable[[dict[str, Any]], None]) -> None:
    """Bring the world up and return when everything answers; `tell` gets each stage as it is done.

    Raises WorldError; then nothing is left running.
    """
    check_listen(options.listen, options.expose)
    check_machine()
    state = options.state.resolve()
    make_state(state)
    lock = _lock(state)
    if lock is None:
        raise WorldError(f"a world is up in {state} already")
    _collect(state)
    with lock:
        (state / "pid").unlink(missing_ok=True)
        memory.forget(state)
        with _door(options) as door:
            reader, process = _launch(options, state, lock, door)
        with reader:
            _follow(reader, process, state, tell)


def _door(options: Options) -> socket.socket:
    family = socket.AF_INET6 if ":" in options.listen else socket.AF_INET
    door = socket.socket(family)
    try:
        door.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        door.bind((options.listen, options.port))
        door.listen(128)
    except OSError as error:
        door.close()
        raise WorldError(
            f"port {options.port} on {options.listen}: {error.strerror}; choose another with --port"
        ) from error
    return door


def _launch(
    options: Options, state: Path, lock: IO[bytes], door: socket.socket
) -> tuple[IO[bytes], subprocess.Popen[bytes]]:
    name = "dcde-" + hashlib.sha256(os.fsencode(state)).hexdigest()[:12]
    group = memory.make(name)
    if group:
        (state / memory.NOTE).write_text(str(group))
    read_end, write_end = os.pipe()
    plan = {
        "state": str(state / _INSIDE),
        "mount_point": str(state / "root"),
        "environments": str(options.environments.resolve()),
        "port": door.getsockname()[1],
        "guest": options.guest.to_json(),
        "sites": [site.to_json() for site in options.sites],
        "sample_data": str(options.sample_data.resolve()) if options.sample_data else None,
        "memory_group": str(group) if group else None,
        "rootless": os.geteuid() != 0,
        "door_fd": door.fileno(),
        "lock_fd": lock.fileno(),
        "report_fd": write_end,
    }
    boot = Path(__file__).resolve().with_name("boot.py")
    argv = [
        "unshare",
        *preflight.unshare_options(),
        "--net",
        "--mount",
        "--pid",
        "--ipc",
        "--uts",
        "--fork",
        "--kill-child",
        "/usr/bin/python3",
        "-I",
        "-S",
        str(boot),
        "world",
    ]
    with open_log(state / "world.log") as log:
        process = subprocess.Popen(
            argv,
            stdin=subprocess.PIPE,
            stdout=log,
            stderr=log,
            cwd="/",
            start_new_session=True,
            env={"PATH": PATH, "LANG": "C.UTF-8"},
            pass_fds=[door.fileno(), lock.fileno(), write_end],
        )
    os.close(write_end)
    (state / "pid").write_text(str(process.pid))
    if process.stdin is not None:
        with contextlib.suppress(BrokenPipeError), process.stdin as plan_input:
            plan_input.write(json.dumps(plan).encode())
    return os.fdopen(read_end, "rb"), process


def _follow(
    reader: IO[bytes], process: subprocess.Popen[bytes], state: Path, tell: Callable[[dict[str, Any]], None]
) -> None:
    """Read process 1's reports until it is ready. On failure, and when interrupted, end the world."""
    try:
        for message in _messages(reader, UP_SECONDS):
            if "failed" in message:
                raise WorldError(message["failed"])
            tell(message)
            if message.get("ready"):
                _ours[state] = process
                return
        raise WorldError(f"the world ended while starting; see {state / 'world.log'}")
    except BaseException:
        _end(process, state)
        raise


def _messages(reader: IO[bytes], seconds: float) -> Iterator[dict[str, Any]]:
    end, rest = time.monotonic() + seconds, b""
    while True:
        ready, _, _ = select.select([reader], [], [], max(0.0, end - time.monotonic()))
        if not ready:
            raise WorldError(f"the world was not up after {seconds:.0f} s")
        data = os.read(reader.fileno(), 1 << 16)
        if not data:
            return
        *lines, rest = (rest + data).split(b"\n")
        yield from (json.loads(line) for line in lines)


def _end(process: subprocess.Popen[bytes], state: Path) -> None:
    one = first_child(process.pid)
    if one is not None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(one, signal.SIGTERM)
    try:
        process.wait(5)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    memory.forget(state)


# -- down, and in


def down(state: Path, seconds: float = 6.0) -> bool:
    """End the world in order, by force after `seconds`. False when none was up. Raises WorldError if it stays."""
    if not is_up(state):
        _collect(state)
        if state.is_dir():
            memory.forget(state)
        return False
    end = time.monotonic() + seconds
    while is_up(state) and time.monotonic() < end:
        with contextlib.suppress(WorldError, ProcessLookupError):
            os.kill(first_process(state), signal.SIGTERM)
            break
        time.sleep(0.02)  # its process 1 is not there yet
    while is_up(state) and time.monotonic() < end:
        time.sleep(0.02)
    outer = _outer_pid(state)
    if is_up(state) and outer:
        os.kill(outer, signal.SIGKILL)  # --kill-child: process 1 goes along, and everything with it
        end = time.monotonic() + 5
        while is_up(state) and time.monotonic() < end:
            time.sleep(0.02)
    if is_up(state):
        raise WorldError(f"the world in {state} did not end")
    _collect(state)
    memory.forget(state)
    return True


def remove(state: Path) -> None:
    """Remove the state folder of a world that is down; without root its files belong to subordinate ids.

    Raises WorldError when the world is up.
    """
    if is_up(state):
        raise WorldError(f"a world is up in {state}; end it first")
    if state.exists() and os.geteuid() == 0:
        shutil.rmtree(state)
    elif state.exists():
        argv = ["unshare", *preflight.unshare_options(), "rm", "-rf", "--one-file-system", str(state.resolve())]
        subprocess.run(argv, check=True)


def _collect(state: Path) -> None:
    process = _ours.pop(state.resolve(), None)
    if process is not None:
        process.wait(10)


def wait_until_down(state: Path) -> None:
    """Sleep until the world ends, however it does."""
    with open(state / "lock", "ab") as file:
        fcntl.flock(file, fcntl.LOCK_SH)


def ask(state: Path, **request: Any) -> dict[str, Any]:
    """Send a request to the world's control socket. Raises WorldError."""
    if not is_up(state):
        raise WorldError(f"no world is up in {state}")
    try:
        return control.ask(state / _INSIDE / "control", request)
    except control.ControlError as error:
        raise WorldError(str(error)) from error


def entering(state: Path, where: str, argv: Sequence[str], user: str | None = None) -> list[str]:
    """The command line that runs `argv` in `hub`, SITE or SITE/MACHINE: as that room's root, or as `user` at home."""
    namespaces = ["-n", "-m", "-u", "-i", "-p", "-r", "-w"]
    line = ["nsenter", "-t", str(first_process(state)), *namespaces]
    if os.geteuid():
        line += ["-U", "--preserve-credentials"]
    line.append("--")
    if where != "hub":
        site, _, machine = where.partition("/")
        pid = ask(state, op="where", site=site, machine=machine or "login")["pid"]
        if pid is None:
            raise WorldError(f"{where} is stopped; start it with `dcde-testbed node {site}/{machine or 'login'} start`")
        line += ["nsenter", "-t", str(pid), *namespaces, "--"]
    if user is not None:
        line += [
            "env",
            f"--chdir=/home/{user}",
            "setpriv",
            f"--reuid={user}",
            f"--regid={user}",
            "--init-groups",
            "--reset-env",
            "--",
        ]
    return [*line, *argv]


def environment() -> dict[str, str]:
    """What a command inside sees of the caller's environment: the terminal and nothing else."""
    kept = {name: os.environ[name] for name in ("TERM", "COLUMNS", "LINES") if name in os.environ}
    return {"PATH": PATH, "LANG": "C.UTF-8", "HOME": "/root", **kept}


def sample_data(state: Path, environments: Path, tell: Callable[[dict[str, Any]], None]) -> Path | None:
    """The cached synthetic movies of this state folder, made now if there are none; None where they cannot be made."""
    make_state(state)
    folder = state / _INSIDE / "sample-data"
    if (folder / "truth.json").exists():
        return folder
    python = environments / "site" / "bin" / "python"
    package = Path(__file__).resolve().parent
    if not python.exists() or not (package / "microscope").is_dir():
        tell({"warning": f"no sample movies: {python} or the microscope is missing"})
        return None
    began = time.monotonic()
    # The package's folder goes last on the path: it may be one with other packages, which are not that environment's.
    code = (
        "import runpy, sys; sys.path.append(sys.argv.pop(1)); "
        "runpy.run_module('dcde_testbed.microscope', run_name='__main__')"
    )
    draft = folder / "movies"
    done = subprocess.run(
        [str(python), "-I", "-c", code, str(package.parent), "--out", str(draft), "--truth", str(folder)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        cwd="/",
    )
    if done.returncode:
        raise WorldError(
            "the sample movies could not be made (--sample-data none does without):\n" + done.stdout[-2000:]
        )
    tell({"stage": "sample movies made", "seconds": round(time.monotonic() - began, 2)})
    return folder


def replace_process(argv: Sequence[str]) -> None:
    """Become `argv`, with the environment of `environment`."""
    sys.stdout.flush()
    os.execvpe(argv[0], list(argv), environment())  # noqa: S606 - an argument list, and no shell is the point
