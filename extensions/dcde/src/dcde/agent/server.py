"""The agent: takes carriers on a unix socket, keeps sessions over many carriers, and ends when nobody wants it."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import logging
import os
import secrets
import socket
import sys
from typing import Any

from .channels import Channels
from .home import private_folder, records_folder
from .main import peer_uid, socket_path
from .ops import Ops, scheduler
from .paths import Root
from .programs import Programs
from .protocol import CHUNK, HELLO, REFUSED, VERSION, Frames, OpError, ProtocolError, Writer, dump, frame
from .session import SessionEnded
from .work import Work

FIRST_LEASE_S = 3600.0
GREETING_S = 30.0
MAX_SESSIONS = 16
MAX_LOG = 1 << 20

log = logging.getLogger("dcde.agent")


class Served:
    """One session with the roots it works in.

    Args:
        session_id: Its name, given by the near end.
        owner: Who opened it; a newer session of the same owner ends this one.
        ops: What answers its requests.
    """

    def __init__(self, session_id: str, owner: str, ops: Ops) -> None:
        self.owner = owner
        self.channels = Channels(session_id, ops.answer)
        self.left = asyncio.get_running_loop().time()


class Agent:
    """All sessions of one account on this host.

    Args:
        folder: The agent's private folder.
        digest: The content hash of the agent's file.
    """

    def __init__(self, folder: str, digest: str) -> None:
        self._folder = folder
        self._digest = digest
        self._name = secrets.token_hex(16)
        self._sessions: dict[str, Served] = {}
        self._carriers: set[asyncio.Task[None]] = set()
        self._work = Work()
        self._lease_s = FIRST_LEASE_S
        self._alone_since = asyncio.get_running_loop().time()

    async def run(self, listening: socket.socket) -> None:
        """Serve until the lease is over."""
        server = await asyncio.start_unix_server(self._take, sock=listening, limit=CHUNK)
        path = socket_path(self._folder, self._digest)
        inode = os.stat(path).st_ino
        loop = asyncio.get_running_loop()
        async with server:
            while True:
                await asyncio.sleep(min(5.0, self._lease_s / 4))
                if self._carriers:
                    self._alone_since = loop.time()
                elif loop.time() - self._alone_since >= self._lease_s or not _is_there(path, inode):
                    break
                with contextlib.suppress(OSError):
                    os.utime(self._folder)  # Cleaners of /tmp remove what looks old.
                    os.utime(path)
        if _is_there(path, inode):
            os.unlink(path)
        for served in self._sessions.values():
            served.channels.end(OpError("AgentRestarted", "the agent ended"))
        self._work.close()

    async def _take(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        if task is None or peer_uid(writer.get_extra_info("socket")) != os.getuid():
            writer.close()
            return
        self._carriers.add(task)
        try:
            await self._carry(Frames(reader), writer)
        except (ProtocolError, SessionEnded) as error:
            log.warning("a carrier was dropped: %s", error)
        except OpError as error:
            with contextlib.suppress(OSError):
                writer.write(frame(REFUSED, dump(error.to_json())))
                await writer.drain()
        except OSError:
            log.info("a carrier was cut")
        finally:
            self._carriers.discard(task)
            self._alone_since = asyncio.get_running_loop().time()
            writer.close()

    async def _carry(self, frames: Frames, writer: Writer) -> None:
        """Greet and carry the session the other end names, until the carrier ends."""
        while True:
            hello = await asyncio.wait_for(frames.hello(), GREETING_S)
            if hello is None:
                return
            served = self._find(hello)
            if served is not None:
                break
            # The near end continues a session that we do not know; it will greet again with a new one.
            writer.write(frame(HELLO, dump(self._greeting(known=False, received=0))))
        session = served.channels.session
        writer.write(frame(HELLO, dump(self._greeting(known=True, received=session.received))))
        await session.run(
            frames,
            writer,
            peer_received=_count(hello, "received"),
            beat_s=_seconds(hello, "beat_s", 4.0),
            silent_s=_seconds(hello, "silent_s", 12.0),
        )
        served.left = asyncio.get_running_loop().time()

    def _greeting(self, *, known: bool, received: int) -> dict[str, Any]:
        return {"protocol": VERSION, "agent": self._name, "pid": os.getpid(), "known": known, "received": received}

    def _find(self, hello: dict[str, Any]) -> Served | None:
        """Return the session of a greeting, a new one where it starts one; None when it names one we do not know."""
        if hello.get("protocol") != VERSION:
            raise OpError("AgentError", f"the agent speaks version {VERSION} of the protocol only")
        session_id, owner = str(hello.get("session", "")), str(hello.get("owner", ""))
        if not session_id or not owner:
            raise ProtocolError("the greeting names no session or no owner")
        self._lease_s = _seconds(hello, "lease_s", FIRST_LEASE_S)
        if session_id in self._sessions:
            return self._sessions[session_id]
        if hello.get("fresh") is not True:
            return None
        for old in [served for served in self._sessions.values() if served.owner == owner]:
            self._drop(old)
        while len(self._sessions) >= MAX_SESSIONS:
            self._drop(min(self._sessions.values(), key=lambda served: (served.channels.session.attached, served.left)))
        served = Served(session_id, owner, self._ops(hello))
        self._sessions[session_id] = served
        log.info("a session began")
        return served

    def _drop(self, served: Served) -> None:
        del self._sessions[served.channels.session.id]
        served.channels.end(OpError("AgentRestarted", "a newer session took its place"))

    def _ops(self, hello: dict[str, Any]) -> Ops:
        roots, path = hello.get("roots"), hello.get("path")
        if not isinstance(roots, dict) or not all(isinstance(roots.get(n), str) for n in ("storage", "records")):
            raise ProtocolError("the greeting names no roots")
        if not isinstance(path, str):
            raise ProtocolError("the greeting names no path for programs")
        folders = {"storage": Root(roots["storage"]), "records": Root(records_folder(roots["records"]))}
        programs = Programs(path)
        return Ops(folders, self._work, scheduler(programs), programs, self._digest)


def _is_there(path: str, inode: int) -> bool:
    try:
        return os.lstat(path).st_ino == inode
    except OSError:
        return False


def _count(hello: dict[str, Any], name: str) -> int:
    value = hello.get(name)
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise ProtocolError(f"the greeting has no number {name!r}")
    return value


def _seconds(hello: dict[str, Any], name: str, default: float) -> float:
    value = hello.get(name, default)
    if not isinstance(value, (int, float)) or isinstance(value, bool) or not 0.01 <= value <= 10**7:
        raise ProtocolError(f"the greeting has no sensible {name!r}")
    return float(value)


def _listen(folder: str, digest: str) -> socket.socket:
    """Return the agent's listening socket, mode 0600, once the lock says that no other agent has it."""
    path = socket_path(folder, digest)
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)  # Left by an agent that was killed: we hold the lock.
    listening = socket.socket(socket.AF_UNIX)
    old = os.umask(0o177)
    try:
        listening.bind(path)
    finally:
        os.umask(old)
    listening.listen(16)
    return listening


def serve(folder: str, digest: str, ready: int) -> None:
    """Run the agent, unless another of the same content runs already. One byte goes to `ready` when one listens."""
    private_folder(folder)
    log_path = os.path.join(folder, "agent.log")
    if os.path.getsize(log_path) > MAX_LOG:
        os.truncate(log_path, 0)
    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(asctime)s %(levelname)s %(message)s")
    lock = os.open(os.path.join(folder, f"agent-{digest[:16]}.lock"), os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.write(ready, b"1")
        return
    listening = _listen(folder, digest)
    os.write(ready, b"1")
    os.close(ready)

    async def run() -> None:
        await Agent(folder, digest).run(listening)

    asyncio.run(run())
    os._exit(0)  # Threads that hang in a dead file system must not keep the process.
