"""What a pipeline is once all its parameters are known: plain, frozen, checked data.

A template turns a person's parameters into a `RunPlan`; the runner places its steps on sites, moves what is missing
and runs them. Nothing here knows RELION, Slurm or a site. Text that becomes part of a command or a path at a site is
held to a safe alphabet, because applications such as RELION hand file names to shells of their own.
"""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from dcde.pipelines.graph import ordered

IDENTIFIER = re.compile(r"[a-z][a-z0-9_]{0,39}\Z")
_PATH = re.compile(r"[A-Za-z0-9_.,:=@%+*?\[\]/-]{1,400}\Z")
_ARGUMENT = re.compile(r"(?:[A-Za-z0-9_.,:=@%+*?/ -]|\{(?:python|record|program:[a-z0-9_.-]+)\}){0,1000}\Z")


def identifier(text: str) -> str:
    """Return `text` if it may name a step, a parameter or a picture; raise ValueError otherwise."""
    if not IDENTIFIER.match(text):
        raise ValueError(f"{text!r} must be lower-case letters, digits and _ (at most 40), beginning with a letter")
    return text


def project_path(text: str) -> str:
    """Return `text` if it is a path or glob that stays below the project folder and is safe for RELION's own shells."""
    if not _PATH.match(text):
        raise ValueError(f"{text!r} may hold letters, digits and _ . , : = @ % + - * ? [ ] / only")
    if text.startswith(("/", "-")) or ".." in text.split("/"):
        raise ValueError(f"{text!r} must stay below the project folder")
    return text


def argument(text: str) -> str:
    """Return `text` if it may be one argument of a command; braces only as {python}, {record} and {program:NAME}."""
    if not _ARGUMENT.match(text):
        raise ValueError(
            f"argument {text!r} may hold letters, digits, blanks and _ . , : = @ % + - * ? / only "
            "(braces only as {python}, {record} or {program:NAME})"
        )
    return text


Identifier = Annotated[str, AfterValidator(identifier)]
ProjectPath = Annotated[str, AfterValidator(project_path)]
Argument = Annotated[str, AfterValidator(argument)]


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class InputRef(_Frozen):
    """Files that a step needs: globs below the project folder, produced by `step` (None: the project's raw files)."""

    step: Identifier | None = None
    patterns: list[ProjectPath] = Field(min_length=1)


class Check(_Frozen):
    """One promise about an output: table `table` of the STAR file `star` has rows, and the columns named are finite.

    `min_rows` is a number, or `rows(<other star>)`: as many rows as that file's table of the same name has.
    """

    star: ProjectPath
    table: str = Field(pattern=r"^[A-Za-z0-9_]*$")
    min_rows: int | str = 1
    finite: list[str] = []


class Picture(_Frozen):
    """One picture of a result that the report makes at the site from the files in `source`."""

    name: Identifier
    title: str = Field(max_length=120)
    kind: Literal["micrograph_picks", "micrograph", "power_spectrum", "class_montage"]
    source: dict[str, str]


class Resources(_Frozen):
    """What one job asks of the scheduler; memory is for the whole job on a node."""

    cores: int = Field(default=1, ge=1, le=4096)
    memory_mb: int = Field(default=500, ge=1, le=16_000_000)
    walltime_minutes: int = Field(default=30, ge=1, le=60 * 24 * 30)
    nodes: int = Field(default=1, ge=1, le=4096)
    gpus: int = Field(default=0, ge=0, le=4096)


class StepPlan(_Frozen):
    """One application run: its commands, inputs, outputs and checks.

    The commands are argument lists, run in order in the project folder. In a command `{program:NAME}` becomes the
    site's program of that name, `{python}` the site's worker interpreter and `{record}` the folder of the job's record.
    """

    id: Identifier
    title: str = Field(max_length=120)
    job_type: str = Field(pattern=r"^[a-z0-9_.]{1,80}$")
    job_dir: ProjectPath
    default_site: str | None = None
    after: list[Identifier] = []
    inputs: list[InputRef] = []
    commands: list[list[Argument]] = Field(min_length=1)
    application: str = Field(default="relion", pattern=r"^[a-z0-9_-]{1,40}$")
    environment: dict[Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]{0,60}$")], Argument] = {}
    outputs: list[ProjectPath] = Field(min_length=1)
    checks: list[Check] = []
    pictures: list[Picture] = []
    resources: Resources = Field(default_factory=Resources)


class RawFiles(_Frozen):
    """The person's own files as a run begins: `pattern` is a path or glob at `site`, `target` a project folder."""

    site: str
    pattern: str = Field(min_length=1, max_length=1000)
    target: ProjectPath


class RunPlan(_Frozen):
    """All steps of one run, in an order in which each comes after those it needs."""

    template: str
    version: str
    steps: list[StepPlan] = Field(min_length=1)
    raw: list[RawFiles] = []

    @model_validator(mode="after")
    def _steps_form_a_graph(self) -> RunPlan:
        needs = [(step.id, [*step.after, *(ref.step for ref in step.inputs if ref.step)]) for step in self.steps]
        ordered(needs)
        folders = [step.job_dir.rstrip("/") for step in self.steps]
        if len(set(folders)) != len(folders):
            raise ValueError("two steps have the same job folder")
        return self

    def step(self, step_id: str) -> StepPlan:
        """Return the step of that id; KeyError when there is none."""
        for step in self.steps:
            if step.id == step_id:
                return step
        raise KeyError(step_id)
