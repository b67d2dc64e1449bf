"""A site of one login host for tests of the link: a real sshd behind a wire that can be cut.

- `Wire`: a listening port; each connection gets an `sshd -i` of its own. It can fall silent, reset, be slow or refuse.
- `Authority`: signs user certificates as the broker would, for the account that runs the tests.
- `SiteInTest`: descriptor, wire, authority and folders together; `link()` makes a link with short times.
"""

from __future__ import annotations

import asyncio
import contextlib
import getpass
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import asyncssh
from dcde.credentials import Login
from dcde.link import Link, LinkTimes
from dcde_models.sites import SiteDescriptor

SSHD = "/usr/sbin/sshd"
FAST = LinkTimes(
    keepalive=1.0,
    beat=0.2,
    silent=0.8,
    connect=5.0,
    agent=15.0,
    backoff_first=0.1,
    backoff_most=0.3,
    refused=0.5,
    lease=120.0,
)


class Wire:
    """A port on which sshd answers, and everything that can happen to a network in between."""

    def __init__(self, config: Path) -> None:
        self.config = config
        self.connections = 0
        self.refuse = False
        self.rate: float | None = None
        self.processes: list[asyncio.subprocess.Process] = []
        self.port = 0
        self._flows = asyncio.Event()
        self._flows.set()
        self._writers: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._take, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]

    def cut(self) -> None:
        """Fall silent: connections stay, nothing comes through."""
        self._flows.clear()

    def mend(self) -> None:
        self._flows.set()

    def reset(self) -> None:
        """Break every connection at once, as a firewall does."""
        for writer in list(self._writers):
            writer.transport.abort()

    def kill(self) -> None:
        """Kill every sshd of a connection with SIGKILL."""
        for process in self.processes:
            if process.returncode is None:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)

    async def _take(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self.refuse:
            writer.transport.abort()
            return
        self.connections += 1
        ours, theirs = socket.socketpair()
        argv = [SSHD, "-i", "-f", str(self.config)]
        if os.getuid() == 0:
            # sshd wants /run/sshd when it is root; a mount namespace gives it one and leaves the machine as it is.
            argv = [
                "unshare",
                "--mount",
                "sh",
                "-c",
                'mount -t tmpfs t /run && mkdir /run/sshd && exec "$@"',
                "sh",
                *argv,
            ]
        argv += ["-E", str(self.config.parent / "sshd.log")]
        process = await asyncio.create_subprocess_exec(
            *argv, stdin=theirs, stdout=theirs, stderr=asyncio.subprocess.DEVNULL, start_new_session=True
        )
        theirs.close()
        self.processes.append(process)
        site_reader, site_writer = await asyncio.open_connection(sock=ours)
        self._writers |= {writer, site_writer}
        for source, target in ((reader, site_writer), (site_reader, writer)):
            task = asyncio.create_task(self._pump(source, target))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _pump(self, source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
        try:
            while data := await source.read(65536):
                await self._flows.wait()
                if self.rate:
                    await asyncio.sleep(len(data) / self.rate)
                target.write(data)
                await target.drain()
        except OSError:
            pass
        finally:
            target.close()

    async def close(self) -> None:
        if self._server:
            self._server.close()
        self.kill()
        self.reset()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for process in self.processes:
            await process.wait()


class Authority:
    """Signs certificates for the account of the tests; what it does can be changed to test refusals."""

    def __init__(self, principal: str) -> None:
        self.key = asyncssh.generate_private_key("ssh-ed25519")
        self.principal = principal
        self.error: Exception | None = None
        self.valid = "+10m"
        self.issued = 0

    async def certificate(self, site: str) -> Login:
        self.issued += 1
        if self.error:
            raise self.error
        key = asyncssh.generate_private_key("ssh-ed25519")
        certificate = self.key.generate_user_certificate(
            key, "test", principals=[self.principal], valid_after="-1m", valid_before=self.valid
        )
        return Login(getpass.getuser(), self.principal, time.time() + 600, key, certificate)


class SiteInTest:
    """One site with its own folders; everything below `folder` goes away with it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.storage = folder / "s"
        self.records = folder / "r"
        self.state = folder / "state"
        self.nodelocal = folder / "t"
        for path in (self.storage, self.records, self.state, self.nodelocal):
            path.mkdir(mode=0o700)
        self.authority = Authority("dcde1000001@test-site")
        self.host_key = asyncssh.generate_private_key("ssh-ed25519")
        self.wire = Wire(folder / "sshd_config")
        self.links: list[Link] = []
        self.program_path = "/usr/bin:/bin:/usr/local/bin"

    async def start(self) -> None:
        host_key = self.folder / "host_key"
        host_key.write_bytes(self.host_key.export_private_key("openssh"))
        host_key.chmod(0o600)
        (self.folder / "ca.pub").write_bytes(self.authority.key.export_public_key("openssh"))
        (self.folder / "principals").write_text(f"{self.authority.principal}\n")
        (self.folder / "sshd_config").write_text(
            f"HostKey {host_key}\nTrustedUserCAKeys {self.folder}/ca.pub\n"
            f"AuthorizedPrincipalsFile {self.folder}/principals\nAuthorizedKeysFile none\n"
            "PasswordAuthentication no\nKbdInteractiveAuthentication no\nUsePAM no\nStrictModes no\n"
            "PermitRootLogin yes\nPidFile none\nPermitUserRC no\nAllowTcpForwarding no\nAllowAgentForwarding no\n"
            f"LogLevel VERBOSE\nMaxSessions 10\nSetEnv DCDE_SITE_IN_TEST={self.folder}\n"
        )
        await self.wire.start()

    def descriptor(self, **changes: Any) -> SiteDescriptor:
        public = self.host_key.export_public_key("openssh").decode().strip()
        return SiteDescriptor.model_validate(
            {
                "name": "test-site",
                "title": "Test site",
                "ssh": {"hosts": ["127.0.0.1"], "port": self.wire.port, "host_keys": [public]},
                "scheduler": {
                    "nodes": 1,
                    "partitions": [
                        {"name": "batch", "max_walltime_minutes": 60, "cores_per_node": 2, "memory_mb_per_node": 1000}
                    ],
                },
                "storage": {"root": str(self.storage)},
                "agent_directory": str(self.nodelocal),
                **changes,
            }
        )

    def make_link(self, times: LinkTimes = FAST, **changes: Any) -> Link:
        link = Link(
            self.descriptor(**changes),
            self.authority,
            state_dir=self.state,
            times=times,
            records=str(self.records),
            storage=str(self.storage),
            program_path=self.program_path,
        )
        self.links.append(link)
        return link

    async def link(self, times: LinkTimes = FAST, **changes: Any) -> Link:
        """Return a link that is up."""
        link = self.make_link(times, **changes)
        await link.start()
        await link.up(20)
        return link

    def agents(self) -> list[int]:
        """Return the process ids of the agents of this site."""
        found = []
        for entry in Path("/proc").iterdir():
            with contextlib.suppress(OSError):
                if entry.name.isdigit() and f"serve\0{self.nodelocal}".encode() in (entry / "cmdline").read_bytes():
                    found.append(int(entry.name))
        return found

    async def close(self) -> None:
        for link in self.links:
            await link.close()
        await self.wire.close()
        # Agents, and whatever was about to become one when the wire was closed.
        while left := self._processes():
            for pid in left:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            await asyncio.sleep(0.01)

    def _processes(self) -> list[int]:
        """Return everything that was started at this site over ssh and has not ended."""
        mark = f"DCDE_SITE_IN_TEST={self.folder}\0".encode()
        found = []
        for entry in Path("/proc").iterdir():
            with contextlib.suppress(OSError):
                if entry.name.isdigit() and mark in (entry / "environ").read_bytes():
                    found.append(int(entry.name))
        return found


@contextlib.asynccontextmanager
async def site_in_test() -> AsyncIterator[SiteInTest]:
    """Yield a running site in a folder of its own; its path is short because unix sockets lie below it."""
    folder = Path(tempfile.mkdtemp(prefix="dcl-"))
    site = SiteInTest(folder)
    try:
        await site.start()
        yield site
    finally:
        await site.close()
        shutil.rmtree(folder, ignore_errors=True)


async def until(condition: Any, limit_s: float = 20.0) -> None:
    """Wait until `condition()` is true."""
    end = time.monotonic() + limit_s
    while not condition():
        assert time.monotonic() < end, "the condition did not come true"
        await asyncio.sleep(0.01)


def has_sshd() -> bool:
    """Tell whether an sshd can be run here."""
    return os.access(SSHD, os.X_OK) and (
        os.getuid() != 0 or subprocess.run(["unshare", "--mount", "true"], check=False).returncode == 0
    )
