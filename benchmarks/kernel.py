"""How soon a notebook's first cell has the library, in a kernel from the warm process and in ordinary ones."""

from __future__ import annotations

import asyncio
import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

from dcde.kernel import keeping
from dcde.kernel.asking import socket_path
from jupyter_client.kernelspec import KernelSpec
from jupyter_client.manager import AsyncKernelManager
from jupyter_client.provisioning.factory import KernelProvisionerFactory

from benchmarks import _SOURCES, ROOT
from benchmarks.measure import Figure, Result, cpu_seconds, loads, median
from benchmarks.worlds import temporary_folder

REPEAT = 5

LIBRARY = "import dcde, dcde.api, dcde.widgets, numpy"
PLAIN = ("python", "-m", "ipykernel_launcher", "-f", "{connection_file}")
WARM: Mapping[str, Any] = {"kernel_provisioner": {"provisioner_name": "dcde-warm"}}
KERNELS: Mapping[str, tuple[tuple[str, ...], Mapping[str, Any]]] = {
    "plain": (PLAIN, {}),
    "extension": ((*PLAIN, "--ext=dcde.kernel"), {}),
    "warm": ((*PLAIN, "--ext=dcde.kernel"), WARM),
}

FIGURES = {
    "library_s": ("From the start until the library is imported in a cell", "s"),
    "ready_s": ("From the start until the kernel answers", "s"),
    "cpu_s": ("Processor time of the kernel until then", "s"),
    "private_mb": ("Memory of the kernel alone", "MB"),
}


def run(repeat: int) -> Result:
    """Start a kernel of each kind in turn, one at a time."""
    turns: list[dict[str, Any]] = []
    with temporary_folder() as folder, _place(folder), _warm_process() as warm:
        for number in range(1, repeat + 1):
            turn: dict[str, Any] = {"load": loads()[0]}
            for kind in KERNELS:
                turn[kind] = asyncio.run(_one(kind, folder / f"{kind}{number}.json"))
            turns.append(turn)
            print(f"  turn {number}: {turn}", file=sys.stderr, flush=True)
        own = {"cpu_s": _cpu_s(warm), "private_mb": _private_mb(warm)}

    def value(kind: str, figure: str) -> float:
        return median([turn[kind][figure] for turn in turns])

    peers = {"plain": "plain kernel", "extension": "DCDE kernel without a warm process"}
    return Result(
        name="kernel",
        what=f"Kernels started with jupyter_client over IPC; the cell is `{LIBRARY}`.",
        peer="A plain Python kernel with the same cell; and the DCDE kernel that imports the library at its start.",
        figures=[
            Figure(f"{name}_{kind}", title, unit, value("warm", name), value(kind, name), peer)
            for name, (title, unit) in FIGURES.items()
            for kind, peer in peers.items()
        ],
        turns=turns,
        notes=[
            "The time is taken from asking for the kernel to the reply to the first message, which the client sends at "
            "once, as a browser does. Part of it is that ZeroMQ tries again only after 100 ms where a kernel does not "
            "listen yet: the warm kernel's provisioner waits until it does.",
            f"The warm process itself, once for each server: {own['cpu_s']:.2g} s of processor time with all its "
            f"forks, and {own['private_mb']:.0f} MB, most of it shared with the kernels.",
        ],
    )


@contextlib.contextmanager
def _place(folder: Path) -> Iterator[None]:
    """Keep everything that kernels write in the folder, and let them find the sources."""
    places = {name: str(folder / name) for name in ("HOME", "IPYTHONDIR", "JUPYTER_RUNTIME_DIR", "DCDE_RUNTIME_DIR")}
    before = dict(os.environ)
    for place in places.values():
        Path(place).mkdir(mode=0o700)
    os.environ.update(places, PYTHONPATH=os.pathsep.join(str(ROOT / source) for source in _SOURCES[:-1]))
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


@contextlib.contextmanager
def _warm_process() -> Iterator[int]:
    """Run a warm process of this process; yields its process id when it listens."""
    entry = EntryPoint("dcde-warm", "dcde.kernel.provisioner:WarmProvisioner", KernelProvisionerFactory.GROUP_NAME)
    KernelProvisionerFactory.instance().provisioners["dcde-warm"] = entry
    argv = [sys.executable, "-m", "dcde.kernel.warm", str(os.getpid())]
    with subprocess.Popen(argv, stdin=subprocess.DEVNULL, cwd="/", env=keeping.environment(os.environ)) as process:
        try:
            while not socket_path(os.getpid()).exists():
                if process.poll() is not None:
                    raise RuntimeError("the warm process did not start")
                time.sleep(0.05)
            yield process.pid
        finally:
            process.terminate()


async def _one(kind: str, connection_file: Path) -> dict[str, float]:
    argv, metadata = KERNELS[kind]
    manager = AsyncKernelManager(transport="ipc", connection_file=str(connection_file))
    manager._kernel_spec = KernelSpec(argv=list(argv), language="python", display_name=kind, metadata=dict(metadata))
    began = time.perf_counter()
    await manager.start_kernel(cwd=str(connection_file.parent))
    client = manager.client()
    client.start_channels()
    try:
        await _reply(client, client.kernel_info())
        ready = time.perf_counter() - began
        reply = await _reply(client, client.execute(LIBRARY))
        library = time.perf_counter() - began
        assert reply["content"]["status"] == "ok", reply["content"]
        provisioner: Any = manager.provisioner
        assert (type(provisioner.process).__name__ == "ForkedKernel") == (kind == "warm"), provisioner.process
        cpu = _cpu_s(provisioner.pid)
        memory = _private_mb(provisioner.pid)
    finally:
        client.stop_channels()
        await manager.shutdown_kernel()
    return {"ready_s": ready, "library_s": library, "cpu_s": cpu, "private_mb": memory}


async def _reply(client: Any, request: str) -> dict[str, Any]:
    """Return the reply to a request, which may have been sent before the kernel listened."""
    async with asyncio.timeout(120):
        while True:
            message: dict[str, Any] = await client.get_shell_msg()
            if message["parent_header"].get("msg_id") == request:
                return message


def _cpu_s(pid: int) -> float:
    return cpu_seconds(Path(f"/proc/{pid}/stat").read_text())


def _private_mb(pid: int) -> float:
    """Return the memory that a process shares with nobody (proc(5), smaps_rollup)."""
    rows = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]
    return sum(int(row.split()[1]) for row in rows if row.startswith("Private_")) / 1024
