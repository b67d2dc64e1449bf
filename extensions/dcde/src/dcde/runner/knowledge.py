"""What the broker told about the person, the sites and the rules, with a copy for when it does not answer."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dcde_models import CapabilityDocument, Decision, Need, Person, SiteDescriptor, decide

from dcde.credentials import SitesAnswer
from dcde.errors import NotAllowed, UnknownName
from dcde.runner.state import read_json, write_private


@dataclass(frozen=True)
class Knowledge:
    """One answer of the broker: who the person is, which sites there are, and what may be done there."""

    me: dict[str, Any]
    person: Person
    sites: dict[str, SiteDescriptor] = field(default_factory=dict)
    capabilities: dict[str, CapabilityDocument] = field(default_factory=dict)
    accounts: dict[str, str] = field(default_factory=dict)
    fetched: float = 0.0

    def site(self, name: str) -> SiteDescriptor:
        """Return the site of that name or alias; raises UnknownName that lists the sites there are."""
        for site in self.sites.values():
            if site.answers_to(name):
                return site
        known = ", ".join(sorted(self.sites)) or "none"
        raise UnknownName(f"there is no site {name!r}", where=name, remedy=f"Sites: {known}.")

    def decide(self, site: str, need: Need) -> Decision:
        """Decide whether the person may do something at a site; a site without rules allows nothing."""
        document = self.capabilities.get(site)
        if document is None:
            return Decision(False, f"{self.sites[site].title} has not said yet what may be done there.")
        return decide(self.person, document, need, account=self.accounts.get(site))

    def allocations(self, site: str) -> list[str]:
        """Return what the person's groups may charge at a site."""
        document = self.capabilities.get(site)
        if document is None:
            return []
        groups = [group for name, group in document.groups.items() if name in self.person.groups]
        return sorted({allocation for group in groups for allocation in group.allocations})

    def require(self, site: str, need: Need) -> None:
        """Do nothing when the person may do something at a site; otherwise raise NotAllowed with what is missing."""
        decision = self.decide(site, need)
        if not decision.allowed:
            raise NotAllowed(decision.reason, where=site, remedy=decision.remedy)

    def to_json(self) -> dict[str, Any]:
        """Return the copy that is kept for when the broker does not answer."""
        return {
            "me": self.me,
            "person": self.person.model_dump(mode="json"),
            "sites": [s.model_dump(mode="json") for s in self.sites.values()],
            "capabilities": [c.model_dump(mode="json") for c in self.capabilities.values()],
            "accounts": self.accounts,
            "fetched": self.fetched,
        }


def known(me: dict[str, Any], answer: SitesAnswer) -> Knowledge:
    """Return what an answer of the broker says."""
    return Knowledge(
        me=me,
        person=answer.person,
        sites=dict(answer.descriptors),
        capabilities=dict(answer.capabilities),
        accounts=dict(answer.accounts),
        fetched=time.time(),
    )


def save(knowledge: Knowledge, path: Path) -> None:
    """Keep a copy, mode 0600."""
    write_private(path, json.dumps(knowledge.to_json(), ensure_ascii=False).encode())


def load(path: Path) -> Knowledge | None:
    """Return the copy that was kept; None when there is none that this version can read."""
    data = read_json(path)
    try:
        return Knowledge(
            me=data["me"],
            person=Person.model_validate(data["person"]),
            sites={s["name"]: SiteDescriptor.model_validate(s) for s in data["sites"]},
            capabilities={c["site"]: CapabilityDocument.model_validate(c) for c in data["capabilities"]},
            accounts=dict(data["accounts"]),
            fetched=float(data["fetched"]),
        )
    except (KeyError, TypeError, ValueError):
        return None
