"""Where a step runs: the site that was wished for, or the best one by rules, data and queue; always with a reason."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from dcde_models import Decision, SiteDescriptor
from dcde_models.sites import Partition

from dcde.errors import InvalidParameter, NotAllowed
from dcde.pipelines.model import Resources, StepPlan

AUTO = "auto"

_BYTES_PER_SECOND = 30e6
"""What a movement between sites is assumed to reach."""

_SECONDS_PER_JOB = 120.0
"""What one job ahead in the queue is assumed to cost when no node is idle."""


@dataclass(frozen=True)
class Candidate:
    """A site as a placement sees it.

    Args:
        site: The site.
        decision: Whether the person may run this step's job there.
        trouble: Why it cannot be used now; None when its link is up.
        missing_bytes: How much of the step's inputs would have to be brought there.
        queue: The site's queue as the agent tells it; None when it is not known.
    """

    site: SiteDescriptor
    decision: Decision
    trouble: str | None
    missing_bytes: int
    queue: dict[str, Any] | None


@dataclass(frozen=True)
class Placement:
    """The site of a step, or None when it must wait; and one sentence why."""

    site: str | None
    reason: str


def partition_for(site: SiteDescriptor, wished: str | None) -> Partition:
    """Return the partition of that name, or the site's default; raises InvalidParameter when there is none."""
    if wished is None:
        return site.scheduler.default_partition
    for partition in site.scheduler.partitions:
        if partition.name == wished:
            return partition
    known = ", ".join(p.name for p in site.scheduler.partitions)
    raise InvalidParameter(
        f"{site.title} has no partition {wished!r}", where=site.name, remedy=f"Partitions there: {known}."
    )


def unfit(site: SiteDescriptor, partition: Partition, step: StepPlan) -> str | None:
    """Return one sentence on why a step can never run in a partition; None when it can."""
    asked: Resources = step.resources
    if step.application not in site.applications:
        return f"{site.title} has no {step.application}."
    if asked.nodes > site.scheduler.nodes:
        return f"{site.title} has {site.scheduler.nodes} nodes; the step asks for {asked.nodes}."
    limits = (
        ("cores a node", asked.cores, partition.cores_per_node),
        ("MB of memory a node", asked.memory_mb, partition.memory_mb_per_node),
        ("GPUs a node", asked.gpus, partition.gpus_per_node),
        ("minutes", asked.walltime_minutes, partition.max_walltime_minutes),
    )
    for what, wanted, there in limits:
        if wanted > there:
            return f"The partition {partition.name} of {site.title} gives {there} {what}; the step asks for {wanted}."
    return None


def place_wished(candidate: Candidate, partition: str | None, step: StepPlan) -> Placement:
    """Place a step at the site that the person chose, or let it wait for that site.

    Raises:
        NotAllowed: The person may not run this there.
        InvalidParameter: The site can never run this step.
    """
    site = candidate.site
    reason = unfit(site, partition_for(site, partition), step)
    if reason:
        raise InvalidParameter(reason, where=step.id, remedy="Choose another site for this step.")
    if not candidate.decision.allowed:
        raise NotAllowed(candidate.decision.reason, where=site.name, remedy=candidate.decision.remedy)
    if candidate.trouble:
        return Placement(None, f"Waits for {site.title}, where it is to run: {candidate.trouble}")
    return Placement(site.name, f"Runs at {site.title}, as chosen.")


def place_auto(candidates: Iterable[Candidate], partition: str | None, step: StepPlan) -> Placement:
    """Place a step at the site where it is expected to begin first, counting the time to bring its inputs.

    Raises:
        NotAllowed: There is no site at which the person may ever run this step; the remedy names what each lacks.
    """
    able: list[Candidate] = []
    refusals: list[str] = []
    for candidate in candidates:
        reason = _never(candidate, partition, step)
        if reason:
            refusals.append(reason)
        else:
            able.append(candidate)
    if not able:
        raise NotAllowed("there is no site at which you may run this step", where=step.id, remedy=" ".join(refusals))
    ready = [candidate for candidate in able if candidate.trouble is None]
    if not ready:
        return Placement(None, "Waits for a site: " + " ".join(c.trouble or "" for c in able))
    best = min(ready, key=lambda c: (_seconds_until_start(c), c.site.name != step.default_site, c.site.name))
    return Placement(best.site.name, _because(best, len(able)))


def _never(candidate: Candidate, partition: str | None, step: StepPlan) -> str | None:
    if not candidate.decision.allowed:
        return f"{candidate.decision.reason} {candidate.decision.remedy}".rstrip()
    try:
        return unfit(candidate.site, partition_for(candidate.site, partition), step)
    except InvalidParameter as error:
        return f"{error.message}."


def _seconds_until_start(candidate: Candidate) -> float:
    moving = candidate.missing_bytes / _BYTES_PER_SECOND
    queue = candidate.queue
    if queue is None:
        return moving + _SECONDS_PER_JOB
    ahead = float(queue.get("pending") or 0)
    if queue.get("nodes_idle"):
        return moving + ahead
    return moving + _SECONDS_PER_JOB * (1 + ahead)


def _because(candidate: Candidate, able: int) -> str:
    data = (
        "its inputs are there already"
        if candidate.missing_bytes == 0
        else f"{candidate.missing_bytes / 1e6:.1f} MB have to be brought there"
    )
    queue = candidate.queue
    if queue is None:
        load = "its queue is not known"
    elif queue.get("nodes_idle"):
        load = f"{queue['nodes_idle']} of {queue.get('nodes_total', '?')} nodes are idle"
    else:
        load = f"no node is idle and {queue.get('pending', 0)} jobs wait"
    return f"Runs at {candidate.site.title}, chosen among {able}: {data}, and {load}."
