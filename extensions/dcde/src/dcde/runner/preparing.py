"""Before a step's job: the step is decided and placed, and its inputs are brought, however long that takes."""

from __future__ import annotations

import asyncio
import logging
import time

from dcde_models import Need

from dcde.data.ledger import Attempt, RunRow
from dcde.errors import BrokerUnreachable, DcdeError, DiskFull, LinkError, LinkRefused
from dcde.jobs.spec import JobSpec
from dcde.pipelines.model import StepPlan
from dcde.placement import AUTO, Candidate, Placement, place_auto, place_wished
from dcde.runner.desk import CancelWanted, StepDesk, StepNotDone, unforeseen

log = logging.getLogger(__name__)

MOST_RETRIES = 3
"""So often an error is tried again that says it may help, other than that a site is away."""


class Preparation:
    """Brings a step to the point where its job can be submitted.

    Args:
        desk: The step.
    """

    def __init__(self, desk: StepDesk) -> None:
        self._desk = desk
        self._retries = 0

    async def attempt(self, wake: asyncio.Event) -> Attempt:
        """Return a new attempt, entered in the ledger and ready to be submitted.

        Args:
            wake: Is set when something changes at any site.

        Raises:
            StepNotDone: The step failed, or the run was cancelled.
        """
        try:
            return await self._prepare(wake)
        except CancelWanted:
            await self._desk.cancelled("Cancelled before it was submitted.")
            raise StepNotDone from None

    async def _prepare(self, wake: asyncio.Event) -> Attempt:
        desk = self._desk
        while True:
            wake.clear()
            desk.stop_if_cancelled()
            try:
                placement = await self._place()
                if placement.site is not None:
                    return await self._at(placement.site, placement.reason)
                desk.show("waiting", placement.reason)
            except DcdeError as error:
                desk.show("waiting", await self._worth_waiting(error))
            except CancelWanted:
                raise
            except Exception as error:
                log.exception("a step could not be prepared", extra=desk.names)
                await desk.fail(unforeseen(error))
                raise StepNotDone from error
            await desk.pause(wake)

    async def _worth_waiting(self, error: DcdeError) -> str:
        """Return why the step waits after an error; one that waiting cannot help fails the step."""
        away = isinstance(error, BrokerUnreachable | LinkRefused) or (isinstance(error, LinkError) and error.retry)
        if away:
            return str(error)
        if error.retry and not isinstance(error, DiskFull) and self._retries < MOST_RETRIES:
            self._retries += 1
            return f"Tries again: {error}"
        await self._desk.fail(error)
        raise StepNotDone

    async def _place(self) -> Placement:
        office, run, plan, row = self._desk.office, self._desk.run.row, self._desk.plan, self._desk.row
        knowledge = await office.sites.knowledge()
        names = list(knowledge.sites) if row.wish == AUTO else [knowledge.site(row.wish).name]
        missing = await office.files.missing_bytes(run.project, plan, names)
        candidates = []
        for name in names:
            decision = knowledge.decide(name, need_of(plan, run))
            trouble = office.sites.trouble(name)
            queue = await office.sites.measured(name) if row.wish == AUTO and decision.allowed else None
            candidates.append(Candidate(knowledge.sites[name], decision, trouble, missing[name], queue))
        if row.wish == AUTO:
            return place_auto(candidates, run.partition, plan)
        return place_wished(candidates[0], run.partition, plan)

    async def _at(self, site: str, reason: str) -> Attempt:
        """Bring the inputs to the site and enter a new attempt there."""
        desk = self._desk
        spec = self._spec(site)
        desk.row.site = site
        desk.show("moving", reason)

        def progress(done: int, _total: int) -> None:
            desk.row.detail["bytes_moved"] = done
            desk.tell()

        await desk.unless_cancelled(desk.office.files.bring(desk.run.row, desk.run.plan, desk.plan, site, progress))
        desk.stop_if_cancelled()
        attempt = await desk.office.ledger.begin_attempt(
            desk.row.run, desk.row.id, site, desk.run.row.project, spec.model_dump_json()
        )
        desk.row.attempt = attempt.number
        desk.row.queued_at, desk.row.started, desk.row.ended = time.time(), None, None
        desk.show("queued", reason)
        return attempt

    def _spec(self, site: str) -> JobSpec:
        run, knowledge = self._desk.run.row, self._desk.office.sites.known()
        return JobSpec.from_step(
            self._desk.plan,
            knowledge.site(site),
            project=run.project,
            allocation=run.allocation or next(iter(knowledge.allocations(site)), None),
            partition=run.partition,
        )


def need_of(plan: StepPlan, run: RunRow) -> Need:
    """Return what a step needs of a site, for the decision."""
    return Need(
        "submit",
        partition=run.partition,
        allocation=run.allocation,
        walltime_minutes=plan.resources.walltime_minutes,
        nodes=plan.resources.nodes,
    )
