"""Runs: launched, listed, cancelled, resumed, and rebuilt from the ledger when the runner starts."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from functools import partial
from pathlib import Path
from typing import Any

from dcde_models.logs import request_id
from pydantic import ValidationError

from dcde.data.ledger import Ledger, RunRow, StepRow
from dcde.errors import InvalidParameter, NotFound, RunnerBusy, UnknownName
from dcde.jobs.durable import DurableJobs
from dcde.link.link import Link
from dcde.pipelines.model import RunPlan, StepPlan
from dcde.runner.arguments import Launch
from dcde.runner.desk import FINISHED, LiveRun, StepNotDone
from dcde.runner.events import Events
from dcde.runner.flow import Flow
from dcde.runner.inputs import ProjectFiles
from dcde.runner.keeper import Keeper
from dcde.runner.life import StepLife
from dcde.runner.planning import Planner
from dcde.runner.records import PictureStore, read_log
from dcde.runner.sites import SiteBook
from dcde.runner.views import run_id, run_view, step_view

log = logging.getLogger(__name__)


class Engine:
    """Carries all runs of a person.

    Args:
        ledger: The ledger, open.
        sites: The sites with their links.
        files: The projects' files.
        planner: Makes plans from templates.
        pictures: Where pictures are kept.
        events: Where changes are told.
        keeper: Is told which runs are unfinished.
        folder: A private folder for Parsl.
        make_jobs: Makes what follows the durable jobs over a link.
    """

    def __init__(
        self,
        ledger: Ledger,
        sites: SiteBook,
        files: ProjectFiles,
        planner: Planner,
        pictures: PictureStore,
        events: Events,
        keeper: Keeper,
        folder: Path,
        make_jobs: Callable[[Link], DurableJobs] = DurableJobs,
    ) -> None:
        self.ledger = ledger
        self.sites = sites
        self.files = files
        self.pictures = pictures
        self._planner = planner
        self._events = events
        self._keeper = keeper
        self._make_jobs = make_jobs
        self._flow = Flow(self._perform, self._succeeded, folder)
        self._runs: dict[int, LiveRun] = {}
        self._tasks: dict[str, Future[Any]] = {}
        self._performing: dict[str, asyncio.Event] = {}
        self._jobs: dict[str, tuple[Link, DurableJobs]] = {}
        self._wakes: set[asyncio.Event] = set()
        self._launching = asyncio.Lock()
        self._closing = False
        sites.on_change(self._site_changed)

    async def start(self) -> None:
        """Rebuild from the ledger: every unfinished run goes on where it was."""
        for row in await self.ledger.runs():
            try:
                run = LiveRun(row, RunPlan.model_validate(row.plan))
            except ValidationError:
                log.exception(
                    "a run of another version cannot be read; it is left alone", extra={"run": run_id(row.id)}
                )
                continue
            self._runs[row.id] = run
            if row.state in FINISHED:
                continue
            if row.wanted == "cancel":
                run.cancel.set()
            for step in row.steps:
                if step.state in ("queued", "running"):
                    step.state, step.why = "unknown", "The runner was started again; it looks for the job."
                elif step.state == "moving":
                    step.state, step.why = "waiting", "The runner was started again."
            await self._cascade(run)
            await self._cancel_idle_steps(run)
            await self._settle(run)
        unfinished = [run for run in self._runs.values() if run.row.state not in FINISHED]
        self._tell_keeper()
        if unfinished:
            await self._flow.open()
            for run in unfinished:
                self._enlist(run)

    async def close(self) -> None:
        """Stop following. No job is touched: the next runner adopts them."""
        self._closing = True
        await self._flow.close()
        for _, jobs in self._jobs.values():
            await jobs.close()

    # what people ask for

    async def launch(self, wish: Launch) -> dict[str, Any]:
        """Start a run and return it; the same token again returns the same run and starts nothing.

        Raises:
            UnknownName, InvalidParameter, TemplateError, NotAllowed, NotFound: It cannot be; nothing was stored.
        """
        async with self._launching:
            if wish.token is not None and (known := await self.ledger.run_of_token(wish.token)) is not None:
                return self._view(self._runs[known])
            first_job = 1 + (await self.ledger.jobs_in_project(wish.project) if wish.project else 0)
            planned = await self._planner.plan(wish, first_job)
            for raw in planned.plan.raw:
                await self.files.check_raw(raw)
            await self._flow.open()
            row = await self.ledger.add_run(
                template=planned.plan.template,
                title=planned.title,
                project=wish.project,
                parameters=planned.parameters,
                plan=planned.plan.model_dump(mode="json"),
                wishes=planned.wishes,
                allocation=wish.allocation,
                partition=wish.partition,
                token=wish.token,
            )
            run = LiveRun(row, planned.plan)
            self._runs[row.id] = run
        log.info("run launched", extra={"run": run_id(row.id)})
        self._tell_keeper()
        self._enlist(run)
        self._tell_run(run)
        return self._view(run)

    async def cancel(self, name: str) -> dict[str, Any]:
        """Want a run to end: its jobs are cancelled for certain, as soon as their sites answer."""
        run = self._run(name)
        if run.row.state not in FINISHED and not run.cancel.is_set():
            await self.ledger.update_run(run.row.id, wanted="cancel", reason="The run is being cancelled.")
            run.row.wanted, run.row.reason = "cancel", "The run is being cancelled."
            run.cancel.set()
            await self._cancel_idle_steps(run)
            await self._settle(run)
            self._tell_run(run)
        return self._view(run)

    async def resume(self, name: str) -> dict[str, Any]:
        """Make new attempts of the failed and cancelled steps of a run; those that succeeded are kept."""
        run = self._run(name)
        if run.cancel.is_set() and run.row.state not in FINISHED:
            raise RunnerBusy(
                "the run is still being cancelled", where=name, remedy="Try again in a moment.", retry=True
            )
        again = [step for step in run.row.steps if step.state in ("failed", "cancelled")]
        if not again:
            raise InvalidParameter("no step of this run failed or was cancelled", where=name)
        # A step whose earlier life is just ending must have ended before it begins a new one.
        ending = [self._performing.get(self._key(run, step)) for step in again]
        await asyncio.gather(*(ended.wait() for ended in ending if ended))
        await self.ledger.reopen(run.row.id, [step.id for step in again])
        run.cancel.clear()
        fresh = next(row for row in await self.ledger.runs() if row.id == run.row.id)
        run.row.state, run.row.reason, run.row.wanted, run.row.ended = "running", "", "run", None
        for step in again:
            step.__dict__.update(next(s for s in fresh.steps if s.id == step.id).__dict__)
            self._tasks.pop(self._key(run, step), None)
        self._tell_keeper()
        await self._flow.open()
        self._enlist(run)
        await self._settle(run)
        self._tell_run(run)
        return self._view(run)

    async def log(self, name: str, step: str, stream: str, offset: int) -> dict[str, Any]:
        """Return text of the log of a step's newest attempt, and the offset to go on from."""
        row = self._step(name, step)
        attempt = await self.ledger.last_attempt(row.run, row.id)
        if attempt is None:
            return {"text": "", "offset": 0}
        return await read_log(await self.sites.link_up(attempt.site), attempt.key, stream, offset)

    async def picture(self, name: str, step: str, picture: str) -> tuple[bytes, str]:
        """Return a picture of a step as PNG, and its title."""
        row = self._step(name, step)
        for known in row.detail.get("pictures", []):
            if known["name"] == picture:
                data = await asyncio.to_thread(self.pictures.picture, name, step, picture)
                return data, str(known["title"])
        raise NotFound("there is no such picture", where=f"{name}/{step}/{picture}")

    def view(self, name: str) -> dict[str, Any]:
        """Return how one run is now; UnknownName when there is none of that name."""
        return self._view(self._run(name))

    def views(self) -> list[dict[str, Any]]:
        """Return how all runs are now, the newest first."""
        return [self._view(run) for _, run in sorted(self._runs.items(), reverse=True)]

    def _run(self, name: str) -> LiveRun:
        run = self._runs.get(int(name[1:]))
        if run is None:
            raise UnknownName(f"there is no run {name}", where=name, remedy="`dcde runs` lists them all.")
        return run

    def _step(self, name: str, step: str) -> StepRow:
        run = self._run(name)
        for row in run.row.steps:
            if row.id == step:
                return row
        known = ", ".join(row.id for row in run.row.steps)
        raise UnknownName(f"there is no step {step!r} in {name}", where=name, remedy=f"Its steps: {known}.")

    # the graph

    def _enlist(self, run: LiveRun) -> None:
        """Hand the steps of a run that are still to be done to Parsl, with those that were done before them."""
        for plan in run.plan.steps:
            step = run.step(plan.id)
            key = self._key(run, step)
            before = [self._tasks.get(f"{run_id(run.row.id)}/{other}") for other in _needs(plan)]
            if key in self._tasks or step.state in ("failed", "cancelled") or None in before:
                continue
            future = self._flow.enlist(key, [f for f in before if f is not None])
            self._tasks[key] = future
            loop = asyncio.get_running_loop()
            future.add_done_callback(partial(self._task_ended, loop, run, step, future))

    def _task_ended(
        self, loop: asyncio.AbstractEventLoop, run: LiveRun, step: StepRow, future: Future[Any], _: Future[Any]
    ) -> None:
        """Notice, in whatever thread, when Parsl gave up a step that had no life of its own to say why."""
        error = future.exception()
        if error is not None and not self._closing:
            with contextlib.suppress(RuntimeError):  # the loop is closed already
                loop.call_soon_threadsafe(self._check_given_up, run, step, future, error)

    def _check_given_up(self, run: LiveRun, step: StepRow, future: Future[Any], error: BaseException) -> None:
        if self._tasks.get(self._key(run, step)) is future and step.state not in FINISHED and not self._closing:
            name = type(error).__name__
            log.error("a step was given up: %s", error, extra={"run": run_id(run.row.id), "step": step.id})
            step.state, step.why = (
                "unknown",
                f"The runner met an unforeseen error ({name}); it goes on when it is restarted.",
            )
            self._tell_step_now(run, step)

    def _succeeded(self, key: str) -> dict[str, str] | None:
        """Say for Parsl whether a step has succeeded already; called in a thread of Parsl's."""
        run, _, step = key.partition("/")
        live = self._runs[int(run[1:])]
        return {"step": step} if live.step(step).state == "succeeded" else None

    async def _perform(self, key: str) -> dict[str, str]:
        name, _, step = key.partition("/")
        if key in self._performing:
            raise RuntimeError(f"{key} is being performed already")
        ended = self._performing[key] = asyncio.Event()
        request_id.set("")
        try:
            return await StepLife(self, self._runs[int(name[1:])], step).perform()
        except StepNotDone:
            raise
        except Exception:
            log.exception("the life of a step ended with an unforeseen error", extra={"run": name, "step": step})
            raise
        finally:
            del self._performing[key]
            ended.set()

    @staticmethod
    def _key(run: LiveRun, step: StepRow) -> str:
        return f"{run_id(run.row.id)}/{step.id}"

    # what the life of a step needs

    def jobs(self, site: str) -> DurableJobs:
        """Return the durable jobs at a site; LinkRefused when there is no link."""
        link = self.sites.link(site)
        known = self._jobs.get(site)
        if known is None or known[0] is not link:
            self._jobs[site] = known = (link, self._make_jobs(link))
        return known[1]

    def tell_step(self, run: LiveRun, step: StepRow) -> None:
        """Tell watchers how a step is now, and keep the run's state in step with its steps'."""
        self._tell_step_now(run, step)
        state = _state_of(run.row)
        if state not in FINISHED and state != run.row.state:
            run.row.state = state
            self.ledger.post_run(run.row.id, state=state)
            self._tell_run(run)

    async def step_ended(self, run: LiveRun, step: StepRow) -> None:
        """Cancel what can no longer begin, and end the run when nothing of it is left to do."""
        if step.state != "succeeded":
            await self._cascade(run)
        await self._settle(run)

    @contextlib.contextmanager
    def wakes(self) -> Iterator[asyncio.Event]:
        """Give an event that is set whenever something changes at any site."""
        wake = asyncio.Event()
        self._wakes.add(wake)
        try:
            yield wake
        finally:
            self._wakes.discard(wake)

    def _site_changed(self, _site: str) -> None:
        for wake in self._wakes:
            wake.set()

    async def _cascade(self, run: LiveRun) -> None:
        """Cancel the steps that need one which failed or was cancelled."""
        for plan in run.plan.steps:
            step = run.step(plan.id)
            if step.state in FINISHED:
                continue
            blockers = [other for other in _needs(plan) if run.step(other).state in ("failed", "cancelled")]
            if blockers:
                blocker = run.step(blockers[0])
                how = "failed" if blocker.state == "failed" else "was cancelled"
                title = run.plan.step(blocker.id).title
                await self._cancel_step(run, step, f"Not begun, because the step {title} {how}.")

    async def _cancel_idle_steps(self, run: LiveRun) -> None:
        """In a run that is to be cancelled, cancel the steps that have no job and are not being performed."""
        if not run.cancel.is_set():
            return
        for step in run.row.steps:
            idle = step.state not in FINISHED and self._key(run, step) not in self._performing
            if idle and await self.ledger.live_attempt(step.run, step.id) is None:
                await self._cancel_step(run, step, "Cancelled before it began.")

    async def _cancel_step(self, run: LiveRun, step: StepRow, why: str) -> None:
        step.state, step.why, step.ended = "cancelled", why, time.time()
        await self.ledger.update_step(step.run, step.id, state=step.state, why=why, ended=step.ended)
        self._tell_step_now(run, step)

    async def _settle(self, run: LiveRun) -> None:
        """Bring a run's state in line with its steps'."""
        row, state = run.row, _state_of(run.row)
        if state == row.state:
            return
        row.state = state
        if state in FINISHED:
            row.reason = _reason_of(run)
            row.ended = time.time()
            log.info("run %s", state, extra={"run": run_id(row.id)})
        await self.ledger.update_run(row.id, state=row.state, reason=row.reason, ended=row.ended)
        self._tell_run(run)
        self._tell_keeper()

    def _tell_run(self, run: LiveRun) -> None:
        self._events.tell("run", self._view(run))

    def _tell_step_now(self, run: LiveRun, step: StepRow) -> None:
        self._events.tell("step", step_view(step, run.plan.step(step.id)), owner=run_id(run.row.id))

    def _tell_keeper(self) -> None:
        self._keeper.needed(run_id(r.row.id) for r in self._runs.values() if r.row.state not in FINISHED)

    @staticmethod
    def _view(run: LiveRun) -> dict[str, Any]:
        return run_view(run.row, run.plan)


def _needs(plan: StepPlan) -> list[str]:
    return list(dict.fromkeys([*plan.after, *(ref.step for ref in plan.inputs if ref.step)]))


def _state_of(row: RunRow) -> str:
    states = {step.state for step in row.steps}
    if states == {"succeeded"}:
        return "succeeded"
    if states <= FINISHED:
        return "failed" if "failed" in states else "cancelled"
    return "waiting" if states == {"waiting"} else "running"


def _reason_of(run: LiveRun) -> str:
    """Return one sentence on why a run ended as it did; nothing when it succeeded."""
    for step in run.row.steps:
        if step.state == run.row.state and step.state != "succeeded":
            return f"{run.plan.step(step.id).title}: {step.why}"
    return ""
