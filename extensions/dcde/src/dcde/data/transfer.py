"""Moving bytes from one site to another: the interface of a transfer, and the one that streams over the links.

A transfer is handed files that are known to be missing at the target. It moves them, proves by checksum that what
arrived is what was there, and never leaves half a file under a file's name.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterable, AsyncIterator, Callable, Coroutine, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from dcde.errors import AgentRestarted, ChecksumMismatch, LinkLost, MovementError, NotFound

log = logging.getLogger(__name__)
T = TypeVar("T")

PARALLEL = 8
"""How many files move at once between two sites, so that many small ones do not wait for each other's round trips."""

PARALLEL_IN_ALL = 32
"""How many files move at once in all. Each holds a place at both of its links, so this must stay well below the number
of places of a link: otherwise movements in opposite directions could wait for each other for ever."""

ATTEMPTS = 3
"""How often a file is sent when what arrives differs from what was sent."""


class FileLink(Protocol):
    """What is needed of a link to a site; paths are relative to the person's own folder there."""

    async def call(self, op: str, *, timeout: float | None = 60, **args: Any) -> Any:
        """Ask the agent at the site; LinkLost when there is no answer."""

    async def up(self, timeout: float | None = None) -> None:
        """Wait until the link is up; LinkRefused when the site or the broker refuses."""

    def read(
        self, path: str, *, root: str = "storage", offset: int = 0, length: int | None = None
    ) -> AsyncIterator[bytes]:
        """Return the bytes of a file from `offset` on."""

    async def write(
        self, path: str, chunks: AsyncIterable[bytes], *, root: str = "storage", mode: int = 0o600
    ) -> dict[str, Any]:
        """Write a file under a temporary name, then rename it; return its size and sha256."""


OnMoved = Callable[[int, int], None]
"""Is told bytes and files that have come through since it was last told."""

Links = Callable[[str], FileLink]
"""Returns the link to the site of that name."""


LOST = (LinkLost, AgentRestarted)
"""What is raised when the link was lost: the answer is not known, and the question can be asked again."""


@dataclass(frozen=True)
class Item:
    """One file to move; `mtime_ns` and `sha256` are checked when they are given."""

    source: str
    target: str
    size: int
    mtime_ns: int | None = None
    sha256: str | None = None


@dataclass(frozen=True)
class Arrived:
    """One file as it lies at the target."""

    target: str
    size: int
    mtime_ns: int
    sha256: str


class Transfer(Protocol):
    """A way to move files from one site to another."""

    async def move(self, items: Sequence[Item], from_site: str, to_site: str, on_progress: OnMoved) -> list[Arrived]:
        """Move all items and return them in the same order.

        `on_progress` is told bytes and files that have come through; negative bytes have to be sent again.
        When the first error is raised nothing moves any more, what arrived before stays, and no half file is left.
        """


class LinkTransfer:
    """Streams files over the two links, through this process; nothing is stored on the way.

    A lost link is waited for: a source that comes back is read on from where it stopped; when the target was lost, its
    half file is gone and the file is sent again from its beginning.
    """

    def __init__(self, links: Links, *, parallel: int = PARALLEL) -> None:
        self._links = links
        self._parallel = parallel
        self._places = asyncio.Semaphore(PARALLEL_IN_ALL)

    async def move(self, items: Sequence[Item], from_site: str, to_site: str, on_progress: OnMoved) -> list[Arrived]:
        """Move all items; see `Transfer.move`."""
        source, target = self._links(from_site), self._links(to_site)
        folders = sorted({item.target.rpartition("/")[0] for item in items} - {""})
        await in_parallel([patient(target, _make_folder(target, folder)) for folder in folders], self._parallel)
        where = f"{from_site} to {to_site}"
        work = [_Move(source, target, item, on_progress, where, self._places).run for item in items]
        return await in_parallel(work, self._parallel)


