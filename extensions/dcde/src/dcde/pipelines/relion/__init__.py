"""RELION: how the job types of templates become commands, and the templates that come with the library.

`JOB_TYPES` and `render` are the interface of a renderer (dcde.pipelines.renderer). `report.py` is not imported here:
it is pushed to the site and runs there on its own.
"""

from __future__ import annotations

from dcde.pipelines.model import StepPlan
from dcde.pipelines.relion.steps import BUILDERS
from dcde.pipelines.renderer import StepRequest

__all__ = ["JOB_TYPES", "render"]

JOB_TYPES = tuple(BUILDERS)


def render(request: StepRequest) -> StepPlan:
    """Return the step of that request; InvalidParameter or ValueError say what does not fit together."""
    return BUILDERS[request.job_type](request)
