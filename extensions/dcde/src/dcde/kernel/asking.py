"""What a server asks its warm process for, and how: one line of JSON each way on a unix socket, with a pidfd.

server -> {"argv": [...], "env": {...}, "cwd": "...", "umask": 63, "limits": {"RLIMIT_NOFILE": [1024, 4096], ...}}
server <- {"pid": 4711}, together with a pidfd of that process; or {"refused": "why"}
server -> one byte: go. Without it the new process ends, so that nobody is left with a kernel unasked for.
server <- {"exit": 0}, when the process has ended; a signal is negative.
"""

from __future__ import annotations

import array
import contextlib
import json
import os
import resource
import socket
import stat
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from dcde.wire import line, peer_uid, runtime_folder

PATIENCE = 2.0
"""Seconds that either side waits for the other; a warm process that is well answers in a few milliseconds."""

LONGEST_LINE = 4 * 1024 * 1024
"""Bytes in one line. The environment of a process is not longer than this."""

GO = b"."


class NotWarm(Exception):
    """There is no kernel to be had from the warm process; the message says why. Start one in the ordinary way."""


@dataclass(frozen=True)
class KernelRequest:
    """How the kernel shall start.

    Args:
        argv: The whole command of the ordinary start, with the connection file.
        env: The whole environment.
        cwd: The working directory.
        umask: The file mode creation mask.
        limits: The soft and hard resource limits by their names in the module `resource`.
    """

    argv: list[str]
    env: dict[str, str]
    cwd: str
    umask: int
    limits: dict[str, list[int]]

    @classmethod
    def like_this_process(cls, argv: list[str], env: dict[str, str], cwd: str) -> KernelRequest:
        """Return a request for a kernel which inherits from this process what a child of it would."""
        return cls(argv, env, cwd, current_umask(), current_limits())

    def to_json(self) -> dict[str, Any]:
        """Return the request as it travels."""
        return asdict(self)


def current_umask() -> int:
    """Return this process's umask. os.umask() can tell it only by changing it, for all threads (proc(5))."""
    text = Path("/proc/self/status").read_text()
    return int(next(row.split()[1] for row in text.splitlines() if row.startswith("Umask:")), 8)


def current_limits() -> dict[str, list[int]]:
    """Return the soft and hard resource limits of this process."""
    names = sorted(name for name in dir(resource) if name.startswith("RLIMIT_"))
    return {name: list(resource.getrlimit(getattr(resource, name))) for name in names}


def socket_path(server: int) -> Path:
    """Return where the warm process of a server listens; a server is known by its process id."""
    return runtime_folder() / f"warm-{server}.sock"


def make_runtime_folder() -> Path:
    """Make the folder of the sockets and return it.

    Raises:
        NotWarm: It is somebody else's, or others may enter it.
    """
    folder = runtime_folder()
    folder.parent.mkdir(parents=True, exist_ok=True)
    with contextlib.suppress(FileExistsError):
        folder.mkdir(mode=0o700)
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or stat.S_IMODE(found.st_mode) & 0o077:
        raise NotWarm(f"{folder} is not a folder that only this account can enter")
    return folder


def sweep() -> None:
    """Remove the sockets of servers that are no more."""
    for path in runtime_folder().glob("warm-*.sock"):
        number = path.stem.removeprefix("warm-")
        if number.isdigit() and not Path("/proc", number).exists():
            path.unlink(missing_ok=True)


def ask(request: KernelRequest, server: int) -> tuple[int, int, socket.socket]:
    """Ask for a kernel; return its process id, a pidfd, and the connection that will tell its exit status.

    Raises:
        NotWarm: The warm process is not there, does not answer in time, or refuses.
    """
    connected = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    descriptors: list[int] = []
    try:
        connected.settimeout(PATIENCE)
        connected.connect(str(socket_path(server)))
        if peer_uid(connected) != os.getuid():
            raise NotWarm("the process at the socket belongs to another account")
        connected.sendall(line(request.to_json()))
        answer = _read_answer(connected, descriptors)
        if "refused" in answer:
            raise NotWarm(str(answer["refused"]))
        (pidfd,) = descriptors
        connected.sendall(GO)
        return int(answer["pid"]), pidfd, connected
    except BaseException as error:
        connected.close()
        for descriptor in descriptors:
            os.close(descriptor)
        if isinstance(error, NotWarm):
            raise
        if isinstance(error, (OSError, ValueError, KeyError)):
            raise NotWarm(f"{type(error).__name__}: {error}") from error
        raise


def _read_answer(connected: socket.socket, descriptors: list[int]) -> dict[str, Any]:
    """Read one line, and add the descriptors that come with it to the list at once, so that none gets lost."""
    size = array.array("i").itemsize
    data = b""
    while not data.endswith(b"\n"):
        part, extra, _, _ = connected.recvmsg(4096, socket.CMSG_SPACE(size))
        for level, kind, content in extra:
            if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
                received = array.array("i", content[: len(content) - len(content) % size])
                for descriptor in received:
                    os.set_inheritable(descriptor, False)
                descriptors.extend(received)
        if not part:
            raise NotWarm("the warm process closed the connection")
        data += part
    answer = json.loads(data)
    if not isinstance(answer, dict):
        raise NotWarm("the answer is no JSON object")
    return answer


def read_line(connected: socket.socket) -> bytes:
    """Read up to the end of a line; an empty answer when the other side closes before."""
    data = bytearray()
    while not data.endswith(b"\n"):
        part = connected.recv(65536)
        if not part or len(data) > LONGEST_LINE:
            return b""
        data += part
    return bytes(data)
