"""The runner's socket as both of its ends see it: where it lies, how its lines look, and who is on the other side.

A request is one line of JSON `{"id", "op", "args", "request"}`; the answer is `{"id", "result"}` or `{"id", "error"}`,
and the operation `watch` answers with any number of `{"id", "event"}`.
"""

from __future__ import annotations

import json
import os
import socket
import struct
from pathlib import Path
from typing import Any

LONGEST_REQUEST = 1024 * 1024
"""Bytes in one line to the runner."""

LONGEST_ANSWER = 48 * 1024 * 1024
"""Bytes in one line from the runner; the longest hold pictures."""


def runtime_folder() -> Path:
    """Return the folder of the runner's socket: `$DCDE_RUNTIME_DIR`, or one below /tmp with the uid in its name."""
    named = os.environ.get("DCDE_RUNTIME_DIR")
    return Path(named) if named else Path(f"/tmp/.dcde-{os.getuid()}")  # noqa: S108  0700, and its owner is checked


def socket_path() -> Path:
    """Return where the person's runner listens."""
    return runtime_folder() / "runner.sock"


def line(message: dict[str, Any]) -> bytes:
    """Return a message as the bytes of one line. Names that are no UTF-8 travel as lone surrogates, escaped."""
    return json.dumps(message, separators=(",", ":")).encode("ascii") + b"\n"


def peer_uid(connected: socket.socket) -> int:
    """Return the uid of the process at the other end of a unix socket (unix(7), SO_PEERCRED)."""
    raw = connected.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    return int(struct.unpack("3i", raw)[1])