class _Move:
    """One file on its way."""

    def __init__(
        self,
        source: FileLink,
        target: FileLink,
        item: Item,
        on_progress: OnMoved,
        where: str,
        places: asyncio.Semaphore,
    ) -> None:
        self._source = source
        self._target = target
        self._item = item
        self._on_progress = on_progress
        self._where = f"{item.source}, {where}"
        self._places = places
        self._offset = 0

    async def run(self) -> Arrived:
        """Send the file until it has arrived whole."""
        mismatches = 0
        while True:
            try:
                async with self._places:
                    arrived = await self._once()
                self._on_progress(0, 1)
                return arrived
            except LOST as error:
                log.info("%s: waiting for the link: %s", self._where, error)
                self._start_again()
                await self._source.up()
                await self._target.up()
            except ChecksumMismatch:
                mismatches += 1
                self._start_again()
                if mismatches == ATTEMPTS:
                    raise

    def _start_again(self) -> None:
        self._on_progress(-self._offset, 0)
        self._offset = 0

    async def _once(self) -> Arrived:
        item = self._item
        wanted = item.sha256 or await self._source_checksum()
        if item.sha256:
            await self._unchanged()
        written = await self._target.write(item.target, self._chunks())
        if written["sha256"] != wanted:
            await self._target.call("remove", path=item.target)
            raise ChecksumMismatch(
                f"what arrived of {item.source} is not what was sent, {ATTEMPTS} times over",
                where=self._where,
                remedy="Look whether the file can be read at its site.",
            )
        found = await self._target.call("stat", path=item.target)
        return Arrived(item.target, found["size"], found["mtime_ns"], written["sha256"])

    async def _source_checksum(self) -> str:
        """Have the checksum worked out where the file is."""
        found = await self._source.call("checksum", path=self._item.source, timeout=checksum_limit(self._item.size))
        self._compare(found)
        return str(found["sha256"])

    async def _unchanged(self) -> None:
        self._compare(await self._source.call("stat", path=self._item.source))

    def _compare(self, found: dict[str, Any]) -> None:
        item = self._item
        same_time = item.mtime_ns is None or found["mtime_ns"] == item.mtime_ns
        if found["size"] != item.size or not same_time:
            raise MovementError(
                f"{item.source} has changed since it was entered ({item.size} bytes then, {found['size']} now)",
                where=self._where,
                remedy="Resume the run, so that the file is looked at again.",
                retry=True,
            )

    async def _chunks(self) -> AsyncIterator[bytes]:
        """Read the source; go on where it stopped when its link was lost meanwhile."""
        while True:
            try:
                async for chunk in self._source.read(self._item.source, offset=self._offset):
                    self._offset += len(chunk)
                    self._on_progress(len(chunk), 0)
                    yield chunk
                break
            except LOST as error:
                log.info("%s: reading goes on when the link is back: %s", self._where, error)
                await self._source.up()
                await self._unchanged()
        if self._offset != self._item.size:
            raise MovementError(f"{self._item.source} changed while it was read", where=self._where, retry=True)


def checksum_limit(size: int) -> float:
    """Return the time limit for a checksum at a site, in seconds: generous, as a busy file system reads slowly."""
    return 60 + size / 10e6


def _make_folder(link: FileLink, folder: str) -> Callable[[], Coroutine[Any, Any, None]]:
    async def make() -> None:
        await link.call("mkdir", path=folder, parents=True)

    return make


def patient(link: FileLink, work: Callable[[], Coroutine[Any, Any, T]]) -> Callable[[], Coroutine[Any, Any, T]]:
    """Return work that is begun again whenever the link was lost, once it is back."""

    async def run() -> T:
        while True:
            try:
                return await work()
            except LOST:
                await link.up()

    return run


async def in_parallel(work: Sequence[Callable[[], Coroutine[Any, Any, T]]], limit: int) -> list[T]:
    """Do everything, at most `limit` at once, and return the results in order.

    The first error ends the rest, and is raised when the rest has ended.
    """
    waiting = iter(enumerate(work))
    results: dict[int, T] = {}

    async def worker() -> None:
        for number, start in waiting:
            results[number] = await start()

    workers = [asyncio.create_task(worker()) for _ in range(min(limit, len(work)))]
    try:
        await asyncio.gather(*workers)
    finally:
        for task in workers:
            task.cancel()
        await asyncio.gather(*workers, return_exceptions=True)
    return [results[number] for number in range(len(work))]


async def look(link: FileLink, path: str) -> dict[str, Any] | None:
    """Return what is at `path`, or None when there is nothing; waits through a lost link."""

    async def stat() -> dict[str, Any] | None:
        try:
            found: dict[str, Any] = await link.call("stat", path=path)
        except NotFound:
            return None
        return found

    return await patient(link, stat)()
