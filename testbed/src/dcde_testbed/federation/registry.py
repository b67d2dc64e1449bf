"""Looks a person up in the registry file, by the identifier that the institution asserted.

Stands where CILogon reads the LDAP directory that COmanage Registry fills. The file is read anew each time.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

DCDE_ID = re.compile(r"dcde[0-9]{7}")


class RegistryError(Exception):
    """The registry cannot be read or contradicts itself; the message names the file and the reason."""


@dataclass(frozen=True)
class Member:
    """An enrolled person as CILogon would tell it: the DCDE id, and the groups while the membership is active."""

    dcde_id: str
    groups: tuple[str, ...]


def find_member(path: Path, identity: str) -> Member | None:
    """Return the member to whom an institutional identifier belongs, or None if nobody enrolled it.

    A membership that is not active keeps its identifier and has no groups, as in COmanage. Raises RegistryError,
    also when two people claim the identifier: then nobody may have it.
    """
    people = _people(path)
    found = [person for person in people if identity in _strings(person, "identities", path)]
    if not found:
        return None
    if len(found) > 1:
        raise RegistryError(f"{path}: {identity} belongs to {len(found)} people; leave it with one of them")
    person = found[0]
    dcde_id = person.get("dcde_id")
    if not isinstance(dcde_id, str) or not DCDE_ID.fullmatch(dcde_id):
        raise RegistryError(f"{path}: the dcde_id of {identity} is not `dcde` and seven digits")
    groups = _strings(person, "groups", path) if person.get("status") == "active" else ()
    return Member(dcde_id, groups)


def _people(path: Path) -> list[dict[str, Any]]:
    try:
        document = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise RegistryError(f"{path} cannot be read: {error.strerror}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise RegistryError(f"{path} is no YAML: {' '.join(str(error).split())}") from error
    people = document.get("people") if isinstance(document, dict) else None
    if not isinstance(people, list) or not all(isinstance(person, dict) for person in people):
        raise RegistryError(f"{path} has no list `people`")
    return people


def _strings(person: dict[str, Any], key: str, path: Path) -> tuple[str, ...]:
    values = person.get(key, [])
    if not isinstance(values, list) or not all(isinstance(value, str) for value in values):
        raise RegistryError(f"{path}: `{key}` of {person.get('dcde_id', 'a person')} is not a list of strings")
    return tuple(values)
