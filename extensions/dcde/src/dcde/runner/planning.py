"""From a template and a person's wishes to the plan of a run, refused as early and as clearly as can be."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dcde_models import Need, SiteDescriptor

from dcde.errors import InvalidParameter, TemplateError, UnknownName
from dcde.pipelines.model import RunPlan, StepPlan
from dcde.pipelines.template import Template, load_templates
from dcde.placement import AUTO, Candidate, place_auto, place_wished
from dcde.runner.arguments import Launch
from dcde.runner.knowledge import Knowledge
from dcde.runner.sites import SiteBook

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Planned:
    """A plan that may be carried out, with the wished site of each step."""

    plan: RunPlan
    title: str
    parameters: dict[str, Any]
    wishes: list[tuple[str, str]]


class Planner:
    """Knows the templates.

    Args:
        folder: Where a person's own templates lie; they are read anew each time, so that a new one is seen at once.
        sites: The sites.
    """

    def __init__(self, folder: Path, sites: SiteBook) -> None:
        self._folder = folder
        self._sites = sites

    def _load(self) -> tuple[dict[str, Template], list[TemplateError]]:
        """Return the templates that come with the library and the person's, and what is wrong with broken ones."""
        problems: list[TemplateError] = []
        found = load_templates(self._folder, problems=problems)
        for problem in problems:
            log.warning("a template is left out: %s", problem)
        return found, problems

    async def templates(self) -> list[dict[str, Any]]:
        """Return name, title, description and version of every template."""
        return [
            {"name": t.name, "title": t.title, "description": t.description, "version": t.version}
            for t in (await asyncio.to_thread(self._load))[0].values()
        ]

    async def show(self, name: str) -> dict[str, Any]:
        """Return a template with the schema of its form and its steps."""
        template = await self._template(name)
        return {
            "name": template.name,
            "title": template.title,
            "description": template.description,
            "version": template.version,
            "schema": template.schema(),
            "steps": [{"id": s.id, "title": s.title, "default_site": s.site or AUTO} for s in template.steps],
        }

    async def _template(self, name: str) -> Template:
        templates, problems = await asyncio.to_thread(self._load)
        for problem in problems:
            if Path(problem.where).parent.name == name:
                raise problem
        if name not in templates:
            known = ", ".join(sorted(templates)) or "none"
            raise UnknownName(f"there is no template {name!r}", where=name, remedy=f"Templates: {known}.")
        return templates[name]

    async def plan(self, wish: Launch, first_job: int) -> Planned:
        """Return the plan of a run that a person wishes.

        Raises:
            UnknownName: There is no such template or site.
            InvalidParameter: A value, or a step that is given a site, is wrong.
            NotAllowed: The person may not run a step where it is wished, or nowhere at all.
        """
        template = await self._template(wish.template)
        knowledge = await self._sites.knowledge()
        plan = template.plan(wish.parameters, first_job=first_job, version=_common_version(knowledge))
        known = [step.id for step in plan.steps]
        for step_id in wish.sites:
            if step_id not in known:
                raise InvalidParameter(
                    f"there is no step {step_id!r} to give a site to",
                    where="sites",
                    remedy=f"Steps: {', '.join(known)}.",
                )
        for raw in plan.raw:
            site = knowledge.site(raw.site)
            knowledge.require(site.name, Need("transfer.read"))
        wishes = [(step.id, _wish(knowledge, step, wish)) for step in plan.steps]
        for step in plan.steps:
            _check(knowledge, step, dict(wishes)[step.id], wish)
        return Planned(plan, template.title, wish.parameters, wishes)


def _wish(knowledge: Knowledge, step: StepPlan, wish: Launch) -> str:
    """Return the site of a step: the person's wish, or the template's if the person may run there, or `auto`."""
    wished = wish.sites.get(step.id)
    if wished == AUTO:
        return AUTO
    if wished is not None:
        return knowledge.site(wished).name
    default = step.default_site
    if default in knowledge.sites and knowledge.decide(default, Need("submit")).allowed:
        return default
    return AUTO


def _check(knowledge: Knowledge, step: StepPlan, site: str, wish: Launch) -> None:
    """Raise when a step can never run where it is wished."""
    candidates = [
        _candidate(knowledge, other, step, wish)
        for other in knowledge.sites.values()
        if site == AUTO or other.name == site
    ]
    if site == AUTO:
        place_auto(candidates, wish.partition, step)
    else:
        place_wished(candidates[0], wish.partition, step)


def _candidate(knowledge: Knowledge, site: SiteDescriptor, step: StepPlan, wish: Launch) -> Candidate:
    need = Need(
        "submit",
        partition=wish.partition,
        allocation=wish.allocation,
        walltime_minutes=step.resources.walltime_minutes,
        nodes=step.resources.nodes,
    )
    return Candidate(site, knowledge.decide(site.name, need), None, 0, None)


def _common_version(knowledge: Knowledge) -> str | None:
    """Return the version of RELION when all sites that have it have the same; otherwise the renderer's own choice."""
    versions = {
        site.applications["relion"].version for site in knowledge.sites.values() if "relion" in site.applications
    }
    return versions.pop() if len(versions) == 1 else None
