"""Bringing files where they are needed: the missing ones and nothing else, and copies that people ask for."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from dcde.data.transfer import (
    PARALLEL,
    Arrived,
    FileLink,
    Item,
    Links,
    LinkTransfer,
    Transfer,
    checksum_limit,
    in_parallel,
    look,
    patient,
)
from dcde.errors import DiskFull, MovementError, NotFound, PathRefused

LIST_LIMIT = 20_000
"""How many entries of one folder are copied at most; what a site's agent lists in one answer."""

HALF_WRITTEN = ".dcde-part"
"""How the name of a file ends that an agent is still writing, or was when it was killed."""


@dataclass(frozen=True)
class MoveFile:
    """A project file that is wanted elsewhere, as the ledger has it; the path is relative to the project folder."""

    path: str
    size: int
    sha256: str | None
    from_site: str
    mtime_ns: int | None = None


@dataclass(frozen=True)
class MovedFile:
    """A project file as it lies where it was wanted."""

    path: str
    size: int
    mtime_ns: int
    sha256: str


@dataclass(frozen=True)
class MoveProgress:
    """How far a movement is; what was there already counts as done."""

    files_done: int = 0
    files_total: int = 0
    bytes_done: int = 0
    bytes_total: int = 0


OnProgress = Callable[[MoveProgress], None]


@dataclass(frozen=True)
class Copied:
    """What a copy did; `skipped` are the paths of links to nothing, links to folders, pipes and devices."""

    files: int
    bytes: int
    skipped: list[str] = field(default_factory=list)


def project_path(project: str, path: str) -> str:
    """Return a project file's path relative to the person's own folder at a site."""
    return f"projects/{project}/{path}"


class Mover:
    """Moves files between the sites of one person.

    Args:
        links: Returns the link to a site.
        transfer: How bytes move; over the links unless another way is given.
    """

    def __init__(self, links: Links, transfer: Transfer | None = None) -> None:
        self._links = links
        self._transfer = transfer or LinkTransfer(links)

    async def bring(
        self, project: str, files: Sequence[MoveFile], to_site: str, on_progress: OnProgress | None = None
    ) -> list[MovedFile]:
        """See that the project files are at a site; those that lie there already stay as they are.

        Cancelling is safe at any time: no half file is ever seen, and what has arrived is found by the next call.

        Raises:
            DiskFull: There is not enough room; nothing that was there before is lost.
            MovementError: A file has changed since it was entered, or is gone.
        """
        named = [(f.from_site, self._item(project, f)) for f in files]
        arrived = await self._bring(named, to_site, _Meter(on_progress, [item for _, item in named]))
        return [MovedFile(f.path, a.size, a.mtime_ns, a.sha256) for f, a in zip(files, arrived, strict=True)]

    async def copy(
        self,
        from_site: str,
        path: str,
        to_site: str,
        target: str,
        on_progress: OnProgress | None = None,
        *,
        exact: bool = False,
    ) -> Copied:
        """Copy a file or a folder with all that is in it; paths are relative to the person's own folder at each site.

        As with `cp -r`: a target that is a folder or ends with / receives the source under its own name; otherwise the
        copy gets the target's name. Files of the same name are replaced. With `exact` the target is the copy's name in
        any case, so that a copy that was broken off can be repeated: what has arrived is not moved again.

        Raises:
            NotFound: There is no such source.
            PathRefused: A path leaves the folder, or a folder was to be copied into itself.
            DiskFull: There is not enough room.
        """
        source_link, target_link = self._links(from_site), self._links(to_site)
        for given, site in ((path, from_site), (target, to_site)):
            if given.startswith("/"):
                remedy = "Leave the first / away: paths begin at your own folder there."
                raise PathRefused("the path is absolute", where=f"{site}:{given}", remedy=remedy)
        path, wanted = path.rstrip("/"), target.rstrip("/")
        found = await look(source_link, path)
        if found is None:
            raise NotFound("there is no such file or folder", where=f"{from_site}:{path}")
        there = await look(target_link, wanted) if wanted else {"type": "folder"}
        into = target.endswith("/") or (there is not None and there["type"] == "folder")
        if into and not exact:
            wanted = "/".join(part for part in (wanted, path.rpartition("/")[2]) if part)
        items = [Item(path, wanted, found["size"], found["mtime_ns"])]
        folders: list[str] = []
        skipped: list[str] = []
        if found["type"] == "folder":
            if from_site == to_site and f"{wanted}/".startswith(f"{path}/" if path else ""):
                raise PathRefused("a folder cannot be copied into itself", where=f"{to_site}:{wanted}")
            items, folders, skipped = await _tree(source_link, path, wanted)
        for folder in folders:
            await patient(target_link, functools.partial(target_link.call, "mkdir", path=folder, parents=True))()
        await self._bring([(from_site, item) for item in items], to_site, _Meter(on_progress, items))
        return Copied(len(items), sum(item.size for item in items), skipped)

    async def _bring(self, named: Sequence[tuple[str, Item]], to_site: str, meter: _Meter) -> list[Arrived]:
        """Look what is there, make sure of the room, and move the rest, one source site after the other."""
        target = self._links(to_site)
        checks = [functools.partial(self._present, self._links(site), target, item) for site, item in named]
        present = await in_parallel(checks, PARALLEL)
        for (_, item), arrived in zip(named, present, strict=True):
            if arrived:
                meter.add(item.size, 1)
        missing = [pair for pair, arrived in zip(named, present, strict=True) if arrived is None]
        if missing:
            await _room(target, sum(item.size for _, item in missing), to_site)
        moved: dict[str, Arrived] = {}
        for site in dict.fromkeys(site for site, _ in missing):
            items = [item for from_site, item in missing if from_site == site]
            for arrived in await self._transfer.move(items, site, to_site, meter.add):
                moved[arrived.target] = arrived
        return [arrived or moved[item.target] for (_, item), arrived in zip(named, present, strict=True)]

    async def _present(self, source: FileLink, target: FileLink, item: Item) -> Arrived | None:
        """Return the file if it lies at the target already with the same content; its checksum is worked out there."""
        found = await look(target, item.target)
        if found is None or found["type"] != "file" or found["size"] != item.size:
            return None
        there = await _checksum(target, item.target, item.size)
        wanted = item.sha256
        if wanted is None:
            wanted = (await _checksum(source, item.source, item.size))["sha256"]
        if there["sha256"] != wanted:
            return None
        return Arrived(item.target, there["size"], there["mtime_ns"], there["sha256"])

    def _item(self, project: str, wanted: MoveFile) -> Item:
        path = project_path(project, wanted.path)
        return Item(path, path, wanted.size, wanted.mtime_ns, wanted.sha256)


