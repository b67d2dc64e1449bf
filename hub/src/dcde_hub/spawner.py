"""Starts each person's server on this machine: own account, and a room of its own (see room.py)."""

from __future__ import annotations

import asyncio
import ipaddress
import json
import os
import subprocess
from pathlib import Path
from typing import Any, cast

from jupyterhub.spawner import LocalProcessSpawner
from traitlets import Instance, Integer, List, Unicode, default

from dcde_hub import room
from dcde_hub.accounts import Accounts
from dcde_hub.errors import AccountRefused, ServerEnded
from dcde_hub.registry import Member, UidRange

ROOM = Path(room.__file__).resolve()


class RoomSpawner(LocalProcessSpawner):  # type: ignore[misc]  # JupyterHub is not typed
    """One server a person, in the person's own namespaces.

    Servers outlive the hub. What is stored of them carries the id of the world they run in, because process ids of an
    earlier world belong to somebody else by now and must never be signalled.
    """

    world = Unicode(help="An id of this boot of the machine or world.").tag(config=True)
    python = Unicode("/usr/bin/python3", help="The system's Python, which runs room.py.").tag(config=True)
    environment_dir = Unicode("/opt/dcde/user", help="The environment of people's servers.").tag(config=True)
    keep = List(Unicode(), help="Further folders that people's servers see, read-only.").tag(config=True)
    home_root = Unicode("/home", help="The folder with the homes.").tag(config=True)
    uid_minimum = Integer(50000, help="The smallest uid a person may have.").tag(config=True)
    uid_maximum = Integer(59999, help="The largest uid a person may have.").tag(config=True)
    hub_address = Unicode("10.79.0.1", help="The hub's address as people's servers see it.").tag(config=True)
    network = Unicode("10.79.1.0", help="The address that uid `network_uid` would have.").tag(config=True)
    network_uid = Integer(51000, help="The uid whose address is `network`; the following uids follow.").tag(config=True)
    memory_mb = Integer(1500, help="The memory limit of a person's server, in MB.").tag(config=True)
    memory_group = Unicode(None, allow_none=True, help="A cgroup directory for the limits, if any.").tag(config=True)
    locks = Unicode("/run/dcde/rooms", help="A root-only folder for one lock file a person.").tag(config=True)
    log_dir = Unicode(help="A root-only folder for one log file a person; empty: the hub's own log.").tag(config=True)

    accounts = Instance(Accounts)

    @default("accounts")
    def _accounts_default(self) -> Accounts:
        return shared_accounts(Path(self.home_root), UidRange(self.uid_minimum, self.uid_maximum))

    @default("env_keep")
    def _env_keep_default(self) -> list[str]:
        return ["LANG"]  # the hub's own environment is no business of people

    @default("port")
    def _port_default(self) -> int:
        return 8888  # its network is the person's alone

    def make_preexec_fn(self, name: str) -> None:
        """Change no user before the start: room.py needs root for the room, and becomes the person afterwards."""

    async def start(self) -> tuple[str, int]:
        """Make the account if needed, and start the server in its room.

        Raises:
            RefusedLogin: The registry no longer lets this person in.
            AccountRefused: The account cannot be made as the registry says.
            ServerEnded: The server ended before it answered.
        """
        member: Member = await self.authenticator.current_member(self.user.name)
        account = await self.accounts.ensure(member)
        self.ip = address_of(member.uid_number, self.network, self.network_uid)
        specification = room.Specification(
            name=member.dcde_id,
            uid=account.pw_uid,
            home=account.pw_dir,
            address=self.ip,
            hub_address=self.hub_address,
            memory_mb=self.memory_mb,
            memory_group=self.memory_group,
            keep=[self.environment_dir, *self.keep],
            locks=self.locks,
        )
        self.cmd = [
            *(self.python, "-I", str(ROOM), json.dumps(vars(specification))),
            *(f"{self.environment_dir}/bin/python", "-m", "jupyterhub.singleuser"),
        ]
        with self._log_file() as log:
            self.popen_kwargs = {"stdin": subprocess.DEVNULL, "stdout": log, "stderr": log, "cwd": "/"}
            where = cast("tuple[str, int]", await super().start())
        await self._listening(*where)
        return where

    async def _listening(self, address: str, port: int) -> None:
        """Wait until the server listens; JupyterHub would go on waiting for one that has ended.

        Raises:
            ServerEnded: The room could not be made, or the server ended; its log says why.
        """
        while (status := await self.poll()) is None:
            try:
                async with asyncio.timeout(1):
                    _, writer = await asyncio.open_connection(address, port)
            except OSError:
                await asyncio.sleep(0.1)  # start_timeout bounds the tries
                continue
            writer.close()
            return
        raise ServerEnded(
            f"Your server ended while it was starting (status {status}).",
            where=self.user.name,
            remedy="Try again in a moment. If it happens again, tell the operators of the hub.",
        )

    def get_env(self) -> dict[str, str]:
        """Return the server's environment: what JupyterHub gives, and paths inside the room."""
        env = cast("dict[str, str]", super().get_env())
        env["PATH"] = f"{self.environment_dir}/bin:/usr/local/bin:/usr/bin:/bin"
        env["JUPYTER_RUNTIME_DIR"] = "/tmp/.jupyter"  # noqa: S108  # the room's own; also short enough for IPC sockets
        env.setdefault("LANG", "C.UTF-8")
        return env

    def get_state(self) -> dict[str, Any]:
        """Return what the next hub needs to find this server again."""
        return {**super().get_state(), "world": self.world}

    def load_state(self, state: dict[str, Any]) -> None:
        """Take up a server of an earlier hub, unless it ran in an earlier world."""
        super().load_state(state if state.get("world") == self.world else {})

    def _log_file(self) -> Any:
        if not self.log_dir:
            return os.fdopen(os.dup(2), "ab", buffering=0)
        path = Path(self.log_dir, f"{self.user.name}.log")
        flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC
        return os.fdopen(os.open(path, flags, 0o600), "ab", buffering=0)


def address_of(uid: int, network: str, network_uid: int) -> str:
    """Return the address of the person with this uid; a person keeps it for ever.

    Raises:
        AccountRefused: The uid has no address in the network.
    """
    offset = uid - network_uid
    address = ipaddress.IPv4Address(network) + offset
    if not 0 < offset < 200 * 256 or address.packed[3] in (0, 255):
        raise AccountRefused(f"There is no address for uid {uid} in {network}.", where=str(uid))
    return str(address)


_shared: dict[tuple[Path, UidRange], Accounts] = {}


def shared_accounts(home_root: Path, uids: UidRange) -> Accounts:
    """Return the one maker of accounts below `home_root`: useradd must not run twice at the same time."""
    return _shared.setdefault((home_root, uids), Accounts(home_root, uids))
