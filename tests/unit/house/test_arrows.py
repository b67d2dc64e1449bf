"""The arrows between the distributions point one way, and the heavy parts load when first used."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]

SOURCES = {
    "dcde_models": ROOT / "extensions/models/src/dcde_models",
    "dcde": ROOT / "extensions/dcde/src/dcde",
    "dcde_lab": ROOT / "extensions/lab/dcde_lab",
    "dcde_hub": ROOT / "hub/src/dcde_hub",
    "dcde_testbed": ROOT / "testbed/src/dcde_testbed",
    "dcde_demo": ROOT / "demo/src/dcde_demo",
}

MAY_IMPORT = {
    "dcde_models": set(),
    "dcde": {"dcde_models"},
    "dcde_lab": {"dcde", "dcde_models"},
    "dcde_hub": {"dcde_models"},
    "dcde_testbed": set(),
    "dcde_demo": set(SOURCES),
}

FACE = {"api", "cli", "show", "tables", "widgets", "kernel", "functions"}
ENGINE = {"runner", "placement", "pipelines", "jobs", "data", "link", "agent", "credentials"}


def imports(path):
    """Yield the full dotted names that a source file imports, wherever in the file."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = ".".join([*package_of(path, node.level), *([node.module] if node.module else [])])
            yield base
            yield from (f"{base}.{alias.name}" for alias in node.names)


def package_of(path, level):
    """Return the package that a relative import of so many dots starts from; nothing for an absolute one."""
    if not level:
        return []
    top = next(folder for folder in path.parents if folder in SOURCES.values())
    package = (top.name, *path.parent.relative_to(top).parts)
    return package[: len(package) - level + 1]


def files(package):
    return sorted(SOURCES[package].rglob("*.py"))


@pytest.mark.parametrize("package", SOURCES)
def test_a_distribution_imports_only_what_it_may(package):
    assert files(package), f"{package} has no sources"
    for path in files(package):
        ours = {name.split(".")[0] for name in imports(path)} & set(SOURCES)
        assert ours <= MAY_IMPORT[package] | {package}, path


def part(path):
    return path.relative_to(SOURCES["dcde"]).parts[0].removesuffix(".py")


def test_face_and_engine_do_not_import_each_other():
    for path in files("dcde"):
        parts = {name.split(".")[1] for name in imports(path) if name.startswith("dcde.")}
        if part(path) in FACE:
            assert not parts & ENGINE, path
        if part(path) in ENGINE:
            assert not parts & (FACE | {"client"}), path


def test_only_kernel_and_widgets_know_jupyter():
    jupyter = {
        "jupyterlab",
        "jupyter_server",
        "jupyter_client",
        "jupyterhub",
        "ipykernel",
        "IPython",
        "ipywidgets",
        "traitlets",
    }
    for path in files("dcde"):
        if part(path) not in {"kernel", "widgets"}:
            assert not jupyter & {name.split(".")[0] for name in imports(path)}, path


def test_the_panel_knows_the_client_and_nothing_of_the_engine():
    for path in files("dcde_lab"):
        parts = {name.split(".")[1] for name in imports(path) if name.startswith("dcde.")}
        assert not parts & ENGINE, path


def test_the_agent_and_what_jobs_run_need_only_the_standard_library():
    alone = [*(SOURCES["dcde"] / "agent").rglob("*.py"), SOURCES["dcde"] / "jobs/job.py"]
    for path in alone:
        foreign = {n.split(".")[0] for n in imports(path)} - set(sys.stdlib_module_names)
        assert foreign <= {"dcde"}, path
        assert all(n.startswith("dcde.agent") for n in imports(path) if n.split(".")[0] == "dcde"), path


def test_importing_the_library_is_light():
    heavy = "{'parsl', 'zmq', 'globus_sdk', 'asyncssh', 'IPython', 'ipywidgets', 'numpy'}"
    code = f"import sys, dcde; print(sorted({heavy} & set(sys.modules)))"
    env = {"PYTHONPATH": f"{SOURCES['dcde'].parent}:{SOURCES['dcde_models'].parent}"}
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
