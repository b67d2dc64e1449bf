"""The capability document: what the members of each group may do at a site; and the person it is applied to."""

from __future__ import annotations

import datetime
from typing import Annotated, Literal

from pydantic import Field, StringConstraints

from dcde_models.documents import DcdeId, Document, Name
from dcde_models.sites import Word

Action = Literal["submit", "transfer.read", "transfer.write"]

ACTIONS: dict[Action, str] = {
    "submit": "run jobs",
    "transfer.read": "read files",
    "transfer.write": "write files",
}
"""Every action there is, and how it is called in sentences."""

Group = Annotated[str, StringConstraints(pattern=r"^[A-Za-z][A-Za-z0-9._:-]{0,126}$")]

REFEDS_MFA = "https://refeds.org/profile/mfa"
"""The authentication context of a login with a second factor, see https://refeds.org/profile/mfa."""


class GroupCapability(Document):
    """What the members of one group may do at the site, and what each of them must have done before."""

    actions: list[Action] = Field(min_length=1)
    partitions: list[Word] = Field(default_factory=list, description="Partitions they may use; empty means all.")
    allocations: list[Word] = Field(default_factory=list, description="Allocations they may charge.")
    max_walltime_minutes: int | None = Field(None, ge=1)
    max_nodes: int | None = Field(None, ge=1)
    assurance: str | None = Field(None, description="The authentication context that the login must have had.")
    policies: list[str] = Field(default_factory=list, description="URLs of policies each must have accepted.")
    trainings: list[Name] = Field(default_factory=list, description="Trainings each must hold and not have expired.")


class CapabilityDocument(Document):
    """What each group may do at one site. Written and owned by the site."""

    site: Name
    version: int = Field(ge=1)
    issued: datetime.date
    groups: dict[Group, GroupCapability]
    where: dict[str, str] = Field(
        default_factory=dict,
        description="Where to get what can be missing: policy URL, training name, 'group' or 'account' -> an address.",
    )


class Person(Document):
    """A member of the registry, as far as decisions need to know."""

    dcde_id: DcdeId
    name: str
    email: str = ""
    status: Literal["active", "suspended", "expired"] = "active"
    groups: list[str] = Field(default_factory=list)
    policies: dict[str, datetime.date] = Field(default_factory=dict, description="Policy URL -> the day of acceptance.")
    trainings: dict[str, datetime.date] = Field(default_factory=dict, description="Training -> the last valid day.")
    acr: str = Field("", description="The authentication context of the last login.")
