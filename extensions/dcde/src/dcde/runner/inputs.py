"""A step's files: which it needs, which are missing where it runs, and what it made."""

from __future__ import annotations

import asyncio
import fnmatch
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from dcde.data.ledger import FileFacts, Ledger, Replica, RunRow
from dcde.data.movement import MoveFile, Mover
from dcde.data.raw import link_raw
from dcde.errors import LinkLost, MovementError, NotFound
from dcde.pipelines.model import RawFiles, RunPlan, StepPlan
from dcde.runner.sites import SiteBook


def project_folder(project: str) -> str:
    """Return the folder of a project below the person's folder at any site."""
    return f"projects/{project}"


def matches(path: str, pattern: str) -> bool:
    """Tell whether a path fits a pattern; `*` stays inside one part, `**` is any number of folders, as at the sites."""
    return _fits(path.split("/"), pattern.split("/"))


def _fits(parts: list[str], pattern: list[str]) -> bool:
    if not pattern:
        return not parts
    if pattern[0] == "**":
        rest = pattern[1:] or ["*"]
        return any(_fits(parts[skip:], rest) for skip in range(len(parts)))
    return bool(parts) and fnmatch.fnmatchcase(parts[0], pattern[0]) and _fits(parts[1:], pattern[1:])


def patterns_of(entry: str) -> list[str]:
    """Return the globs of an output that is given as a folder, a file or a glob."""
    entry = entry.rstrip("/")
    return [entry] if any(c in entry for c in "*?[") else [entry, f"{entry}/**"]


@dataclass
class _Needed:
    """A file that a step needs, with the replicas from which it can be had, by site."""

    path: str
    holders: dict[str, Replica] = field(default_factory=dict)

    @property
    def size(self) -> int:
        return next(iter(self.holders.values())).size


