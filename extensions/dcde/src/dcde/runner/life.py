"""The life of one step: prepared, its job followed, its outputs entered; see docs/explanation/run-life.md.

A new attempt is made only when the earlier one is proven dead. Whatever the site's state, a step waits and says why: a
lost connection is never a failure.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Mapping
from typing import Any

from dcde.data.ledger import Attempt, FileFacts
from dcde.errors import DcdeError, JobCancelled, JobError, JobFailed, JobLost, LinkError, SiteError
from dcde.jobs.durable import DurableJobs
from dcde.jobs.spec import JobSpec
from dcde.jobs.status import JobResult, JobStatus
from dcde.runner import desk as desks
from dcde.runner.desk import FINISHED, LiveRun, Office, StepDesk, StepNotDone, unforeseen
from dcde.runner.preparing import Preparation

log = logging.getLogger(__name__)

MOST_ATTEMPTS = 3
"""So often a step is tried when its job is lost, before a person must resume it."""

EARLY_PICTURES = 10.0
"""Seconds between two looks at the pictures of a job that is still running."""

_STATES = {"submitting": "queued", "pending": "queued", "running": "running", "unknown": "unknown"}


class StepLife:
    """Carries one step to its end.

    Args:
        office: The engine.
        run: The run.
        step_id: The step of it.
    """

    def __init__(self, office: Office, run: LiveRun, step_id: str) -> None:
        self._desk = StepDesk(office, run, step_id)
        self._row = self._desk.row
        self._office = office
        self._early: asyncio.Task[None] | None = None
        self._early_again = 0.0

    async def perform(self) -> dict[str, str]:
        """Carry the step to its end; returns when it succeeded.

        Raises:
            StepNotDone: It failed or was cancelled; the ledger says why.
        """
        if self._row.state in FINISHED:
            raise StepNotDone
        preparation = Preparation(self._desk)
        with self._office.wakes() as wake:
            found = await self._office.ledger.live_attempt(self._row.run, self._row.id)
            while True:
                attempt = found or await preparation.attempt(wake)
                await self._follow(attempt, found is not None, wake)
                if self._row.state == "succeeded":
                    return {"step": self._row.id}
                found = None

    async def _follow(self, attempt: Attempt, adopted: bool, wake: asyncio.Event) -> None:
        """Follow an attempt until it is proven to have ended, and write what that means for the step.

        Args:
            attempt: The attempt.
            adopted: Whether an earlier process may have submitted it.
            wake: Is set when something changes at any site.

        Raises:
            StepNotDone: The step failed or was cancelled.
        """
        spec = JobSpec.model_validate_json(attempt.spec)
        desk = self._desk
        while True:
            wake.clear()
            try:
                result = await self._submitted(attempt, spec, adopted, wake)
                if result is not None:
                    await self._accept(attempt, result, wake)
                return
            except StepNotDone:
                raise
            except DcdeError as error:
                desk.show("unknown", f"The job cannot be seen now, which says nothing of the job itself: {error}")
            except Exception as error:
                # Whatever it was, the job may be alive: nothing must be concluded about it.
                log.exception("a job could not be followed", extra=desk.names)
                desk.show("unknown", f"{unforeseen(error).message}; it looks for the job again.")
            adopted = True
            await desk.pause(wake, heed_cancel=False)

    async def _submitted(self, attempt: Attempt, spec: JobSpec, adopted: bool, wake: asyncio.Event) -> JobResult | None:
        """Return the result of an attempt's job, or None when it was lost and a new attempt is to be made."""
        try:
            return await self._job(attempt, spec, adopted, wake)
        except JobError as error:
            await self._job_ended_badly(attempt, error)
            return None
        except SiteError as error:
            if adopted:
                # An earlier submission may have gone through, whatever the site says to this one.
                raise
            await self._desk.fail(error, attempt)
            raise StepNotDone from error

    async def _job(self, attempt: Attempt, spec: JobSpec, adopted: bool, wake: asyncio.Event) -> JobResult:
        """Submit or adopt the job and follow it; when the run is to be cancelled, see that the job ends."""
        jobs = self._office.jobs(attempt.site)
        reached = asyncio.Event()
        if not adopted:
            reached.set()

        def changed(status: JobStatus) -> None:
            if status.job_id:
                reached.set()
            self._job_changed(attempt, status)

        running = asyncio.ensure_future(jobs.run(attempt.key, spec, on_change=changed))
        cancelling = asyncio.ensure_future(self._cancel_job(attempt, jobs, reached))
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
            tasks = [task for task in (running, cancelling, self._early) if task is not None]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _cancel_job(self, attempt: Attempt, jobs: DurableJobs, reached: asyncio.Event) -> None:
        """Once the run is to be cancelled, cancel the job, again and again until its end is seen.

        An attempt that an earlier process may have submitted must be seen at the site (`reached`) before it can be
        cancelled for certain; a new one need not even be submitted.
        """
        await self._desk.run.cancel.wait()
        await reached.wait()
        while True:
            self._row.why = "The run is being cancelled; waits until the site has ended the job."
            self._desk.tell()
            try:
                await jobs.cancel(attempt.key)
            except DcdeError as error:
                log.warning("the job could not be cancelled yet: %s", error, extra={"job": attempt.key})
            await asyncio.sleep(desks.LOOK_AGAIN)

    def _job_changed(self, attempt: Attempt, status: JobStatus) -> None:
        row = self._row
        state = _STATES[status.state]
        if state == "running" and row.started is None:
            row.started = time.time()
        if status.state != "submitting" and row.queued_at is None:
            row.queued_at = time.time()
        detail = row.detail
        detail["job_id"] = status.job_id or detail.get("job_id")
        detail["slurm_state"], detail["node"] = status.slurm_state, status.node or detail.get("node")
        if status.progress:
            detail |= {k: status.progress[k] for k in ("fraction", "metrics", "rows") if status.progress.get(k)}
            self._fetch_early(attempt, status.progress)
        if status.job_id and status.job_id != attempt.job_id:
            self._office.ledger.post_job(attempt.key, status.job_id)
        cancelling = self._desk.run.cancel.is_set()
        self._desk.show(state, row.why if cancelling else _why(status, self._office.sites.trouble(attempt.site)))

    def _fetch_early(self, attempt: Attempt, progress: Mapping[str, Any]) -> None:
        """Begin to fetch the pictures of a job that is still running, now and then and one fetch at a time."""
        busy = self._early is not None and not self._early.done()
        if progress.get("pictures") and not busy and time.monotonic() >= self._early_again:
            self._early = asyncio.create_task(self._early_pictures(attempt, progress))

    async def _early_pictures(self, attempt: Attempt, progress: Mapping[str, Any]) -> None:
        try:
            async with asyncio.timeout(desks.LAST_LOOK):
                pictures = await self._desk.fetch_pictures(attempt, {"report": dict(progress)})
        except (DcdeError, TimeoutError):
            return  # They come at the end in any case.
        finally:
            self._early_again = time.monotonic() + EARLY_PICTURES
        self._row.detail["pictures"] = pictures
        self._desk.tell()

    def _show_trouble(self, site: str) -> None:
        """While the site is away, say so; the job itself goes on."""
        trouble = self._office.sites.trouble(site)
        if trouble and self._row.state in ("queued", "running"):
            self._desk.show("unknown", f"{trouble} The job goes on there.")

    async def _accept(self, attempt: Attempt, result: JobResult, wake: asyncio.Event) -> None:
        """Enter what the job made and accept it, as soon as the site answers."""
        files, pictures = await self._collected(attempt, result, wake)
        if not files:
            error = JobFailed("The job ended well, but none of its outputs are there.", where=self._row.id)
            error.result = dict(result.result)
            await self._desk.fail(error, attempt)
            raise StepNotDone
        why = f"Ran at {self._office.sites.title(attempt.site)}."
        fields = self._desk.closing_fields("succeeded", why, result.result)
        job_id = result.job_id or self._row.detail.get("job_id")
        fields["detail"] |= {"pictures": pictures, "fraction": 1.0, "job_id": job_id}
        await self._office.ledger.accept(attempt, self._desk.run.row.project, files, fields)
        await self._desk.apply(fields)

    async def _collected(
        self, attempt: Attempt, result: JobResult, wake: asyncio.Event
    ) -> tuple[list[FileFacts], list[dict[str, str]]]:
        """Return the outputs and pictures of a job that delivered; waits for the site as long as it takes."""
        desk = self._desk
        while True:
            wake.clear()
            try:
                files = await self._office.files.outputs(desk.run.row.project, desk.plan, attempt.site)
                return files, await desk.fetch_pictures(attempt, result.result)
            except DcdeError as error:
                self._row.why = f"The job has ended well; its outputs are entered when the site answers: {error}"
                desk.tell()
            await desk.pause(wake, heed_cancel=False)

    async def _job_ended_badly(self, attempt: Attempt, error: JobError) -> None:
        """Write what a bad end means. Returns only when a new attempt is to be made."""
        wanted = self._desk.run.cancel.is_set()
        if isinstance(error, JobCancelled) or (isinstance(error, JobLost) and wanted):
            why = "Cancelled, as you asked." if wanted else error.message
            await self._desk.cancelled(why, attempt, None if wanted else error)
        elif not isinstance(error, JobLost):
            await self._desk.fail(error, attempt)
        elif attempt.number - self._row.first_attempt + 1 < MOST_ATTEMPTS:
            fields = {"state": "waiting", "why": f"Attempt {attempt.number} was lost: {error.message}"}
            await self._office.ledger.end_attempt(attempt, "lost", fields)
            await self._desk.apply(fields)
            return
        else:
            await self._desk.fail(error, attempt, outcome="lost")
        raise StepNotDone from error


def _why(status: JobStatus, trouble: str | None) -> str:
    """Return one sentence on a job's state."""
    if status.state == "unknown" and trouble:
        return f"{trouble} The job goes on there."
    if status.state == "unknown":
        reason = status.reason or "The site has not told the state of the job."
        return f"{reason} If that stays so, cancel the run and resume it: that makes a new attempt."
    if status.state == "submitting":
        return trouble or status.reason or "Being submitted."
    if status.state == "pending":
        return f"Waits in the queue ({status.reason})." if status.reason else "Waits in the queue."
    return status.reason
