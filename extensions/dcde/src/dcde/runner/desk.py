"""One step on the runner's desk: how it is shown, how it waits, and how its end is written."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Awaitable
from dataclasses import dataclass, field
from typing import Any, Protocol

from dcde.data.ledger import Attempt, Ledger, RunRow, StepRow
from dcde.errors import DcdeError, DiskFull, RunnerError
from dcde.jobs.durable import DurableJobs
from dcde.pipelines.model import RunPlan, StepPlan
from dcde.runner.inputs import ProjectFiles
from dcde.runner.records import PictureStore, last_lines
from dcde.runner.sites import SiteBook
from dcde.runner.views import run_id

log = logging.getLogger(__name__)

LOOK_AGAIN = 15.0
"""Seconds after which a step that waits looks again, should nothing have woken it."""

LAST_LOOK = 30.0
"""Seconds that may be spent on fetching the last lines and the pictures of a job that failed."""

FINISHED = frozenset({"succeeded", "failed", "cancelled"})


class StepNotDone(Exception):
    """The step did not succeed; those after it must not begin. It says nothing more: the ledger has the reasons."""


class CancelWanted(Exception):
    """The person wants the run to end."""


@dataclass
class LiveRun:
    """A run in memory: its row, its plan, and the wish to cancel it."""

    row: RunRow
    plan: RunPlan
    cancel: asyncio.Event = field(default_factory=asyncio.Event)

    def step(self, step_id: str) -> StepRow:
        """Return the row of a step."""
        return next(s for s in self.row.steps if s.id == step_id)


class Office(Protocol):
    """What the life of a step needs of the engine."""

    ledger: Ledger
    sites: SiteBook
    files: ProjectFiles
    pictures: PictureStore

    def jobs(self, site: str) -> DurableJobs:
        """Return the durable jobs at a site; LinkRefused when there is no link."""

    def tell_step(self, run: LiveRun, step: StepRow) -> None:
        """Tell watchers how a step is now."""

    async def step_ended(self, run: LiveRun, step: StepRow) -> None:
        """See to what follows from a step's end."""

    def wakes(self) -> contextlib.AbstractContextManager[asyncio.Event]:
        """Give an event that is set whenever something changes at any site."""