class _Meter:
    """Adds up what has come through and tells it on."""

    def __init__(self, on_progress: OnProgress | None, items: Iterable[Item]) -> None:
        sizes = [item.size for item in items]
        self._tell = on_progress
        self._now = MoveProgress(0, len(sizes), 0, sum(sizes))

    def add(self, size: int, files: int) -> None:
        """Count bytes and files."""
        self._now = replace(self._now, files_done=self._now.files_done + files, bytes_done=self._now.bytes_done + size)
        if self._tell is not None:
            self._tell(self._now)


async def _checksum(link: FileLink, path: str, size: int) -> dict[str, Any]:
    ask = functools.partial(link.call, "checksum", path=path, timeout=checksum_limit(size))
    found: dict[str, Any] = await patient(link, ask)()
    return found


async def _room(link: FileLink, needed: int, site: str) -> None:
    """Raise DiskFull at once when what is to come cannot fit."""
    free = (await patient(link, functools.partial(link.call, "free"))())["available"]
    if needed > free:
        raise DiskFull(
            f"{_amount(needed)} are to come, and there is room for {_amount(free)}",
            where=site,
            remedy="Remove files you no longer need there, or choose another site.",
        )


def _amount(size: float) -> str:
    for unit in ("bytes", "KB", "MB", "GB"):
        if size < 1000:
            return f"{size:.3g} {unit}"
        size /= 1000
    return f"{size:.3g} TB"


async def _tree(link: FileLink, path: str, target: str) -> tuple[list[Item], list[str], list[str]]:
    """Return the files below a folder, the folders to make at the target, and the paths that cannot be copied."""
    items: list[Item] = []
    folders: list[str] = []
    skipped: list[str] = []
    waiting = [(path, target)]
    while waiting:
        here, there = waiting.pop()
        if there:
            folders.append(there)
        answer = await patient(link, functools.partial(link.call, "list", path=here, limit=LIST_LIMIT))()
        if answer["truncated"]:
            raise MovementError(f"a folder with more than {LIST_LIMIT} entries cannot be copied", where=here)
        for entry in answer["entries"]:
            if entry["name"].endswith(HALF_WRITTEN):
                continue
            source = "/".join(part for part in (here, entry["name"]) if part)
            below = "/".join(part for part in (there, entry["name"]) if part)
            if entry["type"] == "folder":
                waiting.append((source, below))
                continue
            item = await _item_of(link, entry, source, below)
            if item:
                items.append(item)
            else:
                skipped.append(source)
    return items, folders, skipped


async def _item_of(link: FileLink, entry: dict[str, Any], source: str, target: str) -> Item | None:
    """Return what is to be copied for an entry of a folder; a link to a file is copied as that file."""
    if entry["type"] == "file":
        return Item(source, target, entry["size"])
    if entry["type"] == "link":
        try:
            found = await look(link, source)
        except PathRefused:
            return None
        if found and found["type"] == "file":
            return Item(source, target, found["size"], found["mtime_ns"])
    return None