class ProjectFiles:
    """What is where in the projects, kept true in the ledger while steps run.

    Args:
        ledger: The ledger.
        sites: The sites with their links.
        mover: Moves files between sites.
    """

    def __init__(self, ledger: Ledger, sites: SiteBook, mover: Mover) -> None:
        self._ledger = ledger
        self._sites = sites
        self._mover = mover
        self._raw_locks: dict[str, asyncio.Lock] = {}

    async def missing_bytes(self, project: str, step: StepPlan, sites: Iterable[str]) -> dict[str, int]:
        """Return for each site how many bytes of a step's inputs are not there, as far as the ledger knows."""
        needed = _needed(step, await self._ledger.replicas(project))
        return {site: sum(f.size for f in needed.values() if site not in f.holders) for site in sites}

    async def bring(
        self, run: RunRow, plan: RunPlan, step: StepPlan, site: str, progress: Callable[[int, int], None]
    ) -> None:
        """See that every input of a step is at `site` as the ledger has it; what is missing or stale is moved there.

        Args:
            run: The run.
            plan: Its plan, which names the person's own files.
            step: The step that is to run.
            site: Where it is to run.
            progress: Called with the bytes moved so far and the bytes to move in all.

        Raises:
            LinkLost: A site that is needed does not answer now.
            MovementError, NotFound: An input is nowhere to be found, or cannot be moved.
        """
        if any(ref.step is None for ref in step.inputs):
            for raw in plan.raw:
                await self._enter_raw(run.project, raw)
        link = await self._sites.link_up(site)
        await link.call("mkdir", path=project_folder(run.project), parents=True)
        needed = _needed(step, await self._ledger.replicas(run.project))
        _complain_about_absent(step, needed)
        await self._compare(run.project, site, step, needed)
        needed = _needed(step, await self._ledger.replicas(run.project))
        wanted = [file for file in needed.values() if site not in file.holders]
        if wanted:
            await self._move(run.project, wanted, site, progress)

    async def outputs(self, project: str, step: StepPlan, site: str) -> list[FileFacts]:
        """Return what a step made at its site, as it lies there now."""
        link = await self._sites.link_up(site)
        patterns = [p for entry in step.outputs for p in patterns_of(entry)]
        return await _glob(link, project, patterns)

    async def check_raw(self, raw: RawFiles) -> None:
        """Raise NotFound when the person's own files are not there; a site that does not answer now is passed over."""
        site = self._sites.known().site(raw.site)
        if self._sites.trouble(site.name) is not None:
            return
        try:
            link = await self._sites.link_up(site.name)
            found = await link.call("glob", patterns=[raw.pattern], timeout=20)
        except LinkLost:
            return
        if not found["files"]:
            raise NotFound(
                f"no file fits {raw.pattern!r}",
                where=site.name,
                remedy="Look at the path; it begins at your own folder there.",
            )

    async def _enter_raw(self, project: str, raw: RawFiles) -> None:
        """Make the person's own files appear in the project by links at their site, and enter them."""
        async with self._raw_locks.setdefault(project, asyncio.Lock()):
            site = self._sites.known().site(raw.site).name
            link = await self._sites.link_up(site)
            shown = await link_raw(link, project, raw)
            facts = [FileFacts(f.path, f.size, f.mtime_ns) for f in shown]
            await self._ledger.enter_born(project, site, facts, "")

    async def _compare(self, project: str, site: str, step: StepPlan, needed: dict[str, _Needed]) -> None:
        """Compare what the ledger has of a step's inputs at `site` with what lies there, and mend the ledger."""
        entered = {path: file.holders[site] for path, file in needed.items() if site in file.holders}
        if not entered:
            return
        link = await self._sites.link_up(site)
        patterns = sorted({p for ref in step.inputs for entry in ref.patterns for p in patterns_of(entry)})
        seen = {f.path: f for f in await _glob(link, project, patterns)}
        gone: list[str] = []
        for path, replica in entered.items():
            now = seen.get(path)
            if now and (now.size, now.mtime_ns) == (replica.size, replica.mtime_ns):
                continue
            if now and replica.born:
                # The person changed it where it was made: that is the file now.
                await self._ledger.enter_born(project, site, [now], replica.origin)
            else:
                gone.append(path)
        if gone:
            await self._ledger.mark_stale(project, site, gone)
        lost = [path for path in gone if len(needed[path].holders) == 1]
        if lost:
            raise NotFound(
                f"{len(lost)} files that this step needs are not there any more, such as {lost[0]}",
                where=site,
                remedy="Bring them back, or launch a new run.",
            )

    async def _move(self, project: str, wanted: list[_Needed], site: str, progress: Callable[[int, int], None]) -> None:
        sources = [self._source(file) for file in wanted]
        files = [MoveFile(r.path, r.size, r.sha256, r.site, r.mtime_ns) for r in sources]
        moved = await self._mover.bring(project, files, site, lambda p: progress(p.bytes_done, p.bytes_total))
        facts = [FileFacts(m.path, m.size, m.mtime_ns, m.sha256) for m in moved]
        await self._ledger.enter_copies(project, site, facts)

    def _source(self, wanted: _Needed) -> Replica:
        """Return the replica from which a file can be brought now, the one where it was made if that is possible."""
        troubles = {site: self._sites.trouble(site) for site in wanted.holders}
        for replica in sorted(wanted.holders.values(), key=lambda r: not r.born):
            if troubles[replica.site] is None:
                return replica
        raise LinkLost(f"{wanted.path} lies where nobody answers: " + " ".join(str(t) for t in troubles.values()))


async def _glob(link: Any, project: str, patterns: list[str]) -> list[FileFacts]:
    folder = project_folder(project)
    answer = await link.call("glob", patterns=[f"{folder}/{p}" for p in patterns], timeout=120)
    start = len(folder) + 1
    return [FileFacts(f["path"][start:], f["size"], f["mtime_ns"]) for f in answer["files"]]


def _needed(step: StepPlan, replicas: list[Replica]) -> dict[str, _Needed]:
    """Return the files that a step needs, with their good replicas, by path."""
    needed: dict[str, _Needed] = {}
    for replica in replicas:
        if replica.state == "authoritative":
            if replica.path not in needed and not _asked_for(step, replica):
                continue
            needed.setdefault(replica.path, _Needed(replica.path)).holders[replica.site] = replica
    return needed


def _asked_for(step: StepPlan, replica: Replica) -> bool:
    return any((ref.step or "") == replica.origin and _one_of(replica.path, ref.patterns) for ref in step.inputs)


def _one_of(path: str, patterns: Iterable[str]) -> bool:
    return any(matches(path, p) for entry in patterns for p in patterns_of(entry))


def _complain_about_absent(step: StepPlan, needed: dict[str, _Needed]) -> None:
    for ref in step.inputs:
        if not any(_one_of(path, ref.patterns) for path in needed):
            maker = f"the step {ref.step}" if ref.step else "your own files"
            raise MovementError(
                f"nothing fits {', '.join(ref.patterns)} among what came from {maker}",
                where=step.id,
                remedy="The earlier step made less than this one needs.",
            )