class StepDesk:
    """A step, and everything that is done to its row.

    Args:
        office: The engine.
        run: The run.
        step_id: The step of it.
    """

    def __init__(self, office: Office, run: LiveRun, step_id: str) -> None:
        self.office = office
        self.run = run
        self.row: StepRow = run.step(step_id)
        self.plan: StepPlan = run.plan.step(step_id)

    @property
    def names(self) -> dict[str, str]:
        """The run and the step, for log records."""
        return {"run": run_id(self.row.run), "step": self.row.id}

    def tell(self) -> None:
        """Tell watchers how the step is now."""
        self.office.tell_step(self.run, self.row)

    def show(self, state: str, why: str) -> None:
        """Set state and reason; they are written without waiting, as they may be lost and found again."""
        row = self.row
        row.state, row.why = state, why
        self.office.ledger.post_step(
            row.run,
            row.id,
            state=state,
            why=why,
            site=row.site,
            queued_at=row.queued_at,
            started=row.started,
            ended=row.ended,
            detail=dict(row.detail),
        )
        self.tell()

    # waiting

    def stop_if_cancelled(self) -> None:
        """Raise CancelWanted when the run is to be cancelled."""
        if self.run.cancel.is_set():
            raise CancelWanted

    async def pause(self, wake: asyncio.Event, *, heed_cancel: bool = True) -> None:
        """Wait until something changes, the run is cancelled, or some seconds have passed."""
        waits = [asyncio.ensure_future(wake.wait())]
        if heed_cancel:
            waits.append(asyncio.ensure_future(self.run.cancel.wait()))
        await asyncio.wait(waits, timeout=LOOK_AGAIN, return_when=asyncio.FIRST_COMPLETED)
        for wait in waits:
            wait.cancel()

    async def unless_cancelled(self, work: Awaitable[None]) -> None:
        """Do something that may take long, but give it up when the run is cancelled."""
        doing = asyncio.ensure_future(work)
        wish = asyncio.ensure_future(self.run.cancel.wait())
        try:
            await asyncio.wait({doing, wish}, return_when=asyncio.FIRST_COMPLETED)
            if not doing.done():
                raise CancelWanted
            await doing
        finally:
            for task in (doing, wish):
                task.cancel()
            await asyncio.gather(doing, wish, return_exceptions=True)

    # the end

    async def fail(self, error: DcdeError, attempt: Attempt | None = None, *, outcome: str = "failed") -> None:
        """Write that the step failed, with its problems, its last words and the pictures made until then.

        Args:
            error: What happened; a job's error may carry its result.json.
            attempt: The attempt that ended by it, if it had begun.
            outcome: What becomes of the attempt: `failed` or `lost`.
        """
        result = getattr(error, "result", None) or {}
        shown: dict[str, Any] = error.to_json()
        pictures: list[dict[str, str]] = []
        if attempt is not None:
            with contextlib.suppress(DcdeError, TimeoutError):
                async with asyncio.timeout(LAST_LOOK):
                    link = await self.office.sites.link_up(attempt.site)
                    shown["stderr"] = "\n".join(await last_lines(link, attempt.key))
                    pictures = await self.fetch_pictures(attempt, result)
        fields = self.closing_fields("failed", error.message, result)
        fields["detail"] |= {"error": shown, "pictures": pictures}
        fields["detail"]["problems"] = fields["detail"].get("problems") or [error.message]
        await self._write_end(attempt, outcome, fields)

    async def cancelled(self, why: str, attempt: Attempt | None = None, error: DcdeError | None = None) -> None:
        """Write that the step was cancelled; `error` when it was not the person's wish."""
        fields = self.closing_fields("cancelled", why, getattr(error, "result", None) or {})
        if error:
            fields["detail"]["error"] = error.to_json()
        await self._write_end(attempt, "cancelled", fields)

    async def _write_end(self, attempt: Attempt | None, outcome: str, fields: dict[str, Any]) -> None:
        if attempt is None:
            await self.office.ledger.update_step(self.row.run, self.row.id, **fields)
        else:
            await self.office.ledger.end_attempt(attempt, outcome, fields)
        await self.apply(fields)

    def closing_fields(self, state: str, why: str, result: Any) -> dict[str, Any]:
        """Return the fields of a step that ended, with what the job's result says of times, rows and metrics."""
        report = report_of(result)
        detail = dict(self.row.detail)
        detail |= {name: report[name] for name in ("metrics", "rows") if report.get(name)}
        detail["problems"] = [str(p) for p in result.get("problems") or []]
        detail["node"] = result.get("host") or detail.get("node")
        started = result.get("started") or self.row.started
        ended = result.get("ended") or time.time()
        return {"state": state, "why": why, "started": started, "ended": ended, "detail": detail}

    async def apply(self, fields: dict[str, Any]) -> None:
        """Bring the row in line with what was written, tell it, and see to what follows."""
        for name, value in fields.items():
            setattr(self.row, name, value)
        log.info("step %s: %s", self.row.state, self.row.why, extra=self.names)
        self.tell()
        if self.row.state in FINISHED:
            await self.office.step_ended(self.run, self.row)

    async def fetch_pictures(self, attempt: Attempt, result: Any) -> list[dict[str, str]]:
        """Copy the pictures that a job's report lists; return name and title of those that are kept."""
        listed = report_of(result).get("pictures") or []
        link = await self.office.sites.link_up(attempt.site)
        try:
            return await self.office.pictures.fetch(link, attempt.key, run_id(self.row.run), self.row.id, listed)
        except DiskFull as error:
            log.warning("the pictures cannot be kept: %s", error, extra=self.names)
            return []


def report_of(result: Any) -> dict[str, Any]:
    """Return the report in a job's result.json; empty when it has none."""
    report = result.get("report")
    return report if isinstance(report, dict) else {}


def unforeseen(error: Exception) -> RunnerError:
    """Return what a person is told of an error that nobody thought of."""
    name = type(error).__name__
    return RunnerError(f"The runner met an unforeseen error ({name})", remedy="Its log has more; tell the operators.")
