"""The life of one step: placed, its inputs brought, its job followed, its outputs entered.

See docs/explanation/run-life.md.

A new attempt is made only when the earlier one is proven dead. Whatever the site's state, a step waits and says why: a
lost connection is never a failure.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Awaitable
from dataclasses import dataclass, field
from typing import Any, Protocol

from dcde_models import Need

from dcde.data.ledger import Attempt, FileFacts, Ledger, RunRow, StepRow
from dcde.errors import (
    BrokerUnreachable,
    DcdeError,
    DiskFull,
    JobCancelled,
    JobError,
    JobFailed,
    JobLost,
    LinkError,
    RunnerError,
    SiteError,
)
from dcde.jobs.durable import DurableJobs
from dcde.jobs.spec import JobSpec
from dcde.jobs.status import JobResult, JobStatus
from dcde.pipelines.model import RunPlan, StepPlan
from dcde.placement import AUTO, Candidate, Placement, place_auto, place_wished
from dcde.runner.inputs import ProjectFiles
from dcde.runner.records import PictureStore, last_lines
from dcde.runner.sites import SiteBook
from dcde.runner.views import run_id

log = logging.getLogger(__name__)

MOST_ATTEMPTS = 3
"""So often a step is tried when its job is lost, before a person must resume it."""

LOOK_AGAIN = 15.0
"""Seconds after which a step that waits looks again, should nothing have woken it."""

FINISHED = frozenset({"succeeded", "failed", "cancelled"})

_STATES = {"submitting": "queued", "pending": "queued", "running": "running", "unknown": "unknown"}


class StepNotDone(Exception):
    """The step did not succeed; those after it must not begin. It says nothing more: the ledger has the reasons."""


class _CancelWanted(Exception):
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


class StepLife:
    """Carries one step to its end.

    Args:
        office: The engine.
        run: The run.
        step_id: The step of it.
    """

    def __init__(self, office: Office, run: LiveRun, step_id: str) -> None:
        self._office = office
        self._run = run
        self._row = run.step(step_id)
        self._plan: StepPlan = run.plan.step(step_id)
        self._checksum_failures = 0

    async def perform(self) -> dict[str, str]:
        """Carry the step to its end; returns when it succeeded.

        Raises:
            StepNotDone: It failed or was cancelled; the ledger says why.
        """
        if self._row.state in FINISHED:
            raise StepNotDone
        ledger = self._office.ledger
        with self._office.wakes() as wake:
            found = await ledger.live_attempt(self._row.run, self._row.id)
            while True:
                attempt = found or await self._new_attempt(wake)
                await self._follow(attempt, found is not None, wake)
                if self._row.state == "succeeded":
                    return {"step": self._row.id}
                found = None

    # before the job

    async def _new_attempt(self, wake: asyncio.Event) -> Attempt:
        """Return a new attempt, ready to be submitted; ends the step when the run is cancelled before."""
        try:
            return await self._prepare(wake)
        except _CancelWanted:
            await self._end("cancelled", why="Cancelled before it was submitted.")
            raise StepNotDone from None

    async def _prepare(self, wake: asyncio.Event) -> Attempt:
        """Place the step and bring its inputs, waiting as long as it takes; then enter a new attempt."""
        while True:
            wake.clear()
            self._stop_if_cancelled()
            try:
                placement = await self._place()
                if placement.site is not None:
                    spec = self._spec(placement.site)
                    await self._bring(placement)
                    self._stop_if_cancelled()
                    return await self._begin(placement, spec)
                await self._show("waiting", placement.reason)
            except DcdeError as error:
                await self._show("waiting", await self._worth_waiting(error))
            except (_CancelWanted, StepNotDone):
                raise
            except Exception as error:
                log.exception("a step could not be prepared", extra=self._names)
                await self._fail(_unforeseen(error))
                raise StepNotDone from error
            await self._pause(wake)

    async def _worth_waiting(self, error: DcdeError) -> str:
        """Return why the step waits after an error; one that waiting cannot help fails the step."""
        if isinstance(error, LinkError | BrokerUnreachable):
            return str(error)
        if error.retry and not isinstance(error, DiskFull) and self._checksum_failures < MOST_ATTEMPTS:
            self._checksum_failures += 1
            return f"Tries again: {error}"
        await self._fail(error)
        raise StepNotDone

    async def _place(self) -> Placement:
        knowledge = await self._office.sites.knowledge()
        run, plan, row = self._run.row, self._plan, self._row
        names = list(knowledge.sites) if row.wish == AUTO else [knowledge.site(row.wish).name]
        missing = await self._office.files.missing_bytes(run.project, plan, names)
        candidates = []
        for name in names:
            need = need_of(plan, run)
            decision = knowledge.decide(name, need)
            trouble = self._office.sites.trouble(name)
            queue = await self._office.sites.measured(name) if row.wish == AUTO and decision.allowed else None
            candidates.append(Candidate(knowledge.sites[name], decision, trouble, missing[name], queue))
        if row.wish == AUTO:
            return place_auto(candidates, run.partition, plan)
        return place_wished(candidates[0], run.partition, plan)

    def _spec(self, site: str) -> JobSpec:
        run, sites = self._run.row, self._office.sites
        allocations = sites.known().allocations(site)
        return JobSpec.from_step(
            self._plan,
            sites.known().site(site),
            project=run.project,
            allocation=run.allocation or next(iter(allocations), None),
            partition=run.partition,
        )

    async def _bring(self, placement: Placement) -> None:
        site = str(placement.site)
        self._row.site = site
        await self._show("moving", placement.reason)

        def progress(done: int, _total: int) -> None:
            self._row.detail["bytes_moved"] = done
            self._tell()

        work = self._office.files.bring(self._run.row, self._run.plan, self._plan, site, progress)
        await self._unless_cancelled(work)

    async def _begin(self, placement: Placement, spec: JobSpec) -> Attempt:
        row = self._row
        attempt = await self._office.ledger.begin_attempt(
            row.run, row.id, str(placement.site), self._run.row.project, spec.model_dump_json()
        )
        row.attempt = attempt.number
        row.queued_at, row.started, row.ended = time.time(), None, None
        await self._show("queued", placement.reason)
        return attempt

    # the job

    async def _follow(self, attempt: Attempt, adopted: bool, wake: asyncio.Event) -> None:
        """Follow an attempt until it is proven to have ended, and write what that means for the step.

        Raises:
            StepNotDone: The step failed or was cancelled.
        """
        spec = JobSpec.model_validate_json(attempt.spec)
        while True:
            wake.clear()
            try:
                result = await self._job(attempt, spec, adopted, wake)
                await self._accept(attempt, result, wake)
                return
            except JobError as error:
                await self._job_ended_badly(attempt, error)
                return
            except SiteError as error:
                if not adopted:
                    # The site refused this very submission, so there is no job.
                    await self._fail(error, attempt)
                    raise StepNotDone from error
                await self._show("unknown", f"The job cannot be looked for now: {error}")
            except StepNotDone:
                raise
            except DcdeError as error:
                await self._show(
                    "unknown", f"The job cannot be seen now, which says nothing of the job itself: {error}"
                )
            except Exception as error:
                # Whatever it was, the job may be alive: nothing must be concluded about it.
                log.exception("a job could not be followed", extra=self._names)
                await self._show("unknown", f"{_unforeseen(error).message}; it looks for the job again.")
            adopted = True
            await self._pause(wake, heed_cancel=False)

    async def _job(self, attempt: Attempt, spec: JobSpec, adopted: bool, wake: asyncio.Event) -> JobResult:
        """Submit or adopt the job and follow it; when the run is to be cancelled, see that the job ends."""
        jobs = self._office.jobs(attempt.site)
        reached = asyncio.Event()

        def changed(status: JobStatus) -> None:
            if status.job_id:
                reached.set()
            self._job_changed(attempt, status)

        running = asyncio.ensure_future(jobs.run(attempt.key, spec, on_change=changed))
        # An attempt that an earlier process may have submitted must be seen at the site before it can be cancelled for
        # certain; a new one need not even be submitted.
        cancelling = asyncio.ensure_future(self._cancel_job(attempt, jobs, None if not adopted else reached))
        try:
            while not running.done():
                woken = asyncio.ensure_future(wake.wait())
                await asyncio.wait({running, woken}, return_when=asyncio.FIRST_COMPLETED)
                woken.cancel()
                wake.clear()
                if not running.done():
                    if self._office.jobs(attempt.site) is not jobs:
                        raise LinkError("the connection is being made anew", where=attempt.site, retry=True)
                    self._show_trouble(attempt.site)
            return await running
        finally:
            for task in (running, cancelling):
                task.cancel()
            await asyncio.gather(running, cancelling, return_exceptions=True)

    async def _cancel_job(self, attempt: Attempt, jobs: DurableJobs, reached: asyncio.Event | None) -> None:
        """Once the run is to be cancelled, cancel the job, again and again until its end is seen."""
        await self._run.cancel.wait()
        if reached is not None:
            await reached.wait()
        while True:
            self._row.why = "The run is being cancelled; waits until the site has ended the job."
            self._tell()
            try:
                await jobs.cancel(attempt.key)
            except DcdeError as error:
                log.warning("the job could not be cancelled yet: %s", error, extra={"job": attempt.key})
            await asyncio.sleep(LOOK_AGAIN)

    def _job_changed(self, attempt: Attempt, status: JobStatus) -> None:
        row = self._row
        state = _STATES[status.state]
        if state == "running" and row.started is None:
            row.started = time.time()
        if status.state != "submitting" and row.queued_at is None:
            row.queued_at = time.time()
        row.state = state
        if not self._run.cancel.is_set():
            row.why = _why(status, self._office.sites.trouble(attempt.site))
        detail = row.detail
        detail["job_id"] = status.job_id or detail.get("job_id")
        detail["slurm_state"], detail["node"] = status.slurm_state, status.node or detail.get("node")
        if status.progress:
            detail |= {k: status.progress[k] for k in ("fraction", "metrics", "rows") if status.progress.get(k)}
        self._office.ledger.post_step(
            row.run,
            row.id,
            state=row.state,
            why=row.why,
            started=row.started,
            queued_at=row.queued_at,
            detail=dict(detail),
        )
        if status.job_id and status.job_id != attempt.job_id:
            self._office.ledger.post_job(attempt.key, status.job_id)
        self._tell()

    def _show_trouble(self, site: str) -> None:
        """While the site is away, say so; the job itself goes on."""
        trouble = self._office.sites.trouble(site)
        if trouble and self._row.state in ("queued", "running"):
            self._row.state = "unknown"
            self._row.why = f"{trouble} The job goes on there."
            self._tell()

    async def _accept(self, attempt: Attempt, result: JobResult, wake: asyncio.Event) -> None:
        """Enter what the job made and accept it, as soon as the site answers."""
        files, pictures = await self._collected(attempt, result, wake)
        if not files:
            error = JobFailed("The job ended well, but none of its outputs are there.", where=self._plan.id)
            error.result = dict(result.result)
            raise error
        row = self._row
        fields = self._closing_fields("succeeded", f"Ran at {self._title(attempt.site)}.", result.result)
        fields["detail"] |= {"pictures": pictures, "fraction": 1.0, "job_id": result.job_id or row.detail.get("job_id")}
        await self._office.ledger.accept(attempt, self._run.row.project, files, fields)
        await self._apply(fields)

    async def _collected(
        self, attempt: Attempt, result: JobResult, wake: asyncio.Event
    ) -> tuple[list[FileFacts], list[dict[str, str]]]:
        """Return the outputs and pictures of a job that delivered; waits for the site as long as it takes."""
        while True:
            wake.clear()
            try:
                files = await self._office.files.outputs(self._run.row.project, self._plan, attempt.site)
                return files, await self._fetch_pictures(attempt, result.result)
            except DcdeError as error:
                self._row.why = f"The job has ended well; its outputs are entered when the site answers: {error}"
                self._tell()
            await self._pause(wake, heed_cancel=False)

    async def _fetch_pictures(self, attempt: Attempt, result: Any) -> list[dict[str, str]]:
        listed = _report(result).get("pictures") or []
        link = await self._office.sites.link_up(attempt.site)
        try:
            return await self._office.pictures.fetch(link, attempt.key, run_id(self._row.run), self._row.id, listed)
        except DiskFull as error:
            log.warning("the pictures cannot be kept: %s", error, extra=self._names)
            return []

    async def _job_ended_badly(self, attempt: Attempt, error: JobError) -> None:
        """Write what a bad end means. Returns only when a new attempt is to be made."""
        if isinstance(error, JobLost) and not self._run.cancel.is_set():
            tried = attempt.number - self._row.first_attempt + 1
            if tried < MOST_ATTEMPTS:
                fields = {"state": "waiting", "why": f"Attempt {attempt.number} was lost: {error.message}"}
                await self._office.ledger.end_attempt(attempt, "lost", fields)
                await self._apply(fields)
                return
            await self._fail(error, attempt, outcome="lost")
        elif isinstance(error, JobCancelled) or (isinstance(error, JobLost) and self._run.cancel.is_set()):
            wanted = self._run.cancel.is_set()
            why = "Cancelled, as you asked." if wanted else error.message
            await self._end("cancelled", why=why, attempt=attempt, error=None if wanted else error)
        else:
            await self._fail(error, attempt)
        raise StepNotDone from error

    # the end

    async def _fail(self, error: DcdeError, attempt: Attempt | None = None, *, outcome: str = "failed") -> None:
        result = getattr(error, "result", None) or {}
        shown: dict[str, Any] = error.to_json()
        pictures: list[dict[str, str]] = []
        if attempt is not None:
            with contextlib.suppress(DcdeError):
                link = await self._office.sites.link_up(attempt.site, timeout=10)
                shown["stderr"] = "\n".join(await last_lines(link, attempt.key))
                pictures = await self._fetch_pictures(attempt, result)
        fields = self._closing_fields("failed", error.message, result)
        fields["detail"] |= {"error": shown, "pictures": pictures}
        fields["detail"]["problems"] = fields["detail"].get("problems") or [error.message]
        await self._write_end(attempt, outcome, fields)

    async def _end(
        self, state: str, *, why: str, attempt: Attempt | None = None, error: DcdeError | None = None
    ) -> None:
        """Write a step's end that is no failure of the application."""
        fields = self._closing_fields(state, why, getattr(error, "result", None) or {})
        if error:
            fields["detail"]["error"] = error.to_json()
        await self._write_end(attempt, state, fields)

    async def _write_end(self, attempt: Attempt | None, outcome: str, fields: dict[str, Any]) -> None:
        if attempt is None:
            await self._office.ledger.update_step(self._row.run, self._row.id, **fields)
        else:
            await self._office.ledger.end_attempt(attempt, outcome, fields)
        await self._apply(fields)

    def _closing_fields(self, state: str, why: str, result: Any) -> dict[str, Any]:
        """Return the fields of a step that ended, with what the job's result says of times, rows and metrics."""
        report = _report(result)
        detail = dict(self._row.detail)
        detail |= {name: report[name] for name in ("metrics", "rows") if report.get(name)}
        detail["problems"] = [str(p) for p in result.get("problems") or []]
        detail["node"] = result.get("host") or detail.get("node")
        started = result.get("started") or self._row.started
        ended = result.get("ended") or time.time()
        return {"state": state, "why": why, "started": started, "ended": ended, "detail": detail}

    async def _apply(self, fields: dict[str, Any]) -> None:
        for name, value in fields.items():
            setattr(self._row, name, value)
        log.info("step %s: %s", self._row.state, self._row.why, extra=self._names)
        self._tell()
        if self._row.state in FINISHED:
            await self._office.step_ended(self._run, self._row)

    # small things

    def _title(self, site: str) -> str:
        return self._office.sites.title(site)

    @property
    def _names(self) -> dict[str, str]:
        return {"run": run_id(self._row.run), "step": self._row.id}

    def _tell(self) -> None:
        self._office.tell_step(self._run, self._row)

    async def _show(self, state: str, why: str) -> None:
        row = self._row
        if (row.state, row.why) != (state, why):
            row.state, row.why = state, why
            await self._office.ledger.update_step(
                row.run,
                row.id,
                state=state,
                why=why,
                site=row.site,
                queued_at=row.queued_at,
                started=row.started,
                ended=row.ended,
            )
        self._tell()

    def _stop_if_cancelled(self) -> None:
        if self._run.cancel.is_set():
            raise _CancelWanted

    async def _pause(self, wake: asyncio.Event, *, heed_cancel: bool = True) -> None:
        """Wait until something changes, the run is cancelled, or some seconds have passed."""
        waits = [asyncio.ensure_future(wake.wait())]
        if heed_cancel:
            waits.append(asyncio.ensure_future(self._run.cancel.wait()))
        await asyncio.wait(waits, timeout=LOOK_AGAIN, return_when=asyncio.FIRST_COMPLETED)
        for wait in waits:
            wait.cancel()

    async def _unless_cancelled(self, work: Awaitable[None]) -> None:
        """Do something that may take long, but give it up when the run is cancelled."""
        doing = asyncio.ensure_future(work)
        wish = asyncio.ensure_future(self._run.cancel.wait())
        try:
            await asyncio.wait({doing, wish}, return_when=asyncio.FIRST_COMPLETED)
            if not doing.done():
                raise _CancelWanted
            await doing
        finally:
            for task in (doing, wish):
                task.cancel()
            await asyncio.gather(doing, wish, return_exceptions=True)


def need_of(plan: StepPlan, run: RunRow) -> Need:
    """Return what a step needs of a site, for the decision."""
    return Need(
        "submit",
        partition=run.partition,
        allocation=run.allocation,
        walltime_minutes=plan.resources.walltime_minutes,
        nodes=plan.resources.nodes,
    )


def _unforeseen(error: Exception) -> RunnerError:
    name = type(error).__name__
    return RunnerError(f"The runner met an unforeseen error ({name})", remedy="Its log has more; tell the operators.")


def _why(status: JobStatus, trouble: str | None) -> str:
    """Return one sentence on a job's state."""
    if status.state == "unknown":
        return f"{trouble or status.reason or 'The site has not told the state of the job.'} The job goes on there."
    if status.state == "submitting":
        return trouble or status.reason or "Being submitted."
    if status.state == "pending":
        return f"Waits in the queue ({status.reason})." if status.reason else "Waits in the queue."
    return status.reason


def _report(result: Any) -> dict[str, Any]:
    report = result.get("report")
    return report if isinstance(report, dict) else {}
