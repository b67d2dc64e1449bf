"""Fixtures for tests with the real RELION, without sites: a small runner that keeps to a step's plan and nothing more.

Index
-----
small           two small movies (512 pixels, 4 frames), for tests of failures
sample          the test set: four movies, gain reference and truth, made once a session
first_look      the template
three_steps     the template
lay_out         function: plan a run of a template in a folder, with given movies and parameters
bench           factory: a `Bench` with raw files linked, three separate folders that stand for the sites
"""

from __future__ import annotations

import json
import os
import resource
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from dcde.pipelines import relion
from dcde.pipelines.model import RunPlan, StepPlan
from dcde.pipelines.template import Template, load_template

ROOT = Path(__file__).resolve().parents[3]
CTFFIND = ROOT / "testbed/src/dcde_testbed/software/ctffind"
REPORT = Path(relion.__file__).with_name("report.py")
TEST_SET = ("--movies", "4", "--seed", "1")


@dataclass
class Outcome:
    """What became of one step: exit codes of its commands, its report, its two streams, and the CPU time it took."""

    codes: list[int]
    report: dict[str, Any]
    stdout: str
    stderr: str
    record: Path
    cpu_seconds: float

    @property
    def ok(self) -> bool:
        """Whether every command ended well and the report found no problem."""
        return self.report["ok"] and not any(self.codes)

    def picture(self, name: str) -> Path:
        """Return the path of a picture of the report."""
        return self.record / next(p["file"] for p in self.report["pictures"] if p["name"] == name)


@dataclass
class Bench:
    """Runs a plan: each step in the folder of its site, which holds only what the plan says that the step needs."""

    folder: Path
    plan: RunPlan
    programs: dict[str, str] = field(default_factory=lambda: {"ctffind": str(CTFFIND)})
    outcomes: dict[str, Outcome] = field(default_factory=dict)

    def site(self, step: StepPlan) -> Path:
        """Return the project folder at the step's site."""
        return self.folder / (step.default_site or "any")

    def run_all(self, *, until: str | None = None) -> dict[str, Outcome]:
        """Run the steps in order; stop after `until`, or at the first that fails."""
        for step in self.plan.steps:
            outcome = self.run(step)
            if not outcome.ok or step.id == until:
                break
        return self.outcomes

    def run(self, step: StepPlan) -> Outcome:
        """Bring the declared inputs, run the commands, judge; only declared outputs are seen by later steps."""
        project = self.site(step)
        project.mkdir(parents=True, exist_ok=True)
        self._bring(step, project)
        record = self.folder / "records" / step.id
        record.mkdir(parents=True)
        environment = {
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "HOME": str(record),
            **step.environment,
        }
        begun = resource.getrusage(resource.RUSAGE_CHILDREN)
        codes = []
        with open(record / "stdout", "wb") as out, open(record / "stderr", "wb") as err:
            for command in step.commands:
                argv = [self._filled(part) for part in command]
                codes.append(subprocess.run(argv, cwd=project, env=environment, stdout=out, stderr=err).returncode)
                if codes[-1]:
                    break
        self.report(step)
        ended = resource.getrusage(resource.RUSAGE_CHILDREN)
        self.outcomes[step.id] = Outcome(
            codes,
            json.loads((record / "report.json").read_text()),
            (record / "stdout").read_text(errors="replace"),
            (record / "stderr").read_text(errors="replace"),
            record,
            ended.ru_utime + ended.ru_stime - begun.ru_utime - begun.ru_stime,
        )
        return self.outcomes[step.id]

    def report(self, step: StepPlan, *options: str) -> dict[str, Any]:
        """Run report.py as a job does, on its own, and return what it wrote."""
        record = self.folder / "records" / step.id
        spec = step.model_dump(include={"checks", "pictures", "job_dir"}) | {"stderr": "stderr"}
        (record / "spec.json").write_text(json.dumps(spec))
        argv = [sys.executable, "-I", str(REPORT), str(record / "spec.json"), str(record), *options]
        done = subprocess.run(argv, cwd=self.site(step), capture_output=True, text=True)
        assert done.returncode in (0, 1) and not done.stderr, done.stderr
        found: dict[str, Any] = json.loads((record / "report.json").read_text())
        return found

    def _filled(self, part: str) -> str:
        for name, program in self.programs.items():
            part = part.replace(f"{{program:{name}}}", program)
        return part

    def _bring(self, step: StepPlan, project: Path) -> None:
        for ref in step.inputs:
            source = self.folder / "raw" if ref.step is None else self.site(self.plan.step(ref.step))
            for pattern in ref.patterns:
                for path in source.glob(pattern):
                    target = project / path.relative_to(source)
                    if not target.exists():
                        target.parent.mkdir(parents=True, exist_ok=True)
                        shutil.copy(path, target)


@pytest.fixture(scope="session")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two small movies: movies/ and truth/."""
    folder = tmp_path_factory.mktemp("small")
    make_movies(folder, "--movies", "2", "--size", "512", "--frames", "4")
    return folder


@pytest.fixture(scope="session")
def sample(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The test set: movies/ and truth/; made in a few seconds."""
    folder = tmp_path_factory.mktemp("sample")
    make_movies(folder, *TEST_SET)
    return folder


def make_movies(folder: Path, *options: str) -> float:
    """Make movies and truth in a folder with the testbed's microscope; returns the seconds it took."""
    argv = [
        sys.executable,
        "-m",
        "dcde_testbed.microscope",
        "--out",
        str(folder / "movies"),
        "--truth",
        str(folder / "truth"),
    ]
    begun = time.monotonic()
    done = subprocess.run(
        [*argv, *options], env={**os.environ, "PYTHONPATH": str(ROOT / "testbed/src")}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return time.monotonic() - begun


@pytest.fixture(scope="session")
def first_look() -> Template:
    """The template."""
    return load_template(Path(relion.__file__).parent / "first_look" / "template.yaml")


@pytest.fixture(scope="session")
def three_steps() -> Template:
    """The template."""
    return load_template(Path(relion.__file__).parent / "three_steps" / "template.yaml")


@pytest.fixture
def bench(tmp_path: Path, sample: Path, first_look: Template) -> Callable[..., Bench]:
    """Return a function that plans First look with changed parameters on the test set (or on the movies in `folder`)."""

    def make(folder: Path | None = None, /, **parameters: Any) -> Bench:
        return lay_out(
            tmp_path / f"bench{len(list(tmp_path.iterdir()))}", first_look, folder or sample / "movies", parameters
        )

    return make


@pytest.fixture(scope="session", name="lay_out")
def lay_out_fixture() -> Callable[..., Bench]:
    """The function below, for fixtures of wider scope than a test."""
    return lay_out


def lay_out(folder: Path, template: Template, movies: Path, parameters: dict[str, Any]) -> Bench:
    """Plan a run and link the raw files where the plan wants them."""
    plan = template.plan(parameters, first_job=1)
    for raw in plan.raw:
        target = folder / "raw" / raw.target
        target.mkdir(parents=True)
        for path in movies.glob(Path(raw.pattern).name):
            (target / path.name).symlink_to(path)
    return Bench(folder, plan)
