"""How an application's own module makes the commands of a step: the interface, and the list of those modules.

A renderer is a module with `JOB_TYPES` (the job types it knows) and `render`. It is imported when a template first
needs it.
"""

from __future__ import annotations

import importlib
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Protocol, cast

from dcde.errors import TemplateError
from dcde.pipelines.formula import Value
from dcde.pipelines.model import RawFiles, Resources, StepPlan

RENDERERS: dict[str, str] = {"relion": "dcde.pipelines.relion"}
"""Name in a template's `renderer` field -> module."""


@dataclass(frozen=True)
class StepRequest:
    """All that a renderer may use to make one step.

    Attributes:
        number: The job's number in the project, from which the job folder's name comes (`Import/job001`).
        site: The site at which the step runs unless the person chooses another.
        after: The steps that must have succeeded before; those of `inputs` among them.
        inputs: For each role that the template names (such as `micrographs`), the plan of the step that delivers it.
        raw: The person's own files, by the name of the parameter that chose them; a parameter left empty is absent.
        settings: The step's own settings with their formulas worked out.
        values: All parameters and derived values of the run.
        version: The version of the application to make commands for; None: the one the renderer knows best.
    """

    id: str
    title: str
    job_type: str
    number: int
    site: str | None
    after: list[str]
    inputs: Mapping[str, StepPlan]
    raw: Mapping[str, RawFiles]
    settings: Mapping[str, Value]
    values: Mapping[str, Value]
    resources: Resources
    version: str | None = None


class Renderer(Protocol):
    """What the module of an application offers."""

    JOB_TYPES: Collection[str]

    def render(self, request: StepRequest) -> StepPlan:
        """Return the step; InvalidParameter or ValueError say what does not fit together."""


def renderer(name: str, *, where: str = "") -> Renderer:
    """Return the renderer of that name; TemplateError when there is none."""
    if name not in RENDERERS:
        remedy = f"Known are: {', '.join(sorted(RENDERERS))}."
        raise TemplateError(f"there is no renderer {name!r}.", where=where, remedy=remedy)
    return cast(Renderer, importlib.import_module(RENDERERS[name]))
