"""Following batch jobs by their keys through lost connections, restarts and everything else.

One attempt of a step is one batch job. Submitting is idempotent at the site's end, so that `DurableJobs.run` may be
called again for a key at any time, also by a new process: it attaches. Not seeing a job is `unknown`, never `failed`.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import logging
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Protocol, TypeVar

from dcde.errors import DcdeError, JobCancelled, JobError, JobLost, LinkError, LinkLost, LinkRefused
from dcde.jobs.spec import JobSpec, checked_key
from dcde.jobs.status import (
    SECOND_START,
    Answer,
    JobResult,
    JobStatus,
    end_with_result,
    end_without_result,
)

log = logging.getLogger(__name__)
T = TypeVar("T")

POLL_LIMIT_S = 15.0
"""After so long without an answer the jobs of a site are shown as unknown."""


class JobLink(Protocol):
    """What is needed of a link to a site."""

    async def call(self, op: str, *, timeout: float | None = 60, **args: Any) -> Any:
        """Ask the agent at the site; LinkLost when there is no answer."""

    async def up(self, timeout: float | None = None) -> None:
        """Wait until the link is up; LinkRefused when the site or the broker refuses."""


@dataclass
class _Followed:
    """One key that somebody waits for."""

    key: str
    on_change: Callable[[JobStatus], None]
    end: asyncio.Future[JobResult]
    status: JobStatus
    submitted: bool = False
    ended_at: float | None = None
    cancelled: asyncio.Event = field(default_factory=asyncio.Event)

    def tell(self, status: JobStatus) -> None:
        """Pass a status on when it is news; an error of the listener is its own affair."""
        if status == self.status:
            return
        self.status = status
        try:
            self.on_change(status)
        except Exception:
            log.exception("a listener failed", extra={"job": self.key})


class DurableJobs:
    """All durable jobs of one person at one site; one poll for all of them goes over the link at a time.

    Args:
        link: The link to the site.
        shortest, longest: The interval between two polls, in seconds: short after news, longer and longer without any.
        grace: How long after a job's end its result may stay out of sight (as it does on NFS), in seconds.
    """

    def __init__(self, link: JobLink, *, shortest: float = 0.5, longest: float = 2.0, grace: float = 20.0) -> None:
        self._link = link
        self._shortest = shortest
        self._longest = longest
        self._grace = grace
        self._followed: dict[str, _Followed] = {}
        self._poller: asyncio.Task[None] | None = None
        self._news = asyncio.Event()

    async def run(self, key: str, step: JobSpec, *, on_change: Callable[[JobStatus], None]) -> JobResult:
        """Submit the job of this key, or adopt it if it exists, and follow it to its end.

        Cancelling the caller only ends the following: the job lives on and can be adopted again.

        Raises:
            JobFailed: It ran and did not deliver; `result` holds its result.json when there is one.
            JobLost: It is proven dead and left nothing: a new attempt (another key) may be made.
            JobCancelled: Somebody wanted its end.
            SiteError: The site refused the submission, so that there is no job.
        """
        checked_key(key)
        if key in self._followed:
            raise ValueError(f"{key} is followed already")
        end: asyncio.Future[JobResult] = asyncio.get_running_loop().create_future()
        followed = _Followed(key, on_change, end, JobStatus(key, "unknown"))
        self._followed[key] = followed
        try:
            await self._submit(followed, step)
            self._watch()
            return await end
        finally:
            del self._followed[key]

    async def cancel(self, key: str) -> None:
        """End the job of this key, whatever state it is in; waits through a lost link.

        `run` then raises JobCancelled, unless the job had delivered its result before.
        """
        checked_key(key)
        followed = self._followed.get(key)
        if followed is not None:
            followed.cancelled.set()
            if not followed.submitted:
                return  # `_submit` sees to it, as it alone knows whether anything has reached the site
        await self._patiently(lambda: self._link.call("cancel", key=key))
        self._news.set()

    async def close(self) -> None:
        """Stop following; no job is touched."""
        if self._poller is not None:
            self._poller.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._poller
            self._poller = None

    # -- submitting ------------------------------------------------------------------------------------------------

    async def _submit(self, followed: _Followed, step: JobSpec) -> None:
        key = followed.key
        files, options = step.files(key), step.batch_options(key).model_dump()
        followed.tell(JobStatus(key, "submitting"))
        tried = False

        async def attempt() -> Any:
            nonlocal tried
            await self._until_up(followed)
            # From here on it is not certain that nothing has reached the site, until the site has answered.
            tried = True
            return await self._link.call("submit", key=key, files=files, options=options)

        def doubtful(error: DcdeError) -> None:
            if followed.cancelled.is_set() and not tried:
                raise JobCancelled("The job was cancelled before it was submitted.", where=key) from error
            followed.tell(JobStatus(key, "submitting", reason=str(error)))

        if followed.cancelled.is_set():
            raise JobCancelled("The job was cancelled before it was submitted.", where=key)
        answer = await self._patiently(attempt, doubtful)
        followed.submitted = True
        log.info("job %s (%s)", answer.get("how"), answer.get("job_id"), extra={"job": key})
        followed.tell(JobStatus(key, "pending", job_id=str(answer.get("job_id") or "") or None))
        if followed.cancelled.is_set():
            await self._patiently(lambda: self._link.call("cancel", key=key))

    async def _until_up(self, followed: _Followed) -> None:
        """Wait for the link, or for the wish to cancel, in which case LinkLost is raised."""
        waits = [asyncio.ensure_future(self._link.up()), asyncio.ensure_future(followed.cancelled.wait())]
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
            if not waits[0].done():
                raise LinkLost("the site cannot be reached")
            await waits[0]
        finally:
            for wait in waits:
                wait.cancel()
            await asyncio.gather(*waits, return_exceptions=True)

    async def _patiently(
        self, attempt: Callable[[], Awaitable[T]], doubtful: Callable[[DcdeError], None] | None = None
    ) -> T:
        """Do something until the site has answered it; errors that no waiting can help are raised."""
        pause = self._shortest
        while True:
            try:
                return await attempt()
            except DcdeError as error:
                # A refused link says nothing of the job either: it may be allowed again, and the job is still there.
                patience = isinstance(error, LinkLost | LinkRefused) or (
                    error.retry and (isinstance(error, LinkError) or error.code == "SchedulerError")
                )
                if not patience:
                    raise
                if doubtful is not None:
                    doubtful(error)
            await asyncio.sleep(pause)
            pause = min(pause * 1.5, 5 * self._longest)

    # -- polling ---------------------------------------------------------------------------------------------------

    def _watch(self) -> None:
        """Make sure that the loop runs, and that it looks at once."""
        self._news.set()
        if self._poller is None or self._poller.done():
            self._poller = asyncio.create_task(self._poll_loop())

    async def _poll_loop(self) -> None:
        interval = self._shortest
        while True:
            watched = [f for f in self._followed.values() if f.submitted and not f.end.done()]
            if not watched:
                return
            self._news.clear()
            news = await self._poll(watched)
            interval = self._shortest if news else min(interval * 1.3, self._longest)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._news.wait(), interval)

    async def _poll(self, watched: list[_Followed]) -> bool:
        """Ask for all keys at once and act on the answers; return whether anything has changed."""
        before = [f.status for f in watched]
        try:
            answers = await self._link.call("poll", timeout=POLL_LIMIT_S, keys=[f.key for f in watched])
        except DcdeError as error:
            for followed in watched:
                followed.tell(replace(followed.status, state="unknown", reason=str(error)))
            with contextlib.suppress(DcdeError):
                await self._link.up(timeout=30)
            return False
        for followed in watched:
            data = answers.get(followed.key) if isinstance(answers, Mapping) else None
            try:
                await self._act(followed, Answer.read(data if isinstance(data, Mapping) else {}))
            except LinkError as error:
                followed.tell(replace(followed.status, state="unknown", reason=str(error)))
            except Exception as error:  # one job's trouble must not stop the following of the others
                log.exception("a job cannot be followed", extra={"job": followed.key})
                if not followed.end.done():
                    followed.end.set_exception(error)
        return any(f.end.done() or f.status != status for f, status in zip(watched, before, strict=True))

    async def _act(self, followed: _Followed, answer: Answer) -> None:
        if not answer.ended:
            followed.ended_at = None
            await self._act_alive(followed, answer)
            return
        now = time.monotonic()
        followed.ended_at = followed.ended_at or now
        asked = followed.cancelled.is_set()
        waited = asked or now - followed.ended_at >= self._grace
        if answer.result is not None:
            # The job saw a signal, but the scheduler has not yet said why: wait for its word.
            if answer.result.get("ended_by") and not asked and _undecided(answer) and not waited:
                return
            self._end(followed, end_with_result(followed.key, answer, asked_to_cancel=asked))
            return
        if not waited:
            reason = "The job has ended; its result is not to be seen yet."
            followed.tell(replace(answer.status(followed.key), state="running", reason=reason))
            return
        if answer.exit_code == SECOND_START and await self._other_start(followed, answer):
            return
        words = await self._last_words(followed.key)
        self._end(followed, end_without_result(followed.key, answer, last_words=words, asked_to_cancel=asked))

    async def _act_alive(self, followed: _Followed, answer: Answer) -> None:
        if followed.cancelled.is_set() and answer.gone:
            self._end(followed, JobCancelled("The job was cancelled; the site no longer knows it.", where=followed.key))
            return
        status = answer.status(followed.key)
        if status.job_id is None:
            status = replace(status, job_id=followed.status.job_id)
        followed.tell(status)

    def _end(self, followed: _Followed, end: JobResult | JobError) -> None:
        if followed.end.done():
            return
        if isinstance(end, JobResult):
            followed.end.set_result(end)
        else:
            followed.end.set_exception(end)

    async def _other_start(self, followed: _Followed, answer: Answer) -> bool:
        """Handle a job that found the attempt claimed; True when the claim belongs to a job that may still be alive."""
        owner = await self._read_json(f"jobs/{followed.key}/claim/owner.json")
        if owner.get("job_id") == answer.job_id:
            # The scheduler started the same job again, so its first start is dead, and it left no result.
            self._end(
                followed, JobLost("The site started the job a second time after it had died.", where=followed.key)
            )
            return True
        if not owner:
            return False
        reason = f"Another start of it, job {owner.get('job_id')} on {owner.get('host')}, is at work."
        followed.tell(JobStatus(followed.key, "unknown", answer.slurm_state, reason, answer.job_id))
        return True

    async def _read_json(self, path: str) -> dict[str, Any]:
        with contextlib.suppress(ValueError):
            found = json.loads(await self._tail(path, 4000) or "{}")
            if isinstance(found, dict):
                return found
        return {}

    async def _last_words(self, key: str) -> str:
        """Return the end of the error output, or of the scheduler's own log when that is empty."""
        for name in ("stderr", "batch.log"):
            if text := (await self._tail(f"jobs/{key}/{name}", 1500)).strip():
                return text
        return ""

    async def _tail(self, path: str, size: int) -> str:
        """Return the last `size` bytes of a file of the records as text; nothing when there is no such file."""
        try:
            answer = await self._link.call("tail", path=path, root="records", offset=-size, limit=size)
        except LinkError:
            raise
        except DcdeError:
            return ""
        return base64.b64decode(answer["data_base64"]).decode("utf-8", "replace")


def _undecided(answer: Answer) -> bool:
    """Tell whether the scheduler's word does not yet say how the job ended."""
    return answer.rule is None or answer.rule.state != "ended"
