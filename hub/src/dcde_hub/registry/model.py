"""What the registry says of a person, checked before anything is done with it."""

from __future__ import annotations

import datetime
from dataclasses import dataclass
from typing import Annotated, Literal

from dcde_models import Person
from dcde_models.capabilities import Group
from dcde_models.documents import DcdeId, Document
from pydantic import Field, StringConstraints

Identity = Annotated[str, StringConstraints(pattern=r"^[^\s@/\\:]{1,128}@[A-Za-z0-9.-]{1,126}$", to_lower=True)]
"""An eduPersonPrincipalName, the name of a person at an institution; letter case says nothing in it."""


@dataclass(frozen=True)
class UidRange:
    """The uids that people may have. Below lie root and the system's accounts, above lie those of packages."""

    minimum: int = 50000
    maximum: int = 59999

    def __contains__(self, uid: int) -> bool:
        return self.minimum <= uid <= self.maximum


class Policy(Document):
    """A policy that members accept."""

    title: str
    url: str = Field(pattern=r"^https://[^\s<>\"']+$")


class Member(Document):
    """A person as the registry has them."""

    dcde_id: DcdeId
    uid_number: int = Field(strict=True)
    name: str = Field(min_length=1, max_length=128, pattern=r"^[^\x00-\x1f:]+$")
    email: str = Field("", max_length=254)
    status: Literal["active", "suspended", "expired"]
    identities: list[Identity] = Field(min_length=1)
    groups: list[Group] = Field(default_factory=list)
    policies: dict[str, datetime.date] = Field(default_factory=dict, description="Policy URL -> the day of acceptance.")
    trainings: dict[str, datetime.date] = Field(default_factory=dict, description="Training -> the last valid day.")

    @property
    def active(self) -> bool:
        """Whether the membership is in force."""
        return self.status == "active"

    def person(self, acr: str = "") -> Person:
        """Return what decisions need to know.

        Args:
            acr: The authentication context of the last login; the registry does not know it.
        """
        return Person(
            dcde_id=self.dcde_id,
            name=self.name,
            email=self.email,
            status=self.status,
            groups=self.groups,
            policies=self.policies,
            trainings=self.trainings,
            acr=acr,
        )
