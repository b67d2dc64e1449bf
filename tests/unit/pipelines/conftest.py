"""Fixtures of the tests of pipelines.

baker: a renderer called `baker` for the time of a test, with the job types baker.mix and baker.bake.
write: writes a template.yaml below a fresh folder and returns its path.
"""

import sys
import types

import pytest
from dcde.pipelines import renderer
from dcde.pipelines.model import InputRef, StepPlan


def _render(request):
    refs = [InputRef(step=plan.id, patterns=[f"{plan.job_dir}/**"]) for plan in request.inputs.values()]
    refs += [InputRef(patterns=[f"{raw.target}/*"]) for raw in request.raw.values()]
    folder = f"{request.job_type.rpartition('.')[2].title()}/job{request.number:03}"
    arguments = [f"--{name}={value}" for name, value in request.settings.items()]
    return StepPlan(
        id=request.id,
        title=request.title,
        job_type=request.job_type,
        job_dir=folder,
        default_site=request.site,
        after=request.after,
        inputs=refs,
        commands=[["{program:oven}", *arguments, "--o", f"{folder}/"]],
        application="baker",
        outputs=[folder],
        resources=request.resources,
    )


@pytest.fixture
def baker(monkeypatch):
    """A renderer called `baker`; see above."""
    module = types.ModuleType("baker_for_tests")
    module.JOB_TYPES = frozenset(("baker.mix", "baker.bake"))
    module.render = _render
    monkeypatch.setitem(sys.modules, "baker_for_tests", module)
    monkeypatch.setitem(renderer.RENDERERS, "baker", "baker_for_tests")
    return module


@pytest.fixture
def write(tmp_path):
    """Write `text` as <name>/template.yaml below one folder and return the file's path."""

    def _write(text, name="bread"):
        path = tmp_path / name / "template.yaml"
        path.parent.mkdir()
        path.write_text(text)
        return path

    return _write
