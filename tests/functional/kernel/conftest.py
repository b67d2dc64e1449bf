"""Fixtures: kernels as a server starts them, with this process as the server.

- `place`: a private home, runtime folder and environment, in which kernels find the sources of this clone.
- `warm`: a warm process of this process; `WarmInTest` says its pid and can kill it.
- `kernels`: makes kernels: `await kernels.start()` gives a `KernelInTest`; `kernels.start(plain=True)` starts one in
  the ordinary way. What a test leaves is ended after it.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import pytest
from dcde.kernel import keeping
from dcde.kernel.asking import socket_path
from dcde.kernel.provisioner import ForkedKernel
from jupyter_client.kernelspec import KernelSpec
from jupyter_client.manager import AsyncKernelManager
from jupyter_client.provisioning import KernelProvisionerFactory

ROOT = Path(__file__).parents[3]
SOURCES = os.pathsep.join(str(ROOT / "extensions" / folder) for folder in ("dcde/src", "models/src"))
ARGV = ["python", "-m", "ipykernel_launcher", "-f", "{connection_file}", "--ext=dcde.kernel"]


@pytest.fixture
def place(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    # A short path: that of a unix socket has at most 107 bytes.
    folder = Path(tempfile.mkdtemp(prefix="dcde-"))
    for name in ("HOME", "IPYTHONDIR", "JUPYTER_RUNTIME_DIR", "DCDE_RUNTIME_DIR", "JUPYTER_DATA_DIR"):
        (folder / name).mkdir(mode=0o700)
        monkeypatch.setenv(name, str(folder / name))
    monkeypatch.setenv("PYTHONPATH", SOURCES)
    monkeypatch.delenv("JPY_PARENT_PID", raising=False)
    yield folder
    shutil.rmtree(folder)


class WarmInTest:
    def __init__(self) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "dcde.kernel.warm", str(os.getpid())],
            stdin=subprocess.DEVNULL,
            cwd="/",
            env=keeping.environment(os.environ),
            start_new_session=True,
        )
        self.pid = self.process.pid
        wait_until_listening(self.process)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def children(self) -> list[int]:
        return [int(pid) for pid in Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text().split()]


def wait_until_listening(process: subprocess.Popen[bytes], seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while True:
        assert process.poll() is None, "the warm process ended"
        assert time.monotonic() < end, "the warm process does not listen"
        try:
            with socket.socket(socket.AF_UNIX) as trial:
                trial.connect(str(socket_path(os.getpid())))
                return
        except OSError:
            time.sleep(0.02)


@pytest.fixture
def warm(place: Path) -> Iterator[WarmInTest]:
    started = WarmInTest()
    yield started
    started.kill()


class KernelInTest:
    """A kernel with a client: `await kernel.value("1 + 1")`."""

    def __init__(self, manager: AsyncKernelManager) -> None:
        self.manager = manager
        self.client: Any = None

    @property
    def warm(self) -> bool:
        return isinstance(self.manager.provisioner.process, ForkedKernel)

    @property
    def pid(self) -> int:
        return self.manager.provisioner.pid

    async def connect(self) -> None:
        if self.client is not None:
            self.client.stop_channels()
        self.client = self.manager.client()
        self.client.start_channels()
        await self.client.wait_for_ready(timeout=60)

    async def execute(self, code: str, expression: str = "None", timeout: float = 30) -> dict[str, Any]:
        reply = await self.client.execute_interactive(
            code, user_expressions={"value": expression}, timeout=timeout, output_hook=lambda _: None
        )
        return reply["content"]

    async def value(self, expression: str, code: str = "") -> Any:
        content = await self.execute(code, expression)
        assert content["status"] == "ok", content
        value = content["user_expressions"]["value"]
        assert value["status"] == "ok", value
        return eval(value["data"]["text/plain"])  # noqa: S307 - what our own kernel says

    async def stop(self, now: bool = False) -> None:
        if self.client is not None:
            self.client.stop_channels()
            self.client = None
        if self.manager.has_kernel:
            await self.manager.shutdown_kernel(now=now)


class Kernels:
    def __init__(self, place: Path) -> None:
        self.place = place
        self.started: list[KernelInTest] = []

    async def start(self, *, plain: bool = False, transport: str = "ipc", **launch: Any) -> KernelInTest:
        provisioner = {} if plain else {"kernel_provisioner": {"provisioner_name": "dcde-warm"}}
        file = self.place / "JUPYTER_RUNTIME_DIR" / f"k{len(self.started)}.json"
        manager = AsyncKernelManager(transport=transport, connection_file=str(file))
        manager._kernel_spec = KernelSpec(argv=list(ARGV), language="python", display_name="D", metadata=provisioner)
        kernel = KernelInTest(manager)
        self.started.append(kernel)
        await manager.start_kernel(**{"cwd": str(self.place), **launch})
        await kernel.connect()
        return kernel


@pytest.fixture
async def kernels(place: Path) -> AsyncIterator[Kernels]:
    entry = EntryPoint("dcde-warm", "dcde.kernel.provisioner:WarmProvisioner", "jupyter_client.kernel_provisioners")
    KernelProvisionerFactory.instance().provisioners["dcde-warm"] = entry
    made = Kernels(place)
    yield made
    for kernel in made.started:
        await kernel.stop(now=True)


def exists(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def state(pid: int) -> str:
    """The state letter of a process (proc(5)); Z is a zombie."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
