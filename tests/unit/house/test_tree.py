"""What must never be committed, and what every clone must have."""

import re
import subprocess
from pathlib import Path

ROOT = Path(__file__).parents[3]


def tracked():
    done = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True)
    return [ROOT / name for name in done.stdout.split("\0") if name and (ROOT / name).is_file()]


def test_lock_files_carry_no_address():
    locks = [p for p in tracked() if p.name == "package-lock.json" or p.parent.name == "locks"]
    assert len(locks) >= 6
    for path in locks:
        text = path.read_text()
        assert '"resolved"' not in text, path
        if path.suffix == ".txt":
            assert "://" not in text, path


def test_no_secret_and_no_generated_bundle_is_tracked():
    for path in tracked():
        assert "labextension/static" not in str(path)
        if path.suffix not in {".png", ".ico"} and path != Path(__file__):
            text = path.read_text(errors="replace")
            assert not re.search(r"-----BEGIN [A-Z ]*PRIVATE KEY-----\n[A-Za-z0-9+/]{20}", text), path


def test_no_large_file_is_tracked():
    assert [p for p in tracked() if p.stat().st_size > 1 << 20] == []


def test_the_required_top_level_is_there():
    for name in (
        "hub",
        "extensions",
        "notebooks/templates",
        "helm",
        "tests",
        "pyproject.toml",
        "Makefile",
        "README.md",
    ):
        assert (ROOT / name).exists(), name
