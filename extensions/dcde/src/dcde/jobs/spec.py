"""What a batch job is to do: a step's plan joined with what its site says of itself, and the files of the record."""

from __future__ import annotations

import importlib.resources
import json
import re
from pathlib import Path
from typing import Any, Self

from dcde_models.sites import Partition, SiteDescriptor
from pydantic import BaseModel, ConfigDict, Field

from dcde.errors import InvalidParameter, UnknownName
from dcde.jobs.slurm import KEY, BatchOptions, batch_script
from dcde.pipelines.model import Resources, StepPlan
from dcde.pipelines.renderer import RENDERERS

_PROGRAM = re.compile(r"\{program:([a-z0-9_.-]+)\}")


class JobSpec(BaseModel):
    """One job, ready to be submitted under any key."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    title: str
    project: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]{0,62}$")
    storage_root: str = Field(pattern=r"^/[^\x00\n]*$")
    interpreter: str = Field(pattern=r"^/[^\x00\n]*$")
    setup: list[str] = []
    commands: list[list[str]] = Field(min_length=1)
    environment: dict[str, str] = {}
    report: dict[str, Any] = {}
    report_source: str | None = None
    resources: Resources = Field(default_factory=Resources)
    partition: str | None = None
    allocation: str | None = None

    @classmethod
    def from_step(
        cls,
        plan: StepPlan,
        site: SiteDescriptor,
        *,
        project: str,
        allocation: str | None = None,
        partition: str | None = None,
    ) -> Self:
        """Return the job of a step at a site.

        Raises:
            UnknownName: The site has not the application, one of its programs, or the partition.
            InvalidParameter: The step asks for more than the partition gives.
        """
        application = site.applications.get(plan.application)
        if application is None:
            raise UnknownName(
                f"{site.title} has no {plan.application}",
                where=f"step {plan.id}",
                remedy="Choose another site for this step.",
            )
        chosen = _partition(site, partition)
        _fits(plan, site, chosen)

        def filled(part: str) -> str:
            def program(found: re.Match[str]) -> str:
                if found[1] not in application.programs:
                    raise UnknownName(
                        f"{site.title} names no program {found[1]}",
                        where=f"step {plan.id}",
                        remedy=f"Choose another site, or ask {site.contact or 'the site'} to add it to the descriptor.",
                    )
                return application.programs[found[1]]

            return _PROGRAM.sub(program, part).replace("{python}", site.worker_interpreter)

        return cls(
            title=plan.title,
            project=project,
            storage_root=site.storage.root,
            interpreter=site.worker_interpreter,
            setup=[*site.environment.init, *application.setup],
            commands=[[filled(part) for part in command] for command in plan.commands],
            environment={name: filled(value) for name, value in plan.environment.items()},
            report={
                "checks": [check.model_dump() for check in plan.checks],
                "pictures": [picture.model_dump() for picture in plan.pictures],
                "stderr": "stderr",
                "job_dir": plan.job_dir,
            },
            report_source=_report_source(plan.application),
            resources=plan.resources,
            partition=chosen.name,
            allocation=allocation,
        )

    def batch_options(self, key: str) -> BatchOptions:
        """Return what the job asks of the scheduler; its name there is the key."""
        asked = self.resources
        return BatchOptions(
            name=checked_key(key),
            partition=self.partition,
            account=self.allocation,
            walltime_minutes=asked.walltime_minutes,
            cores=asked.cores,
            memory_mb=asked.memory_mb,
            nodes=asked.nodes,
            gpus=asked.gpus,
        )

    def files(self, key: str) -> dict[str, str]:
        """Return the files of the job's record: name -> text."""
        job = {
            "key": checked_key(key),
            "title": self.title,
            "project": self.project,
            "storage_root": self.storage_root,
            "interpreter": self.interpreter,
            "setup": self.setup,
            "commands": self.commands,
            "environment": self.environment,
            "walltime_minutes": self.resources.walltime_minutes,
        }
        found = {
            "job.json": json.dumps(job, indent=1),
            "job.py": _job_source(),
            "batch.sh": batch_script(self.batch_options(key), self.interpreter),
        }
        if self.report_source is not None:
            found |= {"spec.json": json.dumps(self.report, indent=1), "report.py": self.report_source}
        return found


def checked_key(key: str) -> str:
    """Return the key if it may name a folder at the site and a job of the scheduler; InvalidParameter otherwise."""
    if not KEY.match(key):
        raise InvalidParameter(f"{key!r:.150} cannot be the key of a job: letters, digits and . _ - only, at most 121")
    return key


def _partition(site: SiteDescriptor, name: str | None) -> Partition:
    if name is None:
        return site.scheduler.default_partition
    for partition in site.scheduler.partitions:
        if partition.name == name:
            return partition
    known = ", ".join(p.name for p in site.scheduler.partitions)
    raise UnknownName(f"{site.title} has no partition {name!r:.80}", remedy=f"It has: {known}.")


def _fits(plan: StepPlan, site: SiteDescriptor, partition: Partition) -> None:
    """Refuse at once what the scheduler would refuse, or what would wait for ever."""
    limits = {
        "walltime_minutes": (partition.max_walltime_minutes, "minutes"),
        "cores": (partition.cores_per_node, "cores a node"),
        "memory_mb": (partition.memory_mb_per_node, "MB a node"),
        "gpus": (partition.gpus_per_node, "GPUs a node"),
        "nodes": (site.scheduler.nodes, "nodes"),
    }
    for name, (limit, unit) in limits.items():
        asked = getattr(plan.resources, name)
        if asked > limit:
            raise InvalidParameter(
                f"the step asks for {asked} {unit}; the partition {partition.name} of {site.title} gives {limit}",
                where=f"step {plan.id}, {name}",
                remedy="Choose another partition or site for this step, or ask for less.",
            )


def _job_source() -> str:
    return (Path(__file__).parent / "job.py").read_text(encoding="utf-8")


def _report_source(application: str) -> str | None:
    """Return the program that checks the application's outputs at the site, when its package has one."""
    if application not in RENDERERS:
        return None
    report = importlib.resources.files(RENDERERS[application]).joinpath("report.py")
    return report.read_text(encoding="utf-8") if report.is_file() else None
