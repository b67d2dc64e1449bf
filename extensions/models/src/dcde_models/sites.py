"""The site descriptor: what DCDE must know of a laboratory's computing to use it.

A site administrator writes one YAML file; its JSON Schema is published in docs/reference. It holds no secret.
"""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, StringConstraints, model_validator

from dcde_models.documents import Document, Name

HostName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9]([A-Za-z0-9.-]{0,252}[A-Za-z0-9])?$")]
AbsolutePath = Annotated[str, StringConstraints(pattern=r"^/[^\x00\n]*$")]
Word = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._+-]{0,62}$")]
"""A word that may stand on a scheduler's command line: letters, digits, dot, underscore, plus, hyphen."""


class Ssh(Document):
    """How the login hosts of a site are reached."""

    hosts: list[HostName] = Field(min_length=1, description="The login hosts, the preferred one first.")
    port: int = Field(22, ge=1, le=65535, description="The port of the ssh server on the login hosts.")
    host_keys: list[str] = Field(
        min_length=1,
        description="Public host keys as in known_hosts ('ssh-ed25519 AAAA...'). Pinned at onboarding, never learned.",
    )


class Partition(Document):
    """A partition (queue) of the scheduler."""

    name: Word
    default: bool = False
    max_walltime_minutes: int = Field(ge=1, description="The longest walltime of a job, in minutes.")
    cores_per_node: int = Field(ge=1)
    memory_mb_per_node: int = Field(ge=1, description="Memory of a node, in MB.")
    gpus_per_node: int = Field(0, ge=0)


class Scheduler(Document):
    """The batch system of a site."""

    type: Literal["slurm"] = "slurm"
    nodes: int = Field(ge=1, description="The number of compute nodes.")
    partitions: list[Partition] = Field(min_length=1)

    @property
    def default_partition(self) -> Partition:
        """The partition that is used when a person names none."""
        return next((p for p in self.partitions if p.default), self.partitions[0])


class Storage(Document):
    """Where the files of DCDE lie at a site; a person's own are in the folder named after the account."""

    root: AbsolutePath


class Dtn(Document):
    """The data transfer node of a site and, when there is one, its Globus collection."""

    host: HostName
    collection: str | None = Field(None, description="The UUID of the Globus collection; users never see it.")


class Environment(Document):
    """What a shell must do at the site before any application can be set up."""

    init: list[str] = Field(default_factory=list, description="Shell lines, written by the site administrator.")


class Application(Document):
    """An application installed at the site."""

    version: str = Field(description="The version as the application itself prints it, such as 3.1.3.")
    setup: list[str] = Field(default_factory=list, description="Shell lines that make the programs callable.")
    programs: dict[Word, str] = Field(
        default_factory=dict, description="Further programs it needs: the general name and what it is called here."
    )


class SiteDescriptor(Document):
    """Everything DCDE knows of one site."""

    name: Name
    aliases: list[Name] = Field(default_factory=list, description="Shorter names that people may type.")
    title: str = Field(min_length=1, max_length=80)
    description: str = ""
    contact: str = Field("", description="Where people turn to with questions about this site.")
    ssh: Ssh
    scheduler: Scheduler
    storage: Storage
    dtn: Dtn | None = None
    interpreter: AbsolutePath = Field(
        "/usr/bin/python3", description="Python >= 3.9 on the login hosts, for the agent."
    )
    worker_interpreter: AbsolutePath = Field(
        "/usr/bin/python3", description="Python with numpy on the compute nodes, for checks and pictures."
    )
    agent_directory: AbsolutePath = Field("/tmp", description="A node-local file system on the login hosts.")  # noqa: S108
    environment: Environment = Field(default_factory=Environment)
    applications: dict[Name, Application] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _one_default(self) -> Self:
        if sum(p.default for p in self.scheduler.partitions) > 1:
            raise ValueError("only one partition can be the default")
        return self

    def answers_to(self, name: str) -> bool:
        """Tell whether `name` is the site's name or one of its aliases."""
        return name == self.name or name in self.aliases
