"""The world's control socket: one JSON line asks, one JSON line answers. It lies in STATE, which only its owner can
enter.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import struct
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from dcde_testbed.supervisor import Supervisor

_LIMIT = 1 << 16


class ControlError(Exception):
    """The world refused what was asked, or does not answer."""


@contextlib.contextmanager
def _short(path: Path) -> Iterator[str]:
    """A name of `path` that fits into a socket address (107 bytes), however deep STATE lies."""
    folder = os.open(path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{folder}/{path.name}"
    finally:
        os.close(folder)


def ask(path: Path, request: Mapping[str, Any], seconds: float = 30.0) -> dict[str, Any]:
    """Send one request to the world and return its answer. Raises ControlError."""
    try:
        with socket.socket(socket.AF_UNIX) as channel, _short(path) as name:
            channel.settimeout(seconds)
            channel.connect(name)
            channel.sendall(json.dumps(request).encode() + b"\n")
            with channel.makefile("rb") as answers:
                line = answers.readline()
    except OSError as error:
        raise ControlError(f"the world does not answer: {error}") from error
    if not line:
        raise ControlError("the world closed the connection without an answer")
    answer: dict[str, Any] = json.loads(line)
    if "error" in answer:
        raise ControlError(answer["error"])
    return answer


class ControlServer:
    """Answers requests in the supervisor's loop, one connection after the other."""

    def __init__(
        self, path: Path, supervisor: Supervisor, handle: Callable[[dict[str, Any]], dict[str, Any]], owner: int = 0
    ) -> None:
        path.unlink(missing_ok=True)
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(path))
        path.chmod(0o600)
        self._listener.listen(16)
        self._handle = handle
        self._owner = owner  # the world's root is whoever started the world
        self._supervisor = supervisor
        supervisor.watch(self._listener, self._accept)

    def close(self) -> None:
        """Answer no more."""
        self._supervisor.unwatch(self._listener)
        self._listener.close()

    def _accept(self) -> None:
        channel, _ = self._listener.accept()
        with channel, contextlib.suppress(OSError, ValueError):
            channel.settimeout(2)
            _, uid, _ = struct.unpack("3i", channel.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
            if uid == self._owner:
                channel.sendall(json.dumps(self._answer(channel)).encode() + b"\n")

    def _answer(self, channel: socket.socket) -> dict[str, Any]:
        with channel.makefile("rb") as lines:
            line = lines.readline(_LIMIT)
        try:
            request = json.loads(line)
            return self._handle(request)
        except Exception as error:
            return {"error": str(error) or repr(error)}
