"""Interactive functions at the site: one executor's interchange on this login host, for as long as its request is open.

The interchange is Parsl's own program, run by the site's worker interpreter. It connects to three ports on 127.0.0.1
that are its alone, and what goes through them are the stream data of three requests: the near end decides where they
lead, so this end can open nothing. The request `functions.run` owns everything: when it ends, for whatever reason, the
interchange ends. Its workers notice that by themselves and end too.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import shutil
import socket
from typing import Any

from .channels import Channel
from .home import put_file
from .paths import Root
from .programs import Programs, environment
from .protocol import OpError
from .work import Work

KEY = re.compile(r"[a-z0-9][a-z0-9-]{0,63}")
CERTIFICATES = frozenset(("server.key", "server.key_secret", "client.key", "client.key_secret"))
PORTS = 3
"""Tasks, results, commands."""
PART = 1 << 17
END_S = 5.0
PROBE_S = 60.0
MAX_SAID = 4000

# Imports what the workers need, since a package that is there but broken is no use.
PROBE = """
import importlib, json, sys
found = {"python": "%d.%d.%d" % sys.version_info[:3]}
for name in ("parsl", "dill", "zmq"):
    try:
        found[name] = getattr(importlib.import_module(name), "__version__", "")
    except Exception:
        found[name] = None
print("\\n" + json.dumps(found))
"""

# PR_SET_PDEATHSIG (prctl(2)) is 1: the interchange dies with the agent, even by kill -9. The rest is its module's main.
START = """
import ctypes, json, os, signal, sys
told = json.loads(sys.stdin.buffer.read())
ctypes.CDLL(None).prctl(1, signal.SIGKILL)
if os.getppid() != told.pop("agent"):
    sys.exit("the agent has gone")
