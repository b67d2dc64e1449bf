"""The decision: may this person do that at this site, and if not, what is missing and where to get it."""

from __future__ import annotations

import datetime
from dataclasses import dataclass, field
from typing import Literal

from dcde_models.capabilities import ACTIONS, REFEDS_MFA, Action, CapabilityDocument, GroupCapability, Person

MissingKind = Literal[
    "status", "account", "group", "policy", "training", "assurance", "partition", "allocation", "walltime", "nodes"
]


@dataclass(frozen=True)
class Missing:
    """One thing that stands between a person and an action."""

    kind: MissingKind
    name: str
    where: str = ""

    def sentence(self) -> str:
        """Return what is missing, as one sentence."""
        return _SENTENCES[self.kind].format(name=self.name)

    def remedy(self) -> str:
        """Return what to do about it and where, as one sentence."""
        return f"{_REMEDIES[self.kind]}: {self.where}." if self.where else f"{_REMEDIES[self.kind]}."


_SENTENCES: dict[MissingKind, str] = {
    "status": "Your membership is {name}.",
    "account": "You have no account at {name}.",
    "group": "You are in none of the groups that may do this ({name}).",
    "policy": "You have not accepted the policy {name}.",
    "training": "You need a valid training {name}.",
    "assurance": "You must log in with a second factor ({name}).",
    "partition": "Your groups may not use the partition {name}.",
    "allocation": "Your groups may not charge the allocation {name}.",
    "walltime": "The job asks for more time than your groups may use ({name}).",
    "nodes": "The job asks for more nodes than your groups may use ({name}).",
}

_REMEDIES: dict[MissingKind, str] = {
    "status": "Ask why, and how to have it renewed",
    "account": "Ask the site for an account",
    "group": "Ask to be taken into one of them",
    "policy": "Read and accept it",
    "training": "Take the training, or have it renewed",
    "assurance": "Log in again with a second factor",
    "partition": "Choose another partition",
    "allocation": "Choose another allocation, or ask to be let into this one",
    "walltime": "Ask for less time",
    "nodes": "Ask for fewer nodes",
}


@dataclass(frozen=True)
class Need:
    """What a person wants to do at a site, and with what."""

    action: Action
    partition: str | None = None
    allocation: str | None = None
    walltime_minutes: int | None = None
    nodes: int | None = None


@dataclass(frozen=True)
class Decision:
    """Yes or no, with the reason."""

    allowed: bool
    reason: str
    group: str | None = None
    missing: tuple[Missing, ...] = field(default=())

    @property
    def remedy(self) -> str:
        """What the person can do about a "no"; empty for a "yes"."""
        return " ".join(m.remedy() for m in self.missing)


def decide(
    person: Person,
    document: CapabilityDocument,
    need: Need,
    *,
    account: str | None,
    today: datetime.date | None = None,
) -> Decision:
    """Decide whether a person may do something at a site.

    Of all groups that grant the action the one with the fewest things missing speaks, so that the reason names
    the shortest way.

    Args:
        person: The person, as the registry has it now.
        document: The capability document of the site.
        need: The action and what it is to use.
        account: The person's local account at the site, None when there is none.
        today: The day for which trainings must be valid; by default today in UTC.
    """
    today = today or datetime.datetime.now(datetime.UTC).date()
    doing = f"{ACTIONS[need.action]} at {document.site}"
    if person.status != "active":
        return _no(doing, (Missing("status", person.status, document.where.get("status", "")),))
    granting = {name: g for name, g in document.groups.items() if need.action in g.actions}
    candidates = [
        (name, _lacking(person, document, group, need, account, today))
        for name, group in granting.items()
        if name in person.groups
    ]
    if not candidates:
        names = ", ".join(sorted(granting)) or "none"
        return _no(doing, (Missing("group", names, document.where.get("group", "")),))
    group, lacking = min(candidates, key=lambda c: len(c[1]))
    if lacking:
        return _no(doing, lacking)
    return Decision(True, f"You may {doing} as a member of {group}.", group=group)


def _no(doing: str, missing: tuple[Missing, ...]) -> Decision:
    reasons = " ".join(m.sentence() for m in missing)
    return Decision(False, f"You may not {doing}. {reasons}", missing=missing)


def _lacking(
    person: Person,
    document: CapabilityDocument,
    group: GroupCapability,
    need: Need,
    account: str | None,
    today: datetime.date,
) -> tuple[Missing, ...]:
    where = document.where
    lacking: list[Missing] = []
    if account is None:
        lacking.append(Missing("account", document.site, where.get("account", "")))
    lacking += [Missing("policy", p, where.get(p, p)) for p in group.policies if p not in person.policies]
    lacking += [
        Missing("training", t, where.get(t, ""))
        for t in group.trainings
        if person.trainings.get(t, datetime.date.min) < today
    ]
    if group.assurance and person.acr != group.assurance:
        name = "REFEDS MFA" if group.assurance == REFEDS_MFA else group.assurance
        lacking.append(Missing("assurance", name, where.get("assurance", "")))
    if need.partition and group.partitions and need.partition not in group.partitions:
        lacking.append(Missing("partition", need.partition))
    if need.allocation and need.allocation not in group.allocations:
        lacking.append(Missing("allocation", need.allocation, where.get("allocation", "")))
    if _exceeds(need.walltime_minutes, group.max_walltime_minutes):
        lacking.append(Missing("walltime", f"{need.walltime_minutes} min, at most {group.max_walltime_minutes} min"))
    if _exceeds(need.nodes, group.max_nodes):
        lacking.append(Missing("nodes", f"{need.nodes}, at most {group.max_nodes}"))
    return tuple(lacking)


def _exceeds(wanted: int | None, limit: int | None) -> bool:
    return wanted is not None and limit is not None and wanted > limit
