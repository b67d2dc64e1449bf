"""Fixtures of the hub's unit tests.

entry           makes one person's entry of a registry file, with changes
registry_file   writes entries to a registry file and returns it
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

AUP = "https://dcde.example/aup/2"


@pytest.fixture
def entry() -> Callable[..., dict[str, Any]]:
    def make(number: int = 1, **change: Any) -> dict[str, Any]:
        person = {
            "dcde_id": f"dcde100000{number}",
            "uid_number": 51000 + number,
            "name": f"Person {number}",
            "email": f"p{number}@pnnl.example",
            "status": "active",
            "identities": [f"p{number}@pnnl.example"],
            "groups": ["cryoem"],
            "policies": {AUP: "2026-01-15"},
            "trainings": {"cyber-2026": "2027-12-31"},
        }
        return person | change

    return make


@pytest.fixture
def registry_file(tmp_path: Path) -> Callable[..., Path]:
    def write(*entries: dict[str, Any]) -> Path:
        path = tmp_path / "registry.yaml"
        draft = tmp_path / "registry.new"
        content = {"policies": {AUP: {"title": "Acceptable use", "url": AUP}}, "people": list(entries)}
        draft.write_text(yaml.safe_dump(content))
        draft.rename(path)
        return path

    return write
