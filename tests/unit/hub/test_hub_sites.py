"""The sites' files as the broker reads them, made here by the demonstration's generator."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from dcde_demo.sites import write_sites
from dcde_hub.broker.service import may_enter
from dcde_hub.broker.sites import SiteFolder, SiteUnavailable, read_mapfile
from dcde_hub.errors import Unknown
from dcde_models import InvalidDocument, Person

FACTS: dict[str, Any] = {
    "title": "A site", "hosts": ["login.example"], "port": 2222, "host_key": "ssh-ed25519 AAAA", "storage_root": "/store",
    "dtn": {"host": "dtn.example"}, "nodes": 2, "cores_per_node": 2, "memory_mb_per_node": 1000, "allocations": ["dcde"],
    "partitions": [{"name": "batch", "max_walltime_minutes": 120, "default": True}, {"name": "debug", "max_walltime_minutes": 10}],
    "worker_interpreter": "/opt/dcde/site/bin/python", "environment": {"init": ["source /etc/profile.d/modules.sh"]},
    "applications": {"relion": {"version": "3.1.3", "setup": ["module load relion/3.1.3"], "programs": {"ctffind": "ctffind"}}},
}  # fmt: skip
MAPFILES = {
    "bnl-sdcc": {"dcde1000001": "u12345"},
    "ornl-cades": {"dcde1000001": "d7c", "dcde1000002": "mt9"},
    "anl-lcrc": {"dcde1000001": "drivers", "dcde1000002": "mt"},
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_sites(tmp_path, {site: FACTS | {"mapfile": mapfile} for site, mapfile in MAPFILES.items()})
    return tmp_path


def person(**change: Any) -> Person:
    known = {"policies": {"https://dcde.example/aup/2": "2026-01-15"}, "trainings": {"cyber-2026": "2099-12-31"}}
    return Person.model_validate({"dcde_id": "dcde1000001", "name": "P", "groups": ["cryoem"]} | known | change)


def test_the_files_are_read_as_written(folder: Path) -> None:
    sites = {site.descriptor.name: site for site in SiteFolder(folder).all()}
    assert list(sites) == ["anl-lcrc", "bnl-sdcc", "ornl-cades"]
    assert sites["bnl-sdcc"].accounts == {"dcde1000001": "u12345"}
    assert sites["bnl-sdcc"].descriptor.applications["relion"].setup == ["module load relion/3.1.3"]
    assert sites["anl-lcrc"].descriptor.ssh.port == 2222 and sites["anl-lcrc"].descriptor.answers_to("anl")


@pytest.mark.parametrize(
    ("site", "change", "allowed", "missing"),
    [
        ("bnl-sdcc", {}, True, ""),
        ("anl-lcrc", {}, True, ""),
        ("anl-lcrc", {"trainings": {}}, False, "cyber-2026"),
        ("anl-lcrc", {"trainings": {"cyber-2026": "2026-01-01"}}, False, "cyber-2026"),
        ("bnl-sdcc", {"trainings": {}}, True, ""),
        ("bnl-sdcc", {"policies": {}}, False, "aup/2"),
        ("bnl-sdcc", {"groups": ["cryoem-ornl"]}, False, "cryoem"),
        ("bnl-sdcc", {"dcde_id": "dcde1000002"}, False, "account"),
        ("ornl-cades", {"dcde_id": "dcde1000002", "groups": ["cryoem-ornl"]}, True, ""),
        ("anl-lcrc", {"dcde_id": "dcde1000002", "groups": ["cryoem-ornl"]}, False, "group"),
        ("bnl-sdcc", {"status": "suspended"}, False, "suspended"),
    ],
)
def test_who_may_enter(folder: Path, site: str, change: dict[str, Any], allowed: bool, missing: str) -> None:
    decision = may_enter(person(**change), SiteFolder(folder).get(site))
    assert decision.allowed is allowed
    assert missing in decision.reason + decision.remedy


def test_a_change_acts_at_once_and_a_broken_site_lets_nobody_in(folder: Path) -> None:
    sites = SiteFolder(folder)
    assert sites.get("bnl-sdcc").accounts
    (folder / "bnl-sdcc/mapfile.tsv").write_text("")
    assert sites.get("bnl-sdcc").accounts == {}
    (folder / "bnl-sdcc/capabilities.yaml").write_text("site: bnl-sdcc\n")
    with pytest.raises(SiteUnavailable, match="capabilities"):
        sites.get("bnl-sdcc")
    assert [site.descriptor.name for site in sites.all()] == ["anl-lcrc", "ornl-cades"]
    (folder / "ornl-cades/capabilities.yaml").write_bytes((folder / "anl-lcrc/capabilities.yaml").read_bytes())
    with pytest.raises(SiteUnavailable, match="another site"):
        sites.get("ornl-cades")


@pytest.mark.parametrize("name", ["nowhere", "..", "bnl-sdcc/", "BNL", ""])
def test_unknown_sites(folder: Path, name: str) -> None:
    with pytest.raises(Unknown):
        SiteFolder(folder).get(name)


@pytest.mark.parametrize(
    "text", ["dcde1000001 u1\n", "root\tu1\n", "dcde1000001\troot:x\n", "dcde1000001\ta\ndcde1000001\tb\n", "dcde1000001\ta\ndcde1000002\ta\n"]
)  # fmt: skip
def test_bad_mapfiles(tmp_path: Path, text: str) -> None:
    (tmp_path / "mapfile.tsv").write_text(text)
    with pytest.raises(InvalidDocument):
        read_mapfile(tmp_path / "mapfile.tsv")
