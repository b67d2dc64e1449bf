"""A real Jupyter server with the extension: its DCDE kernels come from its warm process, and all ends with it."""

import http.client
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from .conftest import ROOT, exists, state

TOKEN = "hub-token-of-a-test"


def until(condition, seconds=60):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if value := condition():
            return value
        time.sleep(0.05)
    raise AssertionError("did not come true")


def children(pid, command):
    """Return the children of a process whose command line has the text."""
    found = Path(f"/proc/{pid}/task").glob("*/children")
    pids = [int(child) for file in found for child in file.read_text().split()]
    return [
        child for child in pids if command in Path(f"/proc/{child}/cmdline").read_bytes().replace(b"\0", b" ").decode()
    ]


@pytest.fixture
def server(place, monkeypatch):
    """Start a server as a hub does, with a token in its environment; yields its process and how to ask it."""
    installed = place / "site" / "dcde-0.dist-info"  # what a wheel would say about the provisioner
    installed.mkdir(parents=True)
    (installed / "METADATA").write_text("Metadata-Version: 2.1\nName: dcde\nVersion: 0\n")
    entry = "dcde-warm = dcde.kernel.provisioner:WarmProvisioner"
    (installed / "entry_points.txt").write_text(f"[jupyter_client.kernel_provisioners]\n{entry}\n")
    shutil.copytree(ROOT / "extensions/dcde/kernelspec", place / "JUPYTER_DATA_DIR/kernels/dcde")
    sources = [place / "site", ROOT / "extensions/dcde/src", ROOT / "extensions/models/src", ROOT / "extensions/lab"]
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(map(str, sources)),
        "JUPYTER_CONFIG_DIR": str(place / "config"),
        "JUPYTERHUB_API_TOKEN": TOKEN,
        "JUPYTER_TOKEN": "t",
        "DCDE_BROKER_URL": "http://broker.example/",
    }
    runner = [sys.executable, "-c", "import time; time.sleep(600)"]
    argv = [
        *(sys.executable, "-m", "jupyter_server", "--no-browser", "--allow-root", "--ServerApp.port=0"),
        *(f"--ServerApp.jpserver_extensions={ {'dcde_lab': True}!r}", "--KernelManager.transport=ipc"),
        *(f"--DcdeExtension.runner_command={part}" for part in runner),
    ]
    with (place / "log").open("wb") as log:
        process = subprocess.Popen(argv, env=environment, cwd=place, stdout=log, stderr=log)
    info = place / f"JUPYTER_RUNTIME_DIR/jpserver-{process.pid}.json"

    def ask(method, path, body=None):
        port = json.loads(info.read_text())["port"]
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
        try:
            connection.request(method, path, json.dumps(body) if body else None, {"Authorization": "token t"})
            answer = connection.getresponse()
            text = answer.read()
            assert answer.status < 300, text
            return json.loads(text) if text else None
        finally:
            connection.close()

    try:
        until(lambda: (info.exists() and info.read_text()) or process.poll() is not None)
        assert process.poll() is None, (place / "log").read_text()
        yield process, ask
    finally:
        process.kill()
        process.wait()


def test_kernels_of_a_server(server, place):
    process, ask = server
    until((place / "DCDE_RUNTIME_DIR" / f"warm-{process.pid}.sock").exists)
    (warm,) = children(process.pid, "dcde.kernel.warm")

    kernel = ask("POST", "/api/kernels", {"name": "dcde"})["id"]
    (pid,) = children(warm, "ipykernel_launcher")
    for number in (warm, pid):
        assert TOKEN.encode() not in Path(f"/proc/{number}/environ").read_bytes()

    ask("POST", f"/api/kernels/{kernel}/restart")
    (again,) = children(warm, "ipykernel_launcher")
    assert again != pid and not exists(pid)
    ask("POST", f"/api/kernels/{kernel}/interrupt")
    assert ask("GET", f"/api/kernels/{kernel}")["id"] == kernel

    other = ask("POST", "/api/kernels", {"name": "dcde"})["id"]
    assert len(children(warm, "ipykernel_launcher")) == 2
    ask("DELETE", f"/api/kernels/{other}")
    assert children(warm, "ipykernel_launcher") == [again]

    process.send_signal(signal.SIGTERM)
    process.wait(30)
    for number in (warm, again):
        until(lambda number=number: not exists(number) or state(number) == "Z")
    assert not list((place / "DCDE_RUNTIME_DIR").glob("warm-*"))
