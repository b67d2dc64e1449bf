"""Start of the agent's file: `attach` ties an ssh session to the agent, starting one when none is there.

    agent.pyz attach FOLDER DIGEST      stdin and stdout are the carrier
    agent.pyz serve FOLDER DIGEST FD    the agent itself; one byte on FD says that it listens

One agent serves one account on one login host. It ends when nobody has been attached for the time of the lease; the
scheduler's jobs have nothing to do with it.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import socket
import struct
import subprocess
import sys
import threading
import time

READY = b"\0dcde ready\n"
START_LIMIT_S = 30.0


def socket_path(folder: str, digest: str) -> str:
    """Return the path of the agent's socket; agents of different content keep apart."""
    return os.path.join(folder, f"agent-{digest[:16]}.sock")


def peer_uid(connection: socket.socket) -> int:
    """Return the user id of the process at the other end of a unix socket."""
    credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
    return int(struct.unpack("3i", credentials)[1])


def _connect(path: str) -> socket.socket | None:
    connection = socket.socket(socket.AF_UNIX)
    try:
        connection.connect(path)
    except OSError:
        connection.close()
        return None
    if peer_uid(connection) != os.getuid():
        connection.close()
        raise SystemExit("the agent's socket belongs to somebody else")
    return connection


def _start(folder: str, digest: str) -> None:
    """Start an agent apart from this session and wait until it, or another one, listens."""
    reading, writing = os.pipe()
    with open(os.open(os.path.join(folder, "agent.log"), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), "ab") as log:
        subprocess.Popen(
            [sys.executable, "-I", "-X", "utf8", sys.argv[0], "serve", folder, digest, str(writing)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=log,
            cwd="/",
            start_new_session=True,
            pass_fds=(writing,),
        )
    os.close(writing)
    select.select([reading], [], [], START_LIMIT_S)
    os.close(reading)


def attach(folder: str, digest: str) -> None:
    """Carry bytes between stdin/stdout and the agent until one of them ends."""
    path = socket_path(folder, digest)
    until = time.monotonic() + START_LIMIT_S
    connection = _connect(path)
    while connection is None and time.monotonic() < until:
        _start(folder, digest)
        connection = _connect(path)
    if connection is None:
        with open(os.path.join(folder, "agent.log"), encoding="utf-8", errors="replace") as log:
            said = log.read()[-2000:]
        _write(json_line("fail", {"message": "the agent does not start: " + said}))
        raise SystemExit(1)
    _write(READY)
    threading.Thread(target=_carry_in, args=(connection,), daemon=True).start()
    with contextlib.suppress(OSError):
        while True:
            data = connection.recv(1 << 18)
            if not data:
                break
            _write(data)
    os._exit(0)  # The other thread may be waiting in `read`.


def _carry_in(connection: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while True:
            data = os.read(0, 1 << 18)
            if not data:
                break
            connection.sendall(data)
    os._exit(0)


def _write(data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(1, view) :]


def json_line(word: str, value: object) -> bytes:
    """Return a line for the near end that it can tell from what login shells print."""
    return b"\0dcde " + word.encode() + b" " + json.dumps(value).encode() + b"\n"


def main() -> None:
    """Do what the arguments say."""
    os.umask(0o077)
    if len(sys.argv) == 4 and sys.argv[1] == "attach":
        attach(sys.argv[2], sys.argv[3])
    elif len(sys.argv) == 5 and sys.argv[1] == "serve":
        from .server import serve  # What `attach` does not need is not loaded for it.

        serve(sys.argv[2], sys.argv[3], int(sys.argv[4]))
    else:
        raise SystemExit(__doc__)
