"""The files that the sites' administrators would write, made from what the testbed says of its sites."""

from __future__ import annotations

import datetime
from pathlib import Path
from typing import Any

import yaml
from dcde_models import CapabilityDocument, SiteDescriptor

AUP = "https://dcde.example/aup/2"
"""The policy that everybody must have accepted."""

ALIASES = {"bnl-sdcc": ["bnl", "sdcc"], "ornl-cades": ["ornl", "cades"], "anl-lcrc": ["anl", "lcrc"]}
ACTIONS = ["submit", "transfer.read", "transfer.write"]
TRAININGS = {"anl-lcrc": ["cyber-2026"]}
"""The trainings that a site asks for."""

ONE_SITE_GROUPS = {"ornl-cades": ["cryoem-ornl"]}
"""Groups that may compute at one site only."""


def descriptor(name: str, facts: dict[str, Any]) -> SiteDescriptor:
    """Return the descriptor of a site.

    Args:
        name: The site.
        facts: Its part of the testbed's world.json.
    """
    return SiteDescriptor.model_validate(
        {
            "name": name,
            "title": facts["title"],
            "aliases": ALIASES.get(name, []),
            "description": "A site of the testbed on this machine.",
            "contact": f"mailto:help@{name}.example",
            "ssh": {"hosts": facts["hosts"], "port": facts["port"], "host_keys": [facts["host_key"]]},
            "scheduler": {"nodes": facts["nodes"], "partitions": [_partition(p, facts) for p in facts["partitions"]]},
            "storage": {"root": facts["storage_root"]},
            "dtn": {"host": facts["dtn"]["host"]},
            "worker_interpreter": facts["worker_interpreter"],
            "environment": facts.get("environment", {}),
            "applications": facts.get("applications", {}),
        }
    )


def capabilities(name: str, facts: dict[str, Any]) -> CapabilityDocument:
    """Return the capability document of a site; arguments as for `descriptor`."""
    grant = {
        "actions": ACTIONS,
        "allocations": facts["allocations"],
        "policies": [AUP],
        "trainings": TRAININGS.get(name, []),
        "max_nodes": facts["nodes"],
        "max_walltime_minutes": max(p["max_walltime_minutes"] for p in facts["partitions"]),
    }
    contact = f"mailto:help@{name}.example"
    return CapabilityDocument.model_validate(
        {
            "site": name,
            "version": 1,
            "issued": datetime.date(2026, 1, 1),
            "groups": {group: grant for group in ["cryoem", *ONE_SITE_GROUPS.get(name, [])]},
            "where": {AUP: AUP, "cyber-2026": "https://training.anl.example/cyber-2026", "account": contact}
            | {"group": "https://registry.dcde.example/groups", "status": "mailto:support@dcde.example"},
        }
    )


def write_sites(folder: Path, sites: dict[str, dict[str, Any]]) -> None:
    """Write descriptor, capability document and mapfile of each site to `<folder>/<site>/`."""
    for name, facts in sites.items():
        place = folder / name
        place.mkdir(mode=0o755, parents=True, exist_ok=True)
        for file, document in (("site", descriptor(name, facts)), ("capabilities", capabilities(name, facts))):
            text = yaml.safe_dump(document.model_dump(mode="json"), sort_keys=False, allow_unicode=True)
            (place / f"{file}.yaml").write_text(text, encoding="utf-8")
        lines = [f"{dcde_id}\t{account}\n" for dcde_id, account in sorted(facts["mapfile"].items())]
        (place / "mapfile.tsv").write_text("".join(["# DCDE id, account\n", *lines]), encoding="ascii")


def _partition(partition: dict[str, Any], facts: dict[str, Any]) -> dict[str, Any]:
    return {
        "name": partition["name"],
        "default": partition.get("default", False),
        "max_walltime_minutes": partition["max_walltime_minutes"],
        "cores_per_node": facts["cores_per_node"],
        "memory_mb_per_node": facts["memory_mb_per_node"],
    }