from parsl.executors.high_throughput.interchange import Interchange
from parsl.executors.high_throughput.manager_selector import RandomManagerSelector
told["client_ports"] = tuple(told["client_ports"])
told["worker_port_range"] = tuple(told["worker_port_range"])
Interchange(manager_selector=RandomManagerSelector(), **told).start()
"""


class Executor:
    """One interchange with its ports, while its request is open."""

    def __init__(self) -> None:
        self.waiting: list[asyncio.Queue[tuple[asyncio.StreamReader, asyncio.StreamWriter]]] = [
            asyncio.Queue(1) for _ in range(PORTS)
        ]
        self.servers: list[asyncio.Server] = []
        self.writers: set[asyncio.StreamWriter] = set()

    async def listen(self) -> list[int]:
        """Begin to listen on 127.0.0.1 and return the ports."""
        for queue in self.waiting:
            self.servers.append(await asyncio.start_server(self._taker(queue), "127.0.0.1", 0, limit=PART))
        return [server.sockets[0].getsockname()[1] for server in self.servers]

    def _taker(self, queue: asyncio.Queue[tuple[asyncio.StreamReader, asyncio.StreamWriter]]) -> Any:
        async def take(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            # Login hosts are shared: anybody may connect to 127.0.0.1. Curve would stop them later than this does.
            if queue.full() or not is_mine(writer.get_extra_info("peername")[1], writer.get_extra_info("sockname")[1]):
                writer.close()
                return
            self.writers.add(writer)
            queue.put_nowait((reader, writer))

        return take

    def close(self) -> None:
        """Stop listening and close every connection."""
        for server in self.servers:
            server.close()
        for writer in self.writers:
            writer.close()


class Functions:
    """The executors of one session.

    Args:
        records: The root of the account's records; certificates and logs lie in `functions/<key>` below it.
        programs: How programs are started, and where they are looked for.
        work: Threads for the files.
    """

    def __init__(self, records: Root, programs: Programs, work: Work) -> None:
        self._records = records
        self._programs = programs
        self._work = work
        self._open: dict[str, Executor] = {}

    async def probe(self, interpreter: str) -> dict[str, Any]:
        """Return the versions of Python and of what workers need, as that interpreter has them, or None."""
        ended = await self._programs.run(interpreter, "-c", PROBE, time_limit_s=PROBE_S)
        try:
            found = json.loads(ended.out.strip().splitlines()[-1])
        except (ValueError, IndexError):
            said = " ".join((ended.err or ended.out).split())[-500:]
            raise OpError("AgentError", f"The interpreter does not run: {said}", where=interpreter) from None
        if not isinstance(found, dict):
            raise OpError("AgentError", "The interpreter gave no versions.", where=interpreter)
        return found

    async def run(
        self, channel: Channel, key: str, interpreter: str, certificates: dict[str, Any], times: dict[str, Any]
    ) -> dict[str, Any]:
        """Run an interchange until it ends, the request is given up, or nobody has been attached for the lease.

        News: `address` at which the workers reach it, and the `folder` with its certificates. Returns how it ended.
        """
        folder = self._folder(key)
        lease_s, threshold_s = _seconds(times, "lease_s"), _seconds(times, "heartbeat_s")
        if set(certificates) != CERTIFICATES or not all(isinstance(text, str) for text in certificates.values()):
            raise OpError("InvalidParameter", "The certificates are not those of an executor.", where=key)
        if key in self._open:
            raise OpError("AlreadyExists", "There is an executor of that name already.", where=key)
        executor = self._open[key] = Executor()
        process: asyncio.subprocess.Process | None = None
        try:
            await self._work.quick(_put_certificates, folder, certificates)
            ports = await executor.listen()
            address = await self._cluster_address()
            process = await self._start(interpreter, folder, ports, address, threshold_s)
            await channel.send_news({"address": address, "folder": folder})
            return await self._watch(channel, process, folder, lease_s)
        finally:
            del self._open[key]
            executor.close()
            await asyncio.shield(asyncio.ensure_future(self._end(process, folder)))

    async def _start(
        self, interpreter: str, folder: str, ports: list[int], address: str, threshold_s: float
    ) -> asyncio.subprocess.Process:
        told = {
            "agent": os.getpid(),
            "client_address": "127.0.0.1",
            "client_ports": ports,
            "interchange_address": address,
            "worker_port": None,
            "worker_port_range": [54000, 55000],
            "hub_address": None,
            "hub_zmq_port": None,
            "heartbeat_threshold": int(threshold_s),
            "logdir": folder,
            "logging_level": 30,
            "poll_period": 10,
            "cert_dir": os.path.join(folder, "certificates"),
            "run_id": "dcde",
            "log_config": None,
            "_check_python_mismatch": True,
        }
        said = await self._work.quick(_open_new, os.path.join(folder, "said"))
        try:
            process = await asyncio.create_subprocess_exec(
                interpreter,
                "-c",
                START,
                stdin=asyncio.subprocess.PIPE,
                stdout=said,
                stderr=said,
                env=environment(self._programs.path),
                cwd="/",
                start_new_session=True,
            )
        finally:
            os.close(said)
        assert process.stdin is not None  # noqa: S101  it was asked for
        with contextlib.suppress(OSError):  # It may have ended already; `_watch` tells why.
            process.stdin.write(json.dumps(told).encode())
            await process.stdin.drain()
            process.stdin.close()
        return process

    async def _watch(
        self, channel: Channel, process: asyncio.subprocess.Process, folder: str, lease_s: float
    ) -> dict[str, Any]:
        """Wait for the end of the interchange or of the lease."""
        loop = asyncio.get_running_loop()
        attached = loop.time()
        ending = asyncio.ensure_future(process.wait())
        try:
            while not ending.done():
                await asyncio.wait([ending], timeout=min(5.0, lease_s / 4))
                if channel.attached:
                    attached = loop.time()
                elif loop.time() - attached >= lease_s:
                    return {"exit_code": None, "said": "Nobody was attached for the time of the lease."}
            said = await self._work.quick(_tail, os.path.join(folder, "said"))
            return {"exit_code": process.returncode, "said": said}
        finally:
            ending.cancel()

    async def _end(self, process: asyncio.subprocess.Process | None, folder: str) -> None:
        if process is not None:
            if process.returncode is None:
                with contextlib.suppress(ProcessLookupError):
                    process.terminate()
                with contextlib.suppress(asyncio.TimeoutError):
                    await asyncio.wait_for(process.wait(), END_S)
            if process.returncode is None:
                with contextlib.suppress(ProcessLookupError):
                    process.kill()
                await process.wait()
        await self._work.bulk(shutil.rmtree, folder, True)

    async def stream(self, channel: Channel, key: str, port: int) -> dict[str, Any]:
        """Carry what the interchange sends and receives on one of its ports. News {} once it has connected."""
        executor = self._open.get(key)
        if executor is None or not 0 <= port < PORTS:
            raise OpError("NotFound", "There is no such executor any more.", where=key, retry=True)
        reader, writer = await executor.waiting[port].get()
        try:
            await channel.send_news({})
            await carry(channel, reader, writer)
            return {}
        finally:
            executor.writers.discard(writer)
            writer.close()

    def _folder(self, key: str) -> str:
        if not KEY.fullmatch(key):
            raise OpError("InvalidParameter", "A key has characters that are not allowed.", where=key)
        return os.path.join(self._records.path, "functions", key)

    async def _cluster_address(self) -> str:
        """Return the address of this host from which the compute nodes are reached."""
        ended = await self._programs.run("sinfo", "-h", "-N", "-o", "%o")
        names = ended.out.split()
        if ended.code != 0 or not names:
            raise OpError("SchedulerError", "sinfo names no compute node.", retry=True)
        return await self._work.quick(_address_towards, names[0])


async def carry(channel: Channel, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Carry bytes between a connection and the stream of a request until either of them ends."""

    async def outward() -> None:
        while data := await reader.read(PART):
            await channel.send(data)
        await channel.send_end()

    async def inward() -> None:
        while (data := await channel.receive()) is not None:
            writer.write(data)
            await writer.drain()

    tasks = [asyncio.ensure_future(outward()), asyncio.ensure_future(inward())]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            error = task.exception()
            if error is not None and not isinstance(error, OSError):
                raise error
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def is_mine(theirs: int, ours: int) -> bool:
    """Tell whether the process that connected from port `theirs` of 127.0.0.1 is of our own user: proc(5), net/tcp.

    ZeroMQ connects with sockets of IPv6, to the mapped address.
    """
    for table, home in (("tcp6", "0000000000000000FFFF00000100007F"), ("tcp", "0100007F")):
        ends = [f"{home}:{theirs:04X}", f"{home}:{ours:04X}"]
        with contextlib.suppress(FileNotFoundError), open(f"/proc/net/{table}", encoding="ascii") as lines:
            for line in lines:
                fields = line.split()
                if fields[1:3] == ends:
                    return int(fields[7]) == os.getuid()
    return False


def _address_towards(name: str) -> str:
    try:
        target = socket.getaddrinfo(name, 9, socket.AF_INET, socket.SOCK_DGRAM)[0][4]
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
            asking.connect(target)  # Sends nothing; the kernel chooses the route.
            return str(asking.getsockname()[0])
    except OSError as error:
        raise OpError("AgentError", f"The compute node {name} is not to be reached: {error}.", where=name) from error


def _put_certificates(folder: str, certificates: dict[str, str]) -> None:
    inner = os.path.join(folder, "certificates")
    os.makedirs(inner, mode=0o700)
    os.chmod(folder, 0o700)  # `makedirs` gives its mode to the last folder only.
    for name, text in certificates.items():
        put_file(os.path.join(inner, name), text.encode())


def _open_new(path: str) -> int:
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)


def _tail(path: str) -> str:
    with open(path, encoding="utf-8", errors="replace") as file:
        return file.read()[-MAX_SAID:]


def _seconds(times: dict[str, Any], name: str) -> float:
    value = times.get(name)
    if not isinstance(value, (int, float)) or isinstance(value, bool) or not 1 <= value <= 86400:
        raise OpError("InvalidParameter", f"{name} must be a number of seconds.", where=name)
    return float(value)
