"""Jupyter servers outside any world, from the environment of people's servers, in folders of their own."""

from __future__ import annotations

import contextlib
import os
import secrets
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Mapping
from pathlib import Path

from benchmarks import ENVIRONMENTS, ROOT
from benchmarks.worlds import free_port

PYTHON = ENVIRONMENTS / "user/bin/python"
RUNNER = ROOT / "tests/functional/lab/scripted_runner.py"
EXTENSIONS = ENVIRONMENTS / "user/share/jupyter/labextensions"
OURS = "@dcde"


@contextlib.contextmanager
def lab(folder: Path, *, panel: bool) -> Iterator[str]:
    """Run JupyterLab until the block ends; yields its address as soon as its API answers.

    Args:
        folder: A private folder, which is also the home.
        panel: With our panel and server extension and a runner that plays a script; or without them.
    """
    port, token = free_port(), secrets.token_hex()
    for name in ("home", "config", "run", "extensions"):
        (folder / name).mkdir(mode=0o700, parents=True, exist_ok=True)
    # A panel that is switched off is loaded in part all the same, so one that is to be away is not shown at all.
    for extension in EXTENSIONS.iterdir():
        if panel or extension.name != OURS:
            (folder / "extensions" / extension.name).symlink_to(extension)
    argv = [
        *(str(PYTHON), "-m", "jupyterlab", "--no-browser", "--allow-root", f"--ServerApp.port={port}"),
        *("--ServerApp.port_retries=0", f"--ServerApp.root_dir={folder / 'home'}"),
        *("--LabApp.news_url=None", f"--LabApp.labextensions_path={folder / 'extensions'}"),
        "--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate",
        f"--ServerApp.jpserver_extensions={ {'dcde_lab': panel}!r}",
        *(f"--DcdeExtension.runner_command={part}" for part in (sys.executable, str(RUNNER)) if panel),
    ]
    with (folder / "server.log").open("wb") as log:
        process = subprocess.Popen(argv, env=_environment(folder, token), cwd=folder / "home", stdout=log, stderr=log)
    try:
        _answers(f"http://127.0.0.1:{port}/api", process, folder / "server.log")
        yield f"http://127.0.0.1:{port}/lab?token={token}"
    finally:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _environment(folder: Path, token: str) -> Mapping[str, str]:
    places = {f"JUPYTER_{kind}_DIR": str(folder / kind.lower()) for kind in ("CONFIG", "DATA", "RUNTIME")}
    hub = {"DCDE_BROKER_URL": "http://broker.example/", "DCDE_KEEPER_URL": "http://keeper.example/"}
    own = {"HOME": str(folder / "home"), "PATH": os.environ["PATH"], "LANG": "C.UTF-8"}
    tokens = {"JUPYTER_TOKEN": token, "JUPYTERHUB_API_TOKEN": secrets.token_hex()}
    return {**own, **places, **hub, **tokens, "DCDE_RUNTIME_DIR": str(folder / "run")}


def _answers(url: str, process: subprocess.Popen[bytes], log: Path, seconds: float = 120.0) -> None:
    """Return when the address answers; RuntimeError with the server's log when it ends or does not come."""
    end = time.monotonic() + seconds
    while process.poll() is None and time.monotonic() < end:
        with contextlib.suppress(OSError), urllib.request.urlopen(url, timeout=5) as answer:  # noqa: S310 - loopback
            if answer.status == 200:
                return
        time.sleep(0.05)
    raise RuntimeError(f"JupyterLab did not start:\n{log.read_text(errors='replace')[-2000:]}")
