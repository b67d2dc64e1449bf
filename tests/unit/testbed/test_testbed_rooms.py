"""An /etc of one's own, the front door's certificates, memory groups and the preflight."""

from __future__ import annotations

import ssl
import subprocess
import time
from pathlib import Path

import pytest
from dcde_testbed import certificates, memory, preflight, rooms


@pytest.fixture
def source(tmp_path: Path) -> Path:
    etc = tmp_path / "source"
    (etc / "ssl" / "certs").mkdir(parents=True)
    (etc / "ssl" / "private").mkdir()
    (etc / "ssl" / "private" / "key.pem").write_text("secret")
    (etc / "passwd").write_text(
        "root:x:0:0::/root:/bin/bash\nann:x:1000:1000::/home/ann:/bin/bash\nslurm:x:64030:64030::/:/usr/sbin/nologin\n"
    )
    (etc / "group").write_text("root:x:0:\nann:x:1000:\nslurm:x:64030:\n")
    (etc / "login.defs").write_text("UMASK 022\n")
    return etc


def test_etc_has_no_people_no_secrets_and_no_names_from_outside(source: Path, tmp_path: Path) -> None:
    etc = tmp_path / "etc"
    rooms.make_etc(etc, source)
    assert [line.split(":")[0] for line in (etc / "passwd").read_text().splitlines()] == ["root", "slurm"]
    assert (etc / "shadow").read_text().startswith("root:*:")
    assert (etc / "login.defs").exists()
    assert not (etc / "ssl" / "private").exists()
    assert "hosts: files\n" in (etc / "nsswitch.conf").read_text()


def test_accounts_are_added_whole_and_never_twice(source: Path, tmp_path: Path) -> None:
    etc = tmp_path / "etc"
    rooms.make_etc(etc, source)
    rooms.add_account(etc, "u12345", 31001, home="/home/u12345", shell="/bin/bash")  # noqa: S604
    assert "u12345:x:31001:31001::/home/u12345:/bin/bash\n" in (etc / "passwd").read_text()
    assert "u12345:*:" in (etc / "shadow").read_text()
    assert "u12345:x:31001:\n" in (etc / "group").read_text()
    for name, uid in (("u12345", 31002), ("other", 31001), ("root", 5)):
        with pytest.raises(ValueError, match="taken"):
            rooms.add_account(etc, name, uid)


def test_the_authority_is_good_for_localhost_only_and_lasts(tmp_path: Path) -> None:
    folder = tmp_path / "door"
    certificates.ensure(folder, ["hub.localhost"])
    authority, first = (folder / "ca.crt").read_text(), (folder / "door.crt").read_text()
    certificates.ensure(folder, ["hub.localhost"])
    assert (folder / "door.crt").read_text() == first
    certificates.ensure(folder, ["hub.localhost", "proxy.localhost"])
    assert (folder / "ca.crt").read_text() == authority
    assert (folder / "door.crt").read_text() != first
    assert (folder / "ca.key").stat().st_mode & 0o777 == 0o600
    assert (folder / "door.key").stat().st_mode & 0o777 == 0o600

    def verify(certificate: Path, host: str) -> bool:
        argv = [
            "openssl",
            "verify",
            "-x509_strict",
            "-CAfile",
            str(folder / "ca.crt"),
            "-verify_hostname",
            host,
            str(certificate),
        ]
        return subprocess.run(argv, capture_output=True).returncode == 0

    assert verify(folder / "door.crt", "proxy.localhost")
    assert not verify(folder / "door.crt", "example.org")
    # A certificate for any other name, signed with the authority's own key, is still not believed.
    certificates._issue(folder, ["example.org"])
    assert not verify(folder / "door.crt", "example.org")


def test_the_doors_certificate_can_be_loaded(tmp_path: Path) -> None:
    certificates.ensure(tmp_path, ["hub.localhost"])
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(tmp_path / "door.crt", tmp_path / "door.key")
    trusting = ssl.create_default_context(cafile=str(tmp_path / "ca.crt"))
    assert len(trusting.get_ca_certs()) == 1


V1 = "31 23 0:27 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory\n"
V2 = "30 23 0:26 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw\n"


def test_where_a_memory_group_can_be_made() -> None:
    assert memory.candidates("4:memory:/jobs/a\n0::/\n", V1) == [Path("/sys/fs/cgroup/memory/jobs/a")]
    found = memory.candidates("0::/user.slice/s.scope\n", V2)
    assert found == [
        Path("/sys/fs/cgroup/user.slice/s.scope"),
        Path("/sys/fs/cgroup/user.slice"),
        Path("/sys/fs/cgroup"),
    ]
    container = V1.replace("0:27 / ", "0:27 /docker/abc ")
    assert memory.candidates("4:memory:/docker/abc/x\n", container) == [Path("/sys/fs/cgroup/memory/x")]
    assert memory.candidates("0::/\n", "") == []


def test_a_noted_group_is_removed(tmp_path: Path) -> None:
    group = tmp_path / "dcde-x"
    (group / "dcde1000001").mkdir(parents=True)
    (tmp_path / memory.NOTE).write_text(str(group))
    memory.forget(tmp_path)
    assert not group.exists()
    assert not (tmp_path / memory.NOTE).exists()
    memory.forget(tmp_path)


def test_missing_programs_become_packages() -> None:
    assert preflight.missing_packages(lambda program: True) == []
    assert preflight.missing_packages(lambda program: program not in ("unshare", "nsenter", "nft")) == [
        "nftables",
        "util-linux",
    ]


def test_the_first_line_of_a_name_gives_the_subordinate_ids_as_for_unshare() -> None:
    text = "ann:100000:65536\n1001:165536:65536\n# note\nann:1:5\nbob:300000:5\nbob:400000:65536\n"
    assert preflight.subordinate_ids(text, "ann") == 65536
    assert preflight.subordinate_ids(text, "bob") == 5
    assert preflight.subordinate_ids(text, "eve") == 0


def test_a_trial_that_hangs_ends_with_all_it_started(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The helper that a failing unshare leaves holds the output open and must not be waited for."""
    monkeypatch.setattr(preflight, "TRIAL_SECONDS", 0.5)
    pid = tmp_path / "pid"
    left = f"sleep 1000 & echo $! > {pid}; echo no space >&2; exit 1"
    assert preflight._attempt("sh", "-c", left) == "no space"
    state = Path("/proc", pid.read_text().strip(), "stat")
    end = time.monotonic() + 5
    while state.exists() and " Z " not in state.read_text():
        assert time.monotonic() < end
        time.sleep(0.01)
    assert preflight._attempt("sleep", "1000") == "no answer"
    assert preflight._attempt("true") is None


def test_the_preflight_says_what_an_ordinary_user_lacks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(preflight.os, "geteuid", lambda: 64999)
    said = "\n".join(preflight._user_problems())
    assert "/etc/subuid" in said
    assert "usermod --add-subgids" in said
