"""Fixtures for tests of the panel and its server extension.

lab_server       a function that starts a real Jupyter server with the extension, as a process of its own on a free
port; it takes
                 `connected` (part of a hub or not), `lab` (JupyterLab itself as well) and further environment; all
                 end with the test
"""

from __future__ import annotations

import http.client
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import dcde_lab
import pytest

HERE = Path(__file__).parent
TOKEN = "server-token-of-a-test"
HUB_TOKEN = "sample-hub-token-of-a-test"


@dataclass
class Answer:
    """What the server answered."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@dataclass
class LabServer:
    """A running Jupyter server."""

    process: subprocess.Popen[bytes]
    port: int
    base: str
    runtime: Path
    log: Path
    headers: dict[str, str] = field(default_factory=lambda: {"Authorization": f"token {TOKEN}"})

    def listens(self) -> bool:
        """Return whether the server takes connections."""
        try:
            socket.create_connection(("127.0.0.1", self.port), timeout=5).close()
        except ConnectionRefusedError:
            return False
        return True

    def request(self, method: str, path: str, body: bytes | None = None, headers: Any = None) -> Answer:
        """Ask the server; `headers` take the place of those with the token."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        try:
            connection.request(method, self.base + path, body, self.headers if headers is None else headers)
            response = connection.getresponse()
            return Answer(response.status, {k.lower(): v for k, v in response.getheaders()}, response.read())
        finally:
            connection.close()

    def call(self, op: str, **args: Any) -> Answer:
        """Carry out one operation of the runner."""
        return self.request("POST", f"dcde/api/{op}", json.dumps(args).encode())

    def picture(self, **query: str) -> Answer:
        """Ask for a picture."""
        return self.request("GET", f"dcde/picture?{urlencode(query)}")

    def log_in(self) -> tuple[str, str]:
        """Log in as a browser does; returns the `Cookie` header and the value for `X-XSRFToken`."""
        page = self.request("GET", "login", headers={})
        cookies = page.headers["set-cookie"].split(";")[0]
        xsrf = cookies.partition("_xsrf=")[2]
        form = f"password={TOKEN}&_xsrf={xsrf}".encode()
        head = {"Cookie": cookies, "Content-Type": "application/x-www-form-urlencoded"}
        login = self.request("POST", "login", form, head)
        assert login.status == 302
        return f"{cookies}; {login.headers['set-cookie'].split(';')[0]}", xsrf

    def wait_for_runner(self, state: str = "up") -> dict[str, Any]:
        """Wait until the runner is in this state."""
        return wait_until(lambda: (s := self.request("GET", "dcde/status").json)["runner"]["state"] == state and s)

    def starts(self) -> list[int]:
        """Return the process ids of the runners that were started so far."""
        path = self.runtime / "starts.log"
        return [int(line) for line in path.read_text().split()] if path.exists() else []


def wait_until(condition: Callable[[], Any], seconds: float = 30.0) -> Any:
    """Return the condition's value as soon as it holds."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if value := condition():
            return value
        time.sleep(0.05)
    raise AssertionError(f"did not come true within {seconds} s: {condition}")


def environment_for(tmp: Path, runtime: Path, connected: bool) -> dict[str, str]:
    """Return the environment of a server whose files all lie below `tmp`, with a hub's token in it."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("JUPYTER", "JPY_", "DCDE_"))}
    folders = {f"JUPYTER_{kind}_DIR": str(tmp / kind.lower()) for kind in ("CONFIG", "DATA", "RUNTIME")}
    lab = {f"JUPYTERLAB_{kind}_DIR": str(tmp / kind.lower()) for kind in ("SETTINGS", "WORKSPACES")}
    own = {
        "HOME": str(tmp),
        "PYTHONPATH": os.pathsep.join(entry for entry in sys.path if entry),
        "DCDE_RUNTIME_DIR": str(runtime),
        "JUPYTER_TOKEN": TOKEN,
        "JUPYTERHUB_API_TOKEN": HUB_TOKEN,
        "JPY_API_TOKEN": HUB_TOKEN,
    }
    hub = {"DCDE_BROKER_URL": "http://broker.example/", "DCDE_KEEPER_URL": "http://keeper.example/"}
    return {**kept, **folders, **lab, **own, **(hub if connected else {})}


def _offer_panel(data: Path) -> None:
    """Let JupyterLab find the built panel: the one in the tree, or the one that is installed."""
    places = [
        Path(dcde_lab.__file__).parent / "labextension",
        Path(sys.prefix) / "share/jupyter/labextensions/@dcde/lab",
    ]
    built = next((place for place in places if (place / "package.json").exists()), None)
    assert built is not None, "The panel is not built; run: pip wheel extensions/lab"
    link = data / "labextensions/@dcde/lab"
    link.parent.mkdir(parents=True, exist_ok=True)
    if not link.exists():
        link.symlink_to(built)


@pytest.fixture
def lab_server(tmp_path: Path) -> Iterator[Callable[..., LabServer]]:
    """Return a function that starts a server."""
    started: list[LabServer] = []

    def start(*, connected: bool = True, lab: bool = False, **environment: str) -> LabServer:
        runtime = tmp_path / "run"
        runtime.mkdir(mode=0o700, exist_ok=True)
        log = tmp_path / f"server{len(started)}.log"
        extensions = {"dcde_lab": True, "jupyter_server_terminals": True} | ({"jupyterlab": True} if lab else {})
        runner = [sys.executable, str(HERE / "scripted_runner.py")]
        argv = [
            *(sys.executable, "-m", "jupyter_server", "--no-browser", "--allow-root", "--ServerApp.port=0"),
            f"--ServerApp.jpserver_extensions={extensions!r}",
            f"--ServerApp.root_dir={tmp_path}",
            "--ServerApp.base_url=/user/ada/",
            *(f"--DcdeExtension.runner_command={part}" for part in runner),
        ]
        if lab:
            _offer_panel(tmp_path / "data")
        with log.open("wb") as out:
            process = subprocess.Popen(
                argv,
                stdout=out,
                stderr=out,
                env=environment_for(tmp_path, runtime, connected) | environment,
                cwd=tmp_path,
            )
        server = LabServer(process, 0, "/user/ada/", runtime, log)
        started.append(server)
        info = tmp_path / "runtime" / f"jpserver-{process.pid}.json"
        wait_until(lambda: (info.exists() and info.read_text()) or process.poll() is not None, 60)
        assert process.poll() is None, log.read_text()
        server.port = json.loads(info.read_text())["port"]
        wait_until(server.listens)  # the file is written a moment before
        return server

    yield start
    for server in started:
        server.process.terminate()
        try:
            server.process.wait(20)
        except subprocess.TimeoutExpired:
            server.process.kill()
            server.process.wait()
