"""Secret files: nobody else reads them, and what others could read is not believed."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest
from dcde_hub.errors import SecretRefused
from dcde_hub.secretfile import ensure_secret, read_secret, write_secret


def test_made_once_and_private(tmp_path: Path) -> None:
    path = tmp_path / "token"
    first = ensure_secret(path)
    assert len(first) == 64 and ensure_secret(path) == first == read_secret(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o610, 0o644])
def test_what_others_may_read_is_refused(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "token"
    write_secret(path, "text")
    path.chmod(mode)
    with pytest.raises(SecretRefused, match="Others"):
        read_secret(path)


def test_empty_missing_and_folders_are_refused(tmp_path: Path) -> None:
    write_secret(tmp_path / "empty", "")
    (tmp_path / "folder").mkdir(mode=0o700)
    for name in ("empty", "missing", "folder"):
        with pytest.raises(SecretRefused):
            read_secret(tmp_path / name)
