"""Copies between sites that a person asked for; they go on after a restart and wait for sites that are away."""

from __future__ import annotations

import asyncio
import logging
import posixpath
import time
from typing import Any

from dcde_models import Need

from dcde.data.ledger import Ledger, TransferRow
from dcde.data.movement import MoveProgress, Mover
from dcde.errors import DcdeError, InvalidParameter, LinkLost, NotFound, PathRefused, UnknownName
from dcde.runner.events import Events
from dcde.runner.sites import SiteBook
from dcde.runner.views import transfer_view

log = logging.getLogger(__name__)

AT_ONCE = 3
"""Copies that move at the same time; further ones wait."""

_TELL_EVERY = 0.25
_PATIENCE = 15.0


def split_place(text: str) -> tuple[str, str]:
    """Return site and path of a text such as `bnl-sdcc:movies/a`; raises InvalidParameter when there is no colon."""
    site, colon, path = text.partition(":")
    if not colon or not site:
        raise InvalidParameter(f"{text!r} is no place", where=text, remedy="Write it as site:path.")
    return site, path


class TransferDesk:
    """Carries the copies.

    Args:
        ledger: The ledger, open.
        sites: The sites with their links.
        mover: Moves files between sites.
        events: Where progress is told.
    """

    def __init__(self, ledger: Ledger, sites: SiteBook, mover: Mover, events: Events) -> None:
        self._ledger = ledger
        self._sites = sites
        self._mover = mover
        self._events = events
        self._rows: dict[int, TransferRow] = {}
        self._tasks: dict[int, asyncio.Task[None]] = {}
        self._room = asyncio.Semaphore(AT_ONCE)

    async def start(self) -> None:
        """Go on with what was unfinished."""
        for row in await self._ledger.transfers():
            self._rows[row.id] = row
            if row.state in ("waiting", "moving"):
                self._begin(row)

    async def close(self) -> None:
        """Stop moving; the next runner goes on."""
        for task in self._tasks.values():
            task.cancel()
        await asyncio.gather(*self._tasks.values(), return_exceptions=True)

    async def copy(self, source: str, target: str) -> dict[str, Any]:
        """Begin to copy a file or folder and return the transfer at once.

        Raises:
            UnknownName, InvalidParameter: A place is no `site:path`, or there is no such site.
            PathRefused: A path is absolute.
            NotAllowed: The person may not read there, or not write there.
        """
        knowledge = await self._sites.knowledge()
        places = []
        for text, action in ((source, "transfer.read"), (target, "transfer.write")):
            name, path = split_place(text)
            site = knowledge.site(name)
            knowledge.require(site.name, Need(action))  # type: ignore[arg-type]  # both are actions
            if path.startswith("/"):
                remedy = "Leave the first / away: paths begin at your own folder there."
                raise PathRefused("the path is absolute", where=text, remedy=remedy)
            places.append((site.name, path))
        (from_site, path), (to_site, to) = places
        if not path.strip("/"):
            raise InvalidParameter("the source is a whole site", where=source, remedy="Name a file or folder in it.")
        row = await self._ledger.add_transfer(f"{from_site}:{path}", f"{to_site}:{to}")
        self._rows[row.id] = row
        self._begin(row)
        self._tell(row)
        return transfer_view(row)

    def views(self) -> list[dict[str, Any]]:
        """Return all transfers, the newest first."""
        return [transfer_view(row) for _, row in sorted(self._rows.items(), reverse=True)]

    async def cancel(self, name: str) -> dict[str, Any]:
        """Stop a copy; what has arrived stays, each file whole."""
        row = self._rows.get(int(name[1:]))
        if row is None:
            raise UnknownName(f"there is no transfer {name}", where=name)
        task = self._tasks.get(row.id)
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        if row.state in ("waiting", "moving"):
            await self._end(row, "cancelled", None)
        return transfer_view(row)

    def _begin(self, row: TransferRow) -> None:
        task = asyncio.create_task(self._carry(row), name=f"transfer-{row.id}")
        self._tasks[row.id] = task
        task.add_done_callback(lambda _: self._tasks.pop(row.id, None))

    async def _carry(self, row: TransferRow) -> None:
        async with self._room:
            while True:
                try:
                    await self._move(row)
                    await self._end(row, "done", None)
                    return
                except DcdeError as error:
                    if not isinstance(error, LinkLost):
                        await self._end(row, "failed", error)
                        return
                    row.state, row.detail["error"] = "waiting", error.to_json()
                    self._tell(row)
                except Exception as error:
                    log.exception("a transfer ended with an unforeseen error")
                    failure = DcdeError(f"the runner met an unforeseen error ({type(error).__name__})")
                    await self._end(row, "failed", failure)
                    return
                await asyncio.sleep(_PATIENCE)

    async def _move(self, row: TransferRow) -> None:
        (from_site, path), (to_site, to) = split_place(row.source), split_place(row.target)
        for site in (from_site, to_site):
            await self._sites.link_up(site)
        if "final" not in row.detail:
            row.detail["final"] = await self._final_name(path, to_site, to)
        row.state, row.detail["error"] = "moving", None
        await self._ledger.update_transfer(row.id, state=row.state, detail=row.detail)
        self._tell(row)
        began, told = time.monotonic(), 0.0

        def progress(now: MoveProgress) -> None:
            nonlocal told
            seconds = time.monotonic() - began
            row.detail |= {
                "bytes_done": now.bytes_done,
                "bytes_total": now.bytes_total,
                "files_done": now.files_done,
                "files_total": now.files_total,
                "rate": now.bytes_done / seconds if seconds > 0 else None,
            }
            if seconds - told >= _TELL_EVERY or now.bytes_done == now.bytes_total:
                told = seconds
                self._tell(row)

        await self._mover.copy(from_site, path, to_site, row.detail["final"], on_progress=progress, exact=True)

    async def _final_name(self, path: str, to_site: str, to: str) -> str:
        """Return what the copy will be called, as `cp -r` would: a folder that is there receives it.

        It is worked out once, so that a copy that is repeated after a restart does not land one folder deeper.
        """
        wanted = to.strip("/")
        into = to.endswith("/") or not wanted
        if not into:
            try:
                into = (await self._sites.link(to_site).call("stat", path=wanted))["type"] == "folder"
            except NotFound:
                into = False
        name = posixpath.basename(path.rstrip("/"))
        return "/".join(part for part in (wanted, name) if part) if into else wanted

    async def _end(self, row: TransferRow, state: str, error: DcdeError | None) -> None:
        row.state, row.ended = state, time.time()
        row.detail["error"] = error.to_json() if error else None
        await self._ledger.update_transfer(row.id, state=state, ended=row.ended, detail=row.detail)
        self._tell(row)

    def _tell(self, row: TransferRow) -> None:
        self._events.tell("transfer", transfer_view(row))
