"""The registry in one YAML file: small hubs, demonstrations and tests.

    policies: {"https://dcde.example/aup/2": {title: "Acceptable use policy", url: "https://dcde.example/aup/2"}}
    people:
      - {dcde_id: dcde1000001, uid_number: 51001, name: David Rivers, email: drivers@pnnl.example, status: active,
         identities: [drivers@pnnl.example], groups: [cryoem], policies: {"https://dcde.example/aup/2": "2026-01-15"},
         trainings: {cyber-2026: "2027-12-31"}}

One bad entry refuses that person and nobody else; a file that is broken as a whole leaves the last good one in force.
"""

from __future__ import annotations

import logging
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from dcde_hub.errors import EntryRefused, RegistryUnavailable
from dcde_hub.registry.backend import Registry
from dcde_hub.registry.model import Member, Policy, UidRange

log = logging.getLogger("dcde.registry")

_MEND = "Ask the operators of this hub to correct your entry in the registry."


class _File(BaseModel):
    """The outer shape of the file; the entries are checked one by one."""

    model_config = ConfigDict(extra="forbid")

    policies: dict[str, Policy] = Field(default_factory=dict)
    people: list[dict[str, Any]] = Field(default_factory=list)


@dataclass
class _Content:
    """One reading of the file."""

    policies: dict[str, Policy] = field(default_factory=dict)
    by_id: dict[str, Member] = field(default_factory=dict)
    by_identity: dict[str, Member] = field(default_factory=dict)
    refused: dict[str, str] = field(default_factory=dict)
    """DCDE id or identity -> why that entry is not used."""


class FileRegistry(Registry):
    """Reads the file again whenever it has changed.

    Args:
        path: The file.
        uids: The uids that people may have.
    """

    def __init__(self, path: Path, uids: UidRange | None = None) -> None:
        self._path = path
        self._uids = uids or UidRange()
        self._seen: tuple[int, int, int] | None = None
        self._content: _Content | None = None

    async def by_id(self, dcde_id: str) -> Member | None:
        content = self._read()
        if reason := content.refused.get(dcde_id):
            raise EntryRefused(reason, where=dcde_id, remedy=_MEND)
        return content.by_id.get(dcde_id)

    async def by_identity(self, identity: str) -> Member | None:
        content = self._read()
        if reason := content.refused.get(identity.lower()):
            raise EntryRefused(reason, where=identity, remedy=_MEND)
        return content.by_identity.get(identity.lower())

    async def policies(self) -> dict[str, Policy]:
        return self._read().policies

    def _read(self) -> _Content:
        try:
            status = self._path.stat()
            seen = (status.st_mtime_ns, status.st_ino, status.st_size)
            if seen != self._seen:
                self._seen = seen
                self._content = _parse(self._path.read_text(encoding="utf-8"), self._uids)
                log.info("read %d people from the registry file", len(self._content.by_id))
        except (OSError, ValueError, yaml.YAMLError) as error:
            # Kept apart from entries: a file cut in the middle must not look like everybody having left.
            kept = "the last good one stays in force" if self._content else "nobody can log in"
            log.error("the registry file %s is broken, %s: %s", self._path, kept, error)
        if self._content is None:
            raise RegistryUnavailable(
                "The registry cannot be read.", where=str(self._path), remedy="Tell the operators of this hub."
            )
        return self._content


def _parse(text: str, uids: UidRange) -> _Content:
    """Return the content of a registry file; ValueError or YAMLError when it is broken as a whole."""
    file = _File.model_validate(yaml.safe_load(text))
    content = _Content(policies=file.policies)
    members: list[Member] = []
    for entry in file.people:
        member, reason = _check(entry, uids)
        if member:
            members.append(member)
        else:
            _refuse(content, entry, reason)
    _refuse_doubles(content, members)
    for member in members:
        if member.dcde_id not in content.refused:
            content.by_id[member.dcde_id] = member
            content.by_identity.update(dict.fromkeys(member.identities, member))
    return content


def _check(entry: dict[str, Any], uids: UidRange) -> tuple[Member | None, str]:
    try:
        member = Member.model_validate(entry)
    except ValidationError as error:
        fields = ", ".join(".".join(map(str, e["loc"])) for e in error.errors())
        return None, f"The registry's entry of this person is not valid ({fields})."
    if member.uid_number not in uids:
        return None, (
            f"The registry's uid_number {member.uid_number} is outside {uids.minimum} to {uids.maximum}, "
            "the numbers that people may have."
        )
    return member, ""


def _refuse(content: _Content, entry: dict[str, Any], reason: str) -> None:
    log.error("the registry entry %r is not used: %s", str(entry.get("dcde_id"))[:64], reason)
    identities = entry.get("identities")
    for name in (entry.get("dcde_id"), *(identities if isinstance(identities, list) else ())):
        if isinstance(name, str):
            content.refused[name.lower()] = reason


def _refuse_doubles(content: _Content, members: list[Member]) -> None:
    """Refuse everyone who shares an id, uid or identity: nobody can tell from the file whose it is."""
    ids = Counter(m.dcde_id for m in members)
    uids = Counter(m.uid_number for m in members)
    identities = Counter(i for m in members for i in set(m.identities))
    for member in members:
        shared = [
            *(["dcde_id"] if ids[member.dcde_id] > 1 or member.dcde_id in content.refused else []),
            *(["uid_number"] if uids[member.uid_number] > 1 else []),
            *(["identities"] if any(identities[i] > 1 or i in content.refused for i in member.identities) else []),
        ]
        if shared:
            reason = f"The registry has several entries with the same {', '.join(shared)}."
            _refuse(content, member.model_dump(), reason)
