"""The agent's one file: the same from the same modules, for an old Python, with the standard library alone."""

from __future__ import annotations

import ast
import subprocess
import sys
import zipfile
from pathlib import Path

from dcde import agent
from dcde.link.bootstrap import command, first_line
from dcde.link.bundle import MODULES, agent_bundle

FOLDER = Path(agent.__file__).parent


def test_the_file_holds_every_module_and_nothing_else(tmp_path: Path) -> None:
    assert {path.stem for path in FOLDER.glob("*.py")} == set(MODULES)
    path = tmp_path / "agent.pyz"
    path.write_bytes(agent_bundle().content)
    with zipfile.ZipFile(path) as archive:
        assert len(archive.namelist()) == len(MODULES) + 1


def test_the_same_modules_give_the_same_file() -> None:
    agent_bundle.cache_clear()
    first = agent_bundle()
    agent_bundle.cache_clear()
    assert agent_bundle() == first


def test_the_modules_are_python_3_9_and_import_the_standard_library_alone() -> None:
    for path in FOLDER.glob("*.py"):
        tree = ast.parse(path.read_text(), feature_version=(3, 9))
        for node in ast.walk(tree):
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and node.level == 0:
                names = [node.module or ""]
            else:
                continue
            assert {name.split(".")[0] for name in names} <= sys.stdlib_module_names, path


def test_it_runs_without_site_packages(tmp_path: Path) -> None:
    path = tmp_path / "agent.pyz"
    path.write_bytes(agent_bundle().content)
    done = subprocess.run(
        [sys.executable, "-I", "-S", str(path), "help"], capture_output=True, text=True, check=False, timeout=20
    )
    assert "attach FOLDER DIGEST" in done.stderr


def test_the_start_is_one_line_without_shell_text() -> None:
    line = first_line(agent_bundle(), "/tmp", "~/.dcde")
    assert line.count(b"\n") == 1
    compile(line, "first", "exec")
    assert command("/opt/my python/bin/python3").startswith("'/opt/my python/bin/python3' -I ")
