"""What the engine calls: requests and byte streams to a site, which outlive cuts of the network."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterable, AsyncIterator, Callable
from pathlib import Path
from typing import Any

from dcde_models.sites import SiteDescriptor

from dcde.agent.channels import Channel
from dcde.agent.programs import PATH
from dcde.agent.protocol import CHUNK, OpError, ProtocolError
from dcde.agent.session import SessionEnded
from dcde.credentials import LoginSource
from dcde.errors import AgentRestarted, FileTrouble, LinkLost
from dcde.link.errors import as_link_error
from dcde.link.state import LinkPlaces, LinkState, LinkTimes
from dcde.link.supervise import Supervisor

MAX_CALLS = 256
"""So many calls and streams may be under way at once; more wait their turn."""
# Doing these twice is the same as doing them once, so a call that met the agent's end is simply made again.
REPEATABLE = frozenset(
    (
        "hello", "list", "stat", "glob", "checksum", "free", "tail", "submit", "poll", "cancel", "forget", "queue",
        "link",
    )
)  # fmt: skip


class Link:
    """The one outbound connection of a person to a site.

    Args:
        site: The site's descriptor.
        credentials: Gives the means to log in, anew for each connection.
        state_dir: A private folder of the runner, for what links remember between two runners.
        times: The times it keeps.
        records: The account's folder for records at the site.
        storage: The person's folder at the site, `{account}` standing for the account; by default the one with the
            account's name below the site's storage root.
        program_path: The folders in which the scheduler's programs are looked for.
    """

    def __init__(
        self,
        site: SiteDescriptor,
        credentials: LoginSource,
        *,
        state_dir: Path,
        times: LinkTimes | None = None,
        records: str = "~/.dcde",
        storage: str | None = None,
        program_path: str = PATH,
    ) -> None:
        self.site = site
        places = LinkPlaces(storage or f"{site.storage.root}/{{account}}", records, program_path)
        self._supervisor = Supervisor(site, credentials, state_dir, times or LinkTimes(), places)
        self._slots = asyncio.Semaphore(MAX_CALLS)
        self._task: asyncio.Task[None] | None = None

    @property
    def state(self) -> LinkState:
        """How the link stands."""
        return self._supervisor.state

    async def start(self) -> None:
        """Begin to connect, and keep at it until closed. Returns at once."""
        if self._task is None:
            self._task = asyncio.create_task(self._supervisor.run(), name=f"link to {self.site.name}")

    async def close(self) -> None:
        """End the connection. Calls under way fail with LinkLost; jobs at the site are not touched."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])
            self._task = None
        self._supervisor.channels.end(LinkLost("The link was closed.", where=self.site.name))

    def subscribe(self, callback: Callable[[LinkState], None]) -> Callable[[], None]:
        """Have `callback` called with each new state; returns a function that stops this."""
        self._supervisor.subscribers.append(callback)

        def stop() -> None:
            with contextlib.suppress(ValueError):
                self._supervisor.subscribers.remove(callback)

        return stop

    def try_now(self) -> None:
        """Try to connect at once when the link is waiting to do so."""
        self._supervisor.nudge.set()

    async def up(self, timeout: float | None = None) -> None:
        """Wait until the link is up. Raises LinkRefused at once when it is refused, LinkLost after the time."""
        try:
            async with asyncio.timeout(timeout):
                await self._supervisor.up()
        except TimeoutError:
            raise self._late(f"The link was not up within {timeout:g} s.") from None

    def _late(self, text: str) -> LinkLost:
        state = self.state
        if state.name != "up" and state.reason:
            text = f"{text} {state.reason}"
        return LinkLost(text, where=self.site.name, remedy=state.remedy)

    async def call(self, op: str, *, timeout: float | None = 60, **args: Any) -> Any:
        """Have the agent carry out one operation and return its result; waits through cuts of the network.

        Args:
            op: The operation.
            timeout: After so many seconds without an answer LinkLost is raised; None waits for ever.
            args: Its arguments, see docs/reference/link-protocol.md.

        Raises:
            LinkRefused: The site or the broker says no.
            LinkLost: No answer came in time. Whether the operation was carried out is not known.
            AgentRestarted: The agent ended meanwhile, and the operation is none that can simply be done again.
            DcdeError: What the agent answered, such as NotFound, PathRefused or DiskFull.
        """
        try:
            async with asyncio.timeout(timeout), self._slots:
                while True:
                    try:
                        return await self._call(op, args)
                    except AgentRestarted:
                        if op not in REPEATABLE and not (op == "mkdir" and args.get("parents")):
                            raise
        except TimeoutError:
            raise self._late(f"No answer to {op!r} came within {timeout:g} s.") from None

    async def _call(self, op: str, args: dict[str, Any]) -> Any:
        async with self._request(op, args) as channel:
            return await channel.result

    @contextlib.asynccontextmanager
    async def _request(self, op: str, args: dict[str, Any]) -> AsyncIterator[Channel]:
        """Open a channel for a request; what the agent answers with becomes an error of the library."""
        await self._supervisor.up()
        channels = self._supervisor.channels
        try:
            channel = await channels.request(op, args)
            try:
                yield channel
            finally:
                channels.cancel(channel)
        except OpError as error:
            raise as_link_error(error, self.site.name) from error
        except SessionEnded:
            raise AgentRestarted("The agent was started anew meanwhile.", where=self.site.name) from None
        except ProtocolError as error:
            raise LinkLost(f"The site's end broke the protocol: {error}.", where=self.site.name) from error

    def stream(self, op: str, **args: Any) -> contextlib.AbstractAsyncContextManager[Channel]:
        """Make a request that stays open, for its news and its stream data; leaving the context gives it up.

        Cuts of the network only make it wait.

        Raises:
            AgentRestarted: The agent ended meanwhile, and the stream with it.
            DcdeError: As for `call`.
        """
        return self._request(op, args)

    async def read(
        self, path: str, *, root: str = "storage", offset: int = 0, length: int | None = None
    ) -> AsyncIterator[bytes]:
        """Yield a file's bytes from `offset` on, in parts of at most 256 KiB; waits through cuts of the network.

        Raises:
            FileTrouble: The file changed while it was read (retry).
            DcdeError: As for `call`.
        """
        seen: tuple[int, int] | None = None
        end = None if length is None else offset + length
        while True:
            args = {"path": path, "root": root, "offset": offset, "length": None if end is None else end - offset}
            try:
                async with self._slots, self._request("read", args) as channel:
                    news = await channel.news()
                    found = (int(news["size"]), int(news["mtime_ns"]))
                    if seen is not None and found != seen:
                        raise FileTrouble("The file changed while it was read.", where=self._at(path), retry=True)
                    seen = found
                    while (data := await channel.receive()) is not None:
                        offset += len(data)
                        yield data
                    await channel.result
                    return
            except AgentRestarted:
                continue  # Go on where it broke off, if the file is still the same.

    async def write(
        self, path: str, chunks: AsyncIterable[bytes], *, root: str = "storage", mode: int = 0o600
    ) -> dict[str, Any]:
        """Write a file at the site from `chunks`; it appears under its name when all of it is on disk there.

        Returns:
            `size` and `sha256` of what the site wrote.

        Raises:
            AgentRestarted: The agent ended meanwhile; nothing appears under the name, write it again.
            DcdeError: As for `call`.
        """
        async with self._slots, self._request("write", {"path": path, "root": root, "mode": mode}) as channel:
            async for data in chunks:
                for start in range(0, len(data), CHUNK):
                    await channel.send(data[start : start + CHUNK])
            await channel.send_end()
            return _table(await channel.result)

    def _at(self, path: str) -> str:
        return f"{self.site.name}:{path}"


def _table(value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ProtocolError("the agent's answer has the wrong form")
    return value
