"""A person's room and account, made for real inside throw-away namespaces (as root, or in a user namespace)."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from .conftest import SOURCES


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("room")
    rootless = ["--user", "--map-root-user", "--map-auto"] if os.geteuid() else []
    argv = ["unshare", *rootless, "--mount", "--net", "--pid", "--ipc", "--uts", "--fork", "--kill-child"]
    driver = Path(__file__).with_name("room_driver.py")
    environment = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "PYTHONPATH": ":".join(map(str, SOURCES))}
    done = subprocess.run(
        [*argv, sys.executable, str(driver), str(folder)], capture_output=True, text=True, env=environment, timeout=110
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return dict(json.loads((folder / "report.json").read_text()))


def test_accounts_are_the_registrys(report: dict[str, Any]) -> None:
    accounts = report["accounts"]
    assert [entry[:3] for entry in accounts["made"]] == [["dcde1000001", 51001, 51001], ["dcde1000002", 51002, 51002]]
    assert accounts["made"][0][4:] == ["/home/dcde1000001", "/bin/bash"]
    assert accounts["same_again"] is True
    assert report["outside"]["home"] == "0o700"


@pytest.mark.parametrize(
    ("case", "words"),
    [
        ("uid_zero", "uid 0"), ("system_uid", "uid 33"), ("range", "51001"), ("other_uid", "another account of this name"),
        ("taken_uid", "belongs to dcde1000001"), ("foreign_home", "belongs to uid 0"), ("linked_home", "cannot be used"),
    ],
)  # fmt: skip
def test_accounts_that_are_refused(report: dict[str, Any], case: str, words: str) -> None:
    assert words in report["accounts"][case]


def test_the_person_has_their_own_rights_and_no_more(report: dict[str, Any]) -> None:
    seen = report["probe"]
    assert seen["uid"] == [51001] * 3 and seen["gid"] == [51001] * 3 and seen["groups"] in ([], [51001])
    assert int(seen["capabilities"], 16) == 0 and seen["no_new_privs"] == "1"
    assert seen["become_root"] == "PermissionError"
    assert seen["umask"] == 0o077 and seen["cwd"] == "/home/dcde1000001" and seen["core"] == [0, 0]


def test_the_room_shows_nothing_of_others(report: dict[str, Any]) -> None:
    folders = report["probe"]["folders"]
    assert folders["/home"] == ["dcde1000001"]
    assert folders["/opt"] == ["dcde"] and folders["/opt/dcde"] == ["user"]
    assert folders["/run"] == folders["/root"] == folders["/srv"] == folders["/etc/dcde"] == []
    assert folders["/tmp"] == folders["/var/tmp"] == folders["/dev/shm"] == []
    assert folders["/var"] == ["tmp"] and folders["/dev/pts"] == ["ptmx"]


def test_the_room_has_namespaces_of_its_own(report: dict[str, Any]) -> None:
    inside, outside = report["probe"]["namespaces"], report["outside"]["namespaces"]
    assert all(inside[name] != outside[name] for name in outside)
    assert len(report["probe"]["processes"]) == 1, "only the own processes, and not even process 1, which is root's"
    assert report["probe"]["first_environ"] in ("PermissionError", "FileNotFoundError")
    assert report["together"]["seen"] == "['dcde1000002'] 1"


def test_what_can_be_written(report: dict[str, Any]) -> None:
    write = report["probe"]["write"]
    assert write.pop("/home/dcde1000001") is True and write.pop("/tmp") is True and write.pop("/dev/shm") is True
    assert set(write.values()) <= {"OSError", "PermissionError"}
    assert report["probe"]["kept"] == "kept"


def test_the_network_is_one_cable_to_the_hub(report: dict[str, Any]) -> None:
    assert report["probe"]["interfaces"] == ["eth0", "lo"]
    assert report["probe"]["hub"] is True
    assert report["probe"]["elsewhere"] in ("OSError", "TimeoutError", "ConnectionRefusedError")


def test_memory_is_limited(report: dict[str, Any]) -> None:
    assert report["probe"]["memory"] == "MemoryError"


def test_exit_status_is_the_servers(report: dict[str, Any]) -> None:
    assert report["status"] == 7
    assert report["outside"]["link_left"] is False


@pytest.mark.parametrize(("how", "status"), [("term", 143), ("interrupt", 143), ("kill", -9)])
def test_nothing_is_left_however_it_ends(report: dict[str, Any], how: str, status: int) -> None:
    ending = report["endings"][how]
    assert ending == {"before": [2, True], "status": status, "processes_gone": True, "link_gone": True}


@pytest.mark.parametrize("case", ["no_program", "bad_address", "no_home"])
def test_nothing_is_left_of_a_room_that_failed(report: dict[str, Any], case: str) -> None:
    failure = report["failures"][case]
    assert failure["status"] == 70 and failure["link_gone"] and failure["mounts"] == 0
    assert json.loads(failure["said"].splitlines()[0])["logger"] == "dcde.room"


def test_a_lost_room_makes_way_for_the_new_one(report: dict[str, Any]) -> None:
    assert report["second"] == {"lost_ended": True, "new_runs": True, "link": True, "processes": 2}


def test_a_visitor_in_an_earlier_room_does_not_hold_up_the_next(report: dict[str, Any]) -> None:
    assert report["visited"] == {"link_stayed": True, "new_runs": True, "visitor_unharmed": True}
