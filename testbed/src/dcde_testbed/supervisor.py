"""Process 1 of the world and of every machine in it: starts services, starts them again, reaps orphans, ends them in
order.

One thread and no locks: everything happens in `turn()`, which sleeps until a child ends, a watched file is readable
or a restart is due. `subprocess.run` may be used between turns, because orphans are reaped only in `turn()`.
"""

from __future__ import annotations

import contextlib
import os
import selectors
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from dcde_testbed.jsonlog import log

PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
LOG_LIMIT = 8 << 20
"""Bytes after which a log is moved to `<name>.1`, replacing the former one."""
_FIRST_RESTART, _LAST_RESTART = 0.5, 15.0
_STEADY = 10.0


class TimeUp(Exception):
    """What was waited for did not happen in time, or the supervisor was told to end meanwhile."""


@dataclass
class Service:
    """One program that runs until it is told to end.

    `behind`: the process that does the work is the only child of the one started; signals go there.
    """

    name: str
    argv: Sequence[str]
    log: Path
    user: str | None = None
    environment: Mapping[str, str] = field(default_factory=dict)
    directory: str = "/"
    umask: int = 0o022
    pass_fds: tuple[int, ...] = ()
    behind: bool = False
    wanted: bool = True
    process: subprocess.Popen[bytes] | None = None
    began: float = 0.0
    due: float = 0.0
    pause: float = _FIRST_RESTART
    starts: int = 0

    @property
    def state(self) -> str:
        if self.process is not None:
            return "running"
        return "restarting" if self.wanted else "stopped"

    def working_pid(self) -> int | None:
        """The process that signals are meant for, or None when it does not run."""
        if self.process is None:
            return None
        return first_child(self.process.pid) if self.behind else self.process.pid

    def signal(self, number: int) -> None:
        pid = self.working_pid()
        if pid is not None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)


def first_child(pid: int) -> int | None:
    """The oldest child of a process, or None."""
    try:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except OSError:
        return None
    return int(children[0]) if children else None


def command(argv: Sequence[str], user: str | None) -> list[str]:
    """The command line that runs `argv` as `user` (None: as it is), without a way back to more rights."""
    if user is None:
        return list(argv)
    return ["setpriv", f"--reuid={user}", f"--regid={user}", "--init-groups", "--no-new-privs", "--", *argv]


