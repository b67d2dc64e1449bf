"""What `prepare` leaves behind, and that nothing is believed without the operator's signature."""

from __future__ import annotations

import os
import pwd
import re
import subprocess
import tempfile
from dataclasses import replace
from pathlib import Path

import pytest
from dcde_testbed.federation import Runtime, prepare


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_second_time_changes_nothing(tmp_path: Path, runtime: Runtime) -> None:
    prepare(tmp_path, 8765, runtime)
    first = contents(tmp_path)
    assert {"registry.yaml", "federation/client_secret", "federation/private/metadata.xml"} <= first.keys()
    prepare(tmp_path, 8765, runtime)
    assert contents(tmp_path) == first


def test_another_port_keeps_keys_and_secret(tmp_path: Path, runtime: Runtime) -> None:
    prepare(tmp_path, 8765, runtime)
    first = contents(tmp_path)
    prepare(tmp_path, 8766, runtime)
    second = contents(tmp_path)
    assert b"pnnl.localhost:8766" in second["federation/private/metadata.xml"]
    assert b"localhost:8765" not in b"".join(second.values())
    changed = {name for name in first if first[name] != second[name]}
    assert changed == {f"federation/private/{name}" for name in ("metadata.xml", "clients.json", "settings.json")}


def test_an_interrupted_first_time_is_completed(tmp_path: Path, runtime: Runtime) -> None:
    federation = prepare(tmp_path, 8765, runtime)
    federation.settings.settings_file.unlink()
    federation.settings.metadata_file.unlink()
    federation.settings.certificate_file("bnl").unlink()
    prepare(tmp_path, 8765, runtime)
    assert federation.settings.metadata_file.exists()
    assert federation.settings.settings_file.exists()


def spoil_address(metadata: str) -> str:
    return metadata.replace("https://pnnl.localhost:8765/sso", "https://evil.localhost:8765/sso")


def drop_signature(metadata: str) -> str:
    return re.sub(r"<(\w+):Signature\b.*?</\1:Signature>", "", metadata, flags=re.DOTALL)


@pytest.mark.parametrize("spoil", [spoil_address, drop_signature])
@pytest.mark.parametrize("part", [0, 1])
def test_metadata_that_the_operator_did_not_sign_stop_the_start(
    tmp_path: Path, runtime: Runtime, part: int, spoil: object
) -> None:
    federation = prepare(tmp_path, 8765, runtime)
    path = federation.settings.metadata_file
    spoiled = spoil(path.read_text())  # type: ignore[operator]
    assert spoiled != path.read_text()
    path.write_text(spoiled)
    process = federation.processes()[part]
    done = subprocess.run(process.argv, env=process.environment, cwd="/", capture_output=True, text=True, timeout=60)
    assert done.returncode == 3
    assert "SignatureError" in done.stderr or "not signed" in done.stderr


@pytest.mark.skipif(os.getuid() != 0, reason="only root can give files to another account")
def test_the_account_owns_what_is_private(runtime: Runtime) -> None:
    with tempfile.TemporaryDirectory() as folder:  # not pytest's, which nobody else may pass
        state = Path(folder)
        state.chmod(0o711)
        federation = prepare(state, 8765, replace(runtime, account="nobody"))
        nobody = pwd.getpwnam("nobody").pw_uid
        assert {path.stat().st_uid for path in federation.settings.folder.rglob("*")} == {nobody}
        assert federation.client_secret_file.stat().st_uid == 0
        assert all(process.user == "nobody" for process in federation.processes())
