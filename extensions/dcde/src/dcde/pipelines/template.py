"""Templates: a pipeline with a form, read from `template.yaml`, checked, and turned into the plan of a run.

The format is described in docs/reference/template-format.md.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from dcde_models.documents import Document, Name
from dcde_models.errors import InvalidDocument
from pydantic import Field, PrivateAttr, ValidationError, model_validator

from dcde.errors import InvalidParameter, TemplateError
from dcde.pipelines.formula import Formula, Value
from dcde.pipelines.graph import ordered
from dcde.pipelines.model import Identifier, ProjectPath, RawFiles, Resources, RunPlan, StepPlan
from dcde.pipelines.parameters import Parameter, split_site_path
from dcde.pipelines.renderer import Renderer, StepRequest, renderer

BUNDLED = Path(__file__).parent / "relion"
"""The folder of the templates that come with the library, one folder each."""

Setting = bool | int | float | str | None
"""A literal value, or a text that begins with `=`: a formula over parameters and derived values."""


class Derived(Document):
    """A value that is worked out from the parameters; later ones may use earlier ones."""

    name: Identifier
    formula: str
    unit: str = ""
    help: str = ""


class Raw(Document):
    """The person's own files: those that `parameter` names appear in the project's folder `target`."""

    parameter: Identifier
    target: ProjectPath


class TemplateStep(Document):
    """One step: a job type of the renderer, where its inputs come from, and its settings."""

    id: Identifier
    title: str = Field(min_length=1, max_length=120)
    type: Annotated[str, Field(pattern=r"^[a-z0-9_.]{1,80}$")]
    site: Name | None = None
    after: list[Identifier] = Field(default_factory=list)
    inputs: dict[Identifier, Identifier] = Field(default_factory=dict)
    settings: dict[Identifier, Setting] = Field(default_factory=dict)
    resources: dict[Literal["cores", "memory_mb", "walltime_minutes", "nodes", "gpus"], int | str] = Field(
        default_factory=dict
    )

    @property
    def needs(self) -> list[str]:
        """The ids of the steps that must have succeeded before this one."""
        return list(dict.fromkeys([*self.after, *self.inputs.values()]))


class Template(Document):
    """A template as its file describes it; make one with `load_template`."""

    format: Literal[1]
    name: Name
    title: str = Field(min_length=1, max_length=80)
    description: str = ""
    version: str = Field(pattern=r"^[0-9A-Za-z.+-]{1,30}$")
    renderer: str = "relion"
    parameters: list[Parameter] = Field(default_factory=list)
    derived: list[Derived] = Field(default_factory=list)
    raw: list[Raw] = Field(default_factory=list)
    steps: list[TemplateStep] = Field(min_length=1)
    _origin: str = PrivateAttr("")

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        known = {p.name: p for p in self.parameters}
        names = [*(p.name for p in self.parameters), *(d.name for d in self.derived)]
        for name in names:
            if names.count(name) > 1:
                raise ValueError(f"two parameters or derived values are called {name!r}")
        for raw in self.raw:
            if raw.parameter not in known or known[raw.parameter].type not in ("file", "files"):
                raise ValueError(f"raw files: there is no parameter {raw.parameter!r} of the type file or files")
        for index, derived in enumerate(self.derived):
            _formula(derived.formula, set(names[: len(known) + index]), f"derived value {derived.name!r}")
        for step in self.steps:
            for field, setting in [*step.settings.items(), *step.resources.items()]:
                if isinstance(setting, str) and setting.startswith("="):
                    _formula(setting[1:], set(names), f"{field!r} of step {step.id!r}")
                elif isinstance(setting, str) and field in step.resources and field not in step.settings:
                    raise ValueError(f"{field!r} of step {step.id!r} must be a number or a formula that begins with =")
        ordered((step.id, step.needs) for step in self.steps)
        return self

    def schema(self) -> dict[str, Any]:  # type: ignore[override]
        """Return the JSON Schema of the form; `x-order`, `x-group`, `x-unit` and `x-kind` tell how to show a field."""
        return {
            "$schema": "https://json-schema.org/draft/2020-12/schema",
            "title": self.title,
            "description": self.description,
            "type": "object",
            "additionalProperties": False,
            "required": [p.name for p in self.parameters if p.required and p.default is None],
            "properties": {p.name: p.form_field(order) for order, p in enumerate(self.parameters)},
        }

    def check(self, given: Mapping[str, Any]) -> dict[str, Value]:
        """Return all parameters in their own types, with defaults; InvalidParameter names the wrong field."""
        known = {p.name for p in self.parameters}
        for name in given:
            if name not in known:
                remedy = f"The fields are: {', '.join(sorted(known))}."
                raise InvalidParameter(f"there is no parameter {name!r:.80}", where=self.name, remedy=remedy)
        return {p.name: p.check(given.get(p.name)) for p in self.parameters}

    def values(self, given: Mapping[str, Any]) -> dict[str, Value]:
        """Return the checked parameters together with the derived values."""
        values = self.check(given)
        for derived in self.derived:
            try:
                values[derived.name] = Formula(derived.formula).value(values)
            except ValueError as error:
                raise InvalidParameter(f"the value {derived.name} {error}", where=self.name) from error
        return values

    def plan(self, parameters: Mapping[str, Any], *, first_job: int, version: str | None = None) -> RunPlan:
        """Return the plan of a run with these parameters.

        Args:
            parameters: What the person filled in; fields left out take their defaults.
            first_job: The number of the first job folder, above all those that the project already has.
            version: The application's version to make commands for; None: the one the renderer knows best.

        Raises:
            InvalidParameter: A value is missing, unknown, out of range or of a wrong type.
            TemplateError: The template itself cannot be used.
        """
        values = self.values(parameters)
        raw = self._raw_files(values)
        module = self._renderer()
        by_id = {step.id: step for step in self.steps}
        plans: dict[str, StepPlan] = {}
        order = ordered((step.id, step.needs) for step in self.steps)
        for number, step in enumerate((by_id[name] for name in order), start=first_job):
            plans[step.id] = self._step(step, module, number, values, raw, plans, version)
        try:
            return RunPlan(template=self.name, version=self.version, steps=list(plans.values()), raw=list(raw.values()))
        except ValidationError as error:
            raise TemplateError(_reasons(error), where=self._place()) from error

    def _step(
        self,
        step: TemplateStep,
        module: Renderer,
        number: int,
        values: Mapping[str, Value],
        raw: Mapping[str, RawFiles],
        plans: Mapping[str, StepPlan],
        version: str | None,
    ) -> StepPlan:
        where = f"{self._place()}, step {step.id}"
        try:
            request = StepRequest(
                id=step.id,
                title=step.title,
                job_type=step.type,
                number=number,
                site=step.site,
                after=step.needs,
                inputs={role: plans[source] for role, source in step.inputs.items()},
                raw=raw,
                settings={name: _worked_out(setting, values) for name, setting in step.settings.items()},
                values=values,
                resources=Resources.model_validate({k: _worked_out(v, values) for k, v in step.resources.items()}),
                version=version,
            )
            plan = module.render(request)
        except ValidationError as error:
            raise TemplateError(_reasons(error), where=where) from error
        except (ValueError, KeyError) as error:
            raise TemplateError(f"the step cannot be made: {error}", where=where) from error
        if plan.id != step.id:
            raise TemplateError(f"the renderer returned a step {plan.id!r}", where=where)
        return plan

    def _raw_files(self, values: Mapping[str, Value]) -> dict[str, RawFiles]:
        found = {}
        for raw in self.raw:
            value = values[raw.parameter]
            if isinstance(value, str):
                site, pattern = split_site_path(value)
                found[raw.parameter] = RawFiles(site=site, pattern=pattern, target=raw.target)
        return found

    def _renderer(self) -> Renderer:
        module = renderer(self.renderer, where=self._place())
        for step in self.steps:
            if step.type not in module.JOB_TYPES:
                remedy = f"Known are: {', '.join(sorted(module.JOB_TYPES))}."
                raise TemplateError(f"step {step.id!r}: unknown type {step.type!r}", where=self._place(), remedy=remedy)
        return module

    def _place(self) -> str:
        return self._origin or self.name


def load_template(path: Path) -> Template:
    """Return the template of the file at `path`; TemplateError says what is wrong in it, by field."""
    try:
        template = Template.from_file(path)
    except InvalidDocument as error:
        reason = str(error).removeprefix(f"{path} ")
        raise TemplateError(f"the template {reason}", where=str(path), remedy="Correct the file.") from error
    template._origin = str(path)
    template._renderer()
    return template


def load_templates(*folders: Path, problems: list[TemplateError] | None = None) -> dict[str, Template]:
    """Return the bundled templates and those of the folders (`<folder>/<any>/template.yaml`), by name.

    Args:
        folders: Folders of further templates, such as the person's own; one that does not exist holds none.
        problems: When given, templates that cannot be used are left out and the reasons are appended here, so that one
            broken file of a person does not hide all others. Otherwise the first one raises TemplateError.
    """
    found: dict[str, Template] = {}
    for folder in dict.fromkeys(folder.resolve() for folder in (BUNDLED, *folders)):
        for path in sorted(folder.glob("*/template.yaml")):
            try:
                template = load_template(path)
                if template.name in found:
                    raise TemplateError(f"another template is called {template.name!r}", where=str(path))
            except TemplateError as error:
                if problems is None:
                    raise
                problems.append(error)
                continue
            found[template.name] = template
    return found


def _formula(text: str, known: set[str], where: str) -> None:
    """Check a formula of a template; ValueError says where it stands and what is wrong."""
    try:
        formula = Formula(text)
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from error
    if unknown := sorted(formula.names - known):
        raise ValueError(f"{where}: nothing is called {', '.join(unknown)} there")


def _worked_out(setting: Setting, values: Mapping[str, Value]) -> Value:
    if isinstance(setting, str) and setting.startswith("="):
        return Formula(setting[1:]).value(values)
    return setting


def _reasons(error: ValidationError) -> str:
    return "; ".join(f"{'.'.join(map(str, e['loc'])) or 'plan'}: {e['msg']}" for e in error.errors())
