"""Keeps one connection to a site, for ever, and tells how it stands.

Two things can end apart from each other: the ssh connection, and the carrier on it, which is one ssh session attached
to the agent. A carrier that ends while its connection lives is opened again on it, without a new login.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import random
import secrets
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import asyncssh
from dcde_models.sites import SiteDescriptor

from dcde.agent.channels import Channels
from dcde.agent.protocol import HELLO, VERSION, Frames, OpError, ProtocolError, dump, frame
from dcde.credentials import LoginSource
from dcde.errors import DcdeError, LinkLost, LinkRefused
from dcde.link.bootstrap import command, start_agent
from dcde.link.bundle import agent_bundle
from dcde.link.errors import as_link_error
from dcde.link.ssh import connect
from dcde.link.state import LinkPlaces, LinkState, LinkTimes

log = logging.getLogger(__name__)

CARRIER_TRIES = 3
"""A connection on which so many carriers in a row end before they are of use is given up."""
SAID_LIMIT = 4096


class Supervisor:
    """The life of a link: log in, attach, notice the end, try again.

    Args:
        site: The site's descriptor.
        credentials: Gives the means to log in, anew for each connection.
        state_dir: A private folder of the runner.
        times: The times to keep.
        places: Where the agent works at the site.
    """

    def __init__(
        self,
        site: SiteDescriptor,
        credentials: LoginSource,
        state_dir: Path,
        times: LinkTimes,
        places: LinkPlaces,
    ) -> None:
        self.site = site
        self.state = LinkState("connecting", time.time())
        self.channels = Channels(secrets.token_hex(16))
        self.subscribers: list[Callable[[LinkState], None]] = []
        self.nudge = asyncio.Event()
        self._credentials = credentials
        self._state_dir = state_dir
        self._times = times
        self._places = places
        self._owner = ""
        self._hosts = list(site.ssh.hosts)
        self._fresh = True
        self._failures = 0
        self._waiting: set[asyncio.Future[None]] = set()

    async def up(self) -> None:
        """Wait until the link is up. Raises LinkRefused at once when it is refused."""
        while self.state.name != "up":
            if self.state.name == "refused":
                raise self._refusal()
            future = asyncio.get_running_loop().create_future()
            self._waiting.add(future)
            try:
                await future
            finally:
                self._waiting.discard(future)

    def _refusal(self) -> LinkRefused:
        return LinkRefused(self.state.reason, where=self.site.name, remedy=self.state.remedy)

    def _set(self, state: LinkState) -> None:
        if state.name == self.state.name:
            state = replace(state, since=self.state.since)
        if state == self.state:
            return
        log.info("the link is %s: %s", state.name, state.reason or state.login_host, extra={"site": self.site.name})
        self.state = state
        for future in self._waiting:
            if not future.done():
                future.set_result(None)
        if state.name == "refused":
            self.channels.give_up(self._refusal())
        for subscriber in list(self.subscribers):
            try:
                subscriber(state)
            except Exception:
                log.exception("a subscriber of the link's state failed", extra={"site": self.site.name})

    async def run(self) -> None:
        """Keep the link until cancelled."""
        self._owner, last = await asyncio.to_thread(_remembered, self._state_dir, self.site.name)
        if last in self._hosts:
            self._prefer(last)
        while True:
            error = await self._once()
            refused = not error.retry
            self._set(
                LinkState(
                    "refused" if refused else "lost",
                    time.time(),
                    error.message,
                    error.remedy,
                    self.state.login_host,
                )
            )
            most = self._times.refused if refused else self._times.backoff_most
            wait = min(most, self._times.backoff_first * 2 ** min(self._failures, 16))
            self._failures += 1
            self.nudge.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(wait * random.uniform(0.5, 1.0)):  # noqa: S311 (no secret)
                    await self.nudge.wait()

    async def _once(self) -> DcdeError:
        """Log in and carry sessions until the connection ends; returns why it did."""
        try:
            login = await self._credentials.certificate(self.site.name)
            errors: list[DcdeError] = []
            for host in list(self._hosts):
                try:
                    connection = await connect(self.site, host, login, self._times)
                except DcdeError as error:
                    errors.append(error)
                    continue
                try:
                    return await self._keep(connection, host, login.account)
                finally:
                    await _close(connection)
            # One host that is only out of reach gives hope where another one refuses.
            return next((error for error in errors if error.retry), errors[0])
        except DcdeError as error:
            return error
        except (asyncssh.Error, OSError, TimeoutError) as error:
            return LinkLost(f"The connection ended: {error or 'no answer in time'}.", where=self.site.name)
        except ProtocolError as error:
            return LinkLost(f"The site's end broke the protocol: {error}.", where=self.site.name)
        except Exception as error:
            log.exception("the link failed in an unforeseen way", extra={"site": self.site.name})
            return LinkLost(f"The link failed: {type(error).__name__}: {error}.", where=self.site.name)

    async def _keep(self, connection: asyncssh.SSHClientConnection, host: str, account: str) -> DcdeError:
        """Open carriers on a connection, one after the other, as long as it lives and they are of use."""
        loop = asyncio.get_running_loop()
        tries = 0
        while True:
            began = loop.time()
            silent = False
            try:
                silent = await self._carry(connection, host, account)
                reason = "nothing was heard from it" if silent else "the connection ended"
                lost = LinkLost(f"The link to {host} was cut: {reason}.", where=self.site.name)
            except LinkLost as error:
                lost = error
            if loop.time() - began >= self._times.silent:
                tries = self._failures = 0
            tries += 1
            if silent or connection.is_closed() or tries >= CARRIER_TRIES:
                return lost
            if self.state.name == "up":
                self._set(LinkState("lost", time.time(), lost.message, "", host))

    async def _carry(self, connection: asyncssh.SSHClientConnection, host: str, account: str) -> bool:
        """Attach to the agent and carry the session until the carrier ends; True when it fell silent."""
        bundle = await asyncio.to_thread(agent_bundle)
        said = bytearray()
        writer, reader, errors = await connection.open_session(command(self.site.interpreter), encoding=None)
        collecting = asyncio.create_task(_collect(errors, said))
        try:
            try:
                async with asyncio.timeout(self._times.agent):
                    await start_agent(
                        reader,
                        writer,
                        said,
                        bundle,
                        parent=self.site.agent_directory,
                        records=self._places.records,
                        where=self.site.name,
                    )
                    frames = Frames(reader)
                    received = await self._greet(frames, writer, account)
            except TimeoutError:
                raise LinkLost(f"The agent did not start in {self._times.agent:g} s.", where=self.site.name) from None
            except OpError as error:
                raise as_link_error(error, self.site.name) from error
            self._prefer(host)
            await asyncio.to_thread(_remember, self._state_dir, self.site.name, host)
            running = asyncio.ensure_future(
                self.channels.session.run(
                    frames,
                    writer,
                    peer_received=received,
                    beat_s=self._times.beat,
                    silent_s=self._times.silent,
                )
            )
            self._set(LinkState("up", time.time(), login_host=host))
            try:
                return await running
            finally:
                running.cancel()
        finally:
            collecting.cancel()
            writer.close()

    async def _greet(self, frames: Frames, writer: asyncssh.SSHWriter[bytes], account: str) -> int:
        """Greet the agent and return how much of the session's stream it has.

        An agent that does not know the session was started anew: what was under way on it is answered with
        AgentRestarted, and a new session begins.
        """
        for _ in range(2):
            session = self.channels.session
            hello = {
                "protocol": VERSION,
                "session": session.id,
                "fresh": self._fresh,
                "owner": self._owner,
                "received": session.received,
                "roots": {
                    "storage": self._places.storage.replace("{account}", account),
                    "records": self._places.records,
                },
                "path": self._places.program_path,
                "beat_s": self._times.beat,
                "silent_s": self._times.silent,
                "lease_s": self._times.lease,
            }
            writer.write(frame(HELLO, dump(hello)))
            answer = await frames.hello()
            if answer is None:
                break
            received = answer.get("received")
            if answer.get("protocol") != VERSION or type(received) is not int:
                raise ProtocolError("the agent's greeting makes no sense")
            if answer.get("known") is True:
                self._fresh = False
                return received
            old, self.channels = self.channels, Channels(secrets.token_hex(16))
            self._fresh = True
            old.end(OpError("AgentRestarted", "The agent was started anew meanwhile.", retry=True))
        raise LinkLost("The agent ended while it was greeted.", where=self.site.name)

    def _prefer(self, host: str) -> None:
        self._hosts.remove(host)
        self._hosts.insert(0, host)


async def _collect(errors: asyncssh.SSHReader[bytes], said: bytearray) -> None:
    """Keep the end of what the session says on its error output; unread it would block the session."""
    with contextlib.suppress(asyncssh.Error, OSError):
        while data := await errors.read(SAID_LIMIT):
            said += data
            del said[:-SAID_LIMIT]


async def _close(connection: asyncssh.SSHClientConnection) -> None:
    """Close a connection, and do not wait for a network that is gone."""
    connection.close()
    with contextlib.suppress(TimeoutError, asyncssh.Error, OSError):
        async with asyncio.timeout(0.5):
            await connection.wait_closed()
    connection.abort()


def _remembered(state_dir: Path, site: str) -> tuple[str, str]:
    """Return the random name of this runner's home, made at first use, and the login host of last time."""
    state_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    path = state_dir / "owner"
    with (
        contextlib.suppress(FileExistsError),
        open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as f,
    ):
        f.write(secrets.token_hex(16))
    owner = path.read_text("ascii").strip() or secrets.token_hex(16)
    try:
        host = (state_dir / f"login-host-{site}").read_text("utf-8").strip()
    except OSError:
        host = ""
    return owner, host


def _remember(state_dir: Path, site: str, host: str) -> None:
    """Note the login host for the next runner; without the note it only asks the hosts in their usual order."""
    with contextlib.suppress(OSError):
        path = state_dir / f"login-host-{site}"
        fresh = path.with_suffix(f".{secrets.token_hex(4)}")
        fresh.write_text(host, "utf-8")
        fresh.replace(path)
