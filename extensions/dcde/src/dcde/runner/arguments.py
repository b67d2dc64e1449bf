"""What each operation of the runner takes: one model each, so that a wrong argument is refused by its name."""

from __future__ import annotations

from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError

from dcde.errors import InvalidParameter

ProjectName = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9-]{0,39}$")]
RunId = Annotated[str, StringConstraints(pattern=r"^r[1-9][0-9]{0,9}$")]
TransferName = Annotated[str, StringConstraints(pattern=r"^t[1-9][0-9]{0,9}$")]
StepId = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_]{0,39}$")]
SiteName = Annotated[str, StringConstraints(min_length=1, max_length=63)]
SitePath = Annotated[str, StringConstraints(max_length=4096, pattern=r"^[^\x00]*$")]
Word = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._+-]{0,62}$")]


class Arguments(BaseModel):
    """No arguments; the root of all others."""

    model_config = ConfigDict(extra="forbid", strict=True)


class FilesList(Arguments):
    """`files.list`."""

    site: SiteName
    path: SitePath = ""
    limit: int = Field(2000, ge=1, le=20000)


class FilesMkdir(Arguments):
    """`files.mkdir`."""

    site: SiteName
    path: SitePath = Field(min_length=1)


class FilesRemove(Arguments):
    """`files.remove`."""

    site: SiteName
    path: SitePath = Field(min_length=1)
    recursive: bool = False


class FilesCopy(Arguments):
    """`files.copy`; both are `site:path`."""

    source: SitePath
    target: SitePath


class FunctionsStart(Arguments):
    """`functions.start`: the kernel's three ports, its Curve certificates by file name, and its versions."""

    site: SiteName
    ports: list[Annotated[int, Field(ge=1024, le=65535)]] = Field(min_length=3, max_length=3)
    certificates: dict[str, str] = Field(max_length=4)
    versions: dict[str, str]
    cores: int = Field(1, ge=1, le=1024)
    workers: int | None = Field(None, ge=1, le=4096)
    minutes: int | None = Field(None, ge=1, le=100_000)
    allocation: Word | None = None
    partition: Word | None = None


class FunctionsStatus(Arguments):
    """`functions.status`: how many blocks of workers are wanted now, and the port they connect to."""

    id: Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{16}$")]
    blocks: int = Field(0, ge=0, le=4096)
    worker_port: int | None = Field(None, ge=1024, le=65535)


class FunctionsStop(Arguments):
    """`functions.stop`."""

    id: Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{16}$")]


class TransferId(Arguments):
    """`transfers.cancel`."""

    id: TransferName


class ProjectArguments(Arguments):
    """`projects.show` and `projects.create`."""

    name: ProjectName


class TemplateArguments(Arguments):
    """`templates.show`."""

    name: str = Field(min_length=1, max_length=63)


class Launch(Arguments):
    """`runs.launch`."""

    template: str = Field(min_length=1, max_length=63)
    parameters: dict[str, Any] = Field(default_factory=dict)
    sites: dict[str, SiteName] = Field(default_factory=dict)
    project: ProjectName | None = None
    allocation: Word | None = None
    partition: Word | None = None
    token: Annotated[str, StringConstraints(min_length=1, max_length=200)] | None = None


class RunArguments(Arguments):
    """`runs.show`, `runs.cancel` and `runs.resume`."""

    run: RunId


class RunLog(Arguments):
    """`runs.log`; `offset` counts bytes."""

    run: RunId
    step: StepId
    stream: Literal["stdout", "stderr"] = "stdout"
    offset: int = Field(0, ge=0)


class RunPicture(Arguments):
    """`runs.picture`."""

    run: RunId
    step: StepId
    name: StepId


class Watch(Arguments):
    """`watch`."""

    run: RunId | None = None


A = TypeVar("A", bound=Arguments)


def checked(model: type[A], args: Any, op: str) -> A:
    """Return the arguments as the operation's model.

    Raises:
        InvalidParameter: One is missing, unknown, of a wrong type or out of range; the message names it.
    """
    try:
        return model.model_validate(args)
    except ValidationError as error:
        reasons = "; ".join(f"{'.'.join(map(str, e['loc'])) or 'args'}: {e['msg']}" for e in error.errors())
        known = ", ".join(model.model_fields) or "none"
        raise InvalidParameter(reasons, where=op, remedy=f"Arguments of {op}: {known}.") from error