class Supervisor:
    """The services of one process 1, in the order in which they were started."""

    def __init__(self, program: str) -> None:
        self.program = program
        self.services: dict[str, Service] = {}
        self.ending = False
        self._tasks: dict[int, subprocess.Popen[bytes]] = {}
        self._selector = selectors.DefaultSelector()
        self._next_trim = 0.0
        wake, self._wake = socket.socketpair()
        wake.setblocking(False)
        self._wake.setblocking(False)
        self._wake_reader = wake
        self._selector.register(wake, selectors.EVENT_READ, self._drain)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._told_to_end)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.set_wakeup_fd(self._wake.fileno(), warn_on_full_buffer=False)

    # -- services

    def add(self, service: Service) -> None:
        """Start a service and keep it running."""
        self.services[service.name] = service
        self._start(service)

    def start(self, name: str) -> None:
        """Start a service that was stopped."""
        service = self.services[name]
        service.wanted, service.pause, service.due = True, _FIRST_RESTART, 0.0
        if service.process is None:
            self._start(service)

    def stop(self, name: str, number: int = signal.SIGTERM, seconds: float = 10.0) -> None:
        """End a service and leave it ended; after `seconds` it is killed."""
        service = self.services[name]
        service.wanted = False
        service.signal(number)
        try:
            self.wait(lambda: service.process is None, seconds, name)
        except TimeUp:
            service.signal(signal.SIGKILL)
            self.wait(lambda: service.process is None, seconds, name)

    def _start(self, service: Service) -> None:
        trim(service.log)
        service.starts += 1
        service.began = time.monotonic()
        with open_log(service.log) as output:
            try:
                service.process = subprocess.Popen(
                    command(service.argv, service.user),
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=output,
                    cwd=service.directory,
                    env={"PATH": PATH, "LANG": "C.UTF-8", **service.environment},
                    umask=service.umask,
                    pass_fds=service.pass_fds,
                    start_new_session=True,
                )
            except OSError as error:
                log(self.program, "service did not start", level="error", service=service.name, error=error)
                service.due = time.monotonic() + _LAST_RESTART
                return
        log(self.program, "service started", service=service.name, pid=service.process.pid)

    def _ended(self, service: Service) -> None:
        status = service.process.returncode if service.process else None
        service.process = None
        now = time.monotonic()
        service.pause = _FIRST_RESTART if now - service.began > _STEADY else min(service.pause * 2, _LAST_RESTART)
        service.due = now + service.pause
        level = "info" if self.ending or not service.wanted else "warning"
        log(self.program, "service ended", level=level, service=service.name, status=status)

    # -- programs that end by themselves

    def task(self, argv: Sequence[str], output: IO[bytes] | int, **options: Any) -> subprocess.Popen[bytes]:
        """Start a program that ends by itself; `wait` for its `returncode`."""
        process = subprocess.Popen(list(argv), stdin=subprocess.DEVNULL, stdout=output, **options)
        self._tasks[process.pid] = process
        return process

    # -- the loop

    def watch(self, source: socket.socket, ready: Callable[[], None]) -> None:
        """Call `ready` whenever `source` can be read."""
        self._selector.register(source, selectors.EVENT_READ, ready)

    def unwatch(self, source: socket.socket) -> None:
        self._selector.unregister(source)

    def wait(self, happened: Callable[[], bool], seconds: float, what: str) -> None:
        """Keep everything running until `happened()`. Raises TimeUp after `seconds`, or when told to end."""
        end = time.monotonic() + seconds
        while not happened():
            if self.ending:
                raise TimeUp(f"{what}: told to end meanwhile")
            if time.monotonic() > end:
                raise TimeUp(f"{what}: not there after {seconds:.0f} s")
            self.turn(0.05)

    def turn(self, longest: float = 5.0) -> None:
        """Sleep until something happens, at most `longest` seconds, and deal with it."""
        now = time.monotonic()
        due = [s.due - now for s in self.services.values() if s.wanted and s.process is None]
        for key, _ in self._selector.select(max(0.0, min([longest, *due]))):
            key.data()
        self._reap()
        now = time.monotonic()
        for service in list(self.services.values()):
            if service.wanted and service.process is None and service.due <= now and not self.ending:
                self._start(service)
        if now > self._next_trim:
            self._next_trim = now + 20
            for service in self.services.values():
                trim(service.log)

    def run(self) -> None:
        """Work until SIGTERM or SIGINT."""
        while not self.ending:
            self.turn()

    def end(self, seconds: float) -> None:
        """Tell all services to end, the last started first, and wait for them at most `seconds`."""
        self.ending = True
        for service in reversed(self.services.values()):
            service.wanted = False
            service.signal(signal.SIGTERM)
        end = time.monotonic() + seconds
        while any(s.process for s in self.services.values()) and time.monotonic() < end:
            self.turn(0.05)

    def close(self) -> None:
        """Give back the loop's own files; for tests, where process 1 is not the last thing that runs."""
        self._selector.close()
        self._wake_reader.close()
        self._wake.close()

    def _told_to_end(self, *_: object) -> None:
        self.ending = True

    def _drain(self) -> None:
        with contextlib.suppress(BlockingIOError):
            while self._wake_reader.recv(4096):
                pass

    def _reap(self) -> None:
        for service in self.services.values():
            if service.process is not None and service.process.poll() is not None:
                self._ended(service)
        for pid, process in list(self._tasks.items()):
            if process.poll() is not None:
                del self._tasks[pid]
        known = {s.process.pid for s in self.services.values() if s.process} | set(self._tasks)
        while True:
            try:
                # NOWAIT: look only, so that Popen objects keep the status of their own process.
                ended = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
            except ChildProcessError:
                return
            if ended is None or ended.si_pid in known:
                return  # one of ours, ended just now: the next turn deals with it
            os.waitpid(ended.si_pid, 0)


def open_log(path: Path) -> IO[bytes]:
    """A log opened for appending, 0600 in a 0700 folder."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    return open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600), "ab")


def trim(path: Path, limit: int = LOG_LIMIT) -> None:
    """Keep a log that somebody is still writing below `limit` bytes: copy it aside and empty it."""
    with contextlib.suppress(FileNotFoundError):
        if path.stat().st_size > limit:
            shutil.copyfile(path, path.with_name(path.name + ".1"))
            os.truncate(path, 0)
