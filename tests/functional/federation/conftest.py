"""Fixtures of the federation's functional tests.

federation  the real processes (institutions, discovery, SATOSA) on free loopback ports behind the real front door; one for a module
authority   the file of the certificate authority that the door's certificate comes from
logs        a function that returns everything the processes have logged so far
browser     an `functional.federation.browser.Browser` of its own for the test

The programs run with build/env/federation, or with the interpreter that DCDE_FEDERATION_PYTHON names.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import ssl
import subprocess
import threading
import time
import urllib.request
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import Future
from pathlib import Path

import pytest
from dcde_testbed import certificates
from dcde_testbed.door import Door
from dcde_testbed.federation import Federation, Runtime, prepare
from functional.federation.browser import Browser

ROOT = Path(__file__).parents[3]
START_SECONDS = 60


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("federation")


@pytest.fixture(scope="module")
def runtime() -> Runtime:
    python = Path(os.environ.get("DCDE_FEDERATION_PYTHON", ROOT / "build/env/federation/bin/python"))
    assert python.exists(), f"{python} is missing: build the environments first"
    return Runtime(python=python, package_path=ROOT / "testbed/src", account=None, loopback=_free_ports())


def _free_ports() -> dict[str, int]:
    names = ("proxy", "pnnl", "bnl", "ornl", "disco")
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in names]
    ports = {name: one.getsockname()[1] for name, one in zip(names, sockets, strict=True)}
    for one in sockets:
        one.close()
    return ports


@pytest.fixture(scope="module")
def authority(folder: Path) -> Path:
    names = ["hub", "proxy", "disco", "pnnl", "bnl", "ornl"]
    certificates.ensure(folder / "door", [f"{name}.localhost" for name in names])
    return folder / "door" / "ca.crt"


@pytest.fixture(scope="module")
def federation(folder: Path, runtime: Runtime, authority: Path) -> Iterator[Federation]:
    listening = socket.create_server(("127.0.0.1", 0))
    prepared = prepare(folder, listening.getsockname()[1], runtime)
    processes = []
    try:
        for process in prepared.processes():
            with (folder / f"{process.name}.log").open("wb") as log:
                processes.append(
                    subprocess.Popen(
                        process.argv,
                        env=process.environment,
                        cwd="/",
                        stdin=subprocess.DEVNULL,
                        stdout=log,
                        stderr=log,
                        umask=0o077,
                    )
                )
        for url in prepared.ready():
            _wait_for(url, processes, folder)
        with _open_door(prepared.routes(), listening, authority.parent):
            yield prepared
    finally:
        for one in processes:
            one.terminate()
        for one in processes:
            one.wait(timeout=20)


def _wait_for(url: str, processes: list[subprocess.Popen[bytes]], folder: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    while True:
        try:
            with urllib.request.urlopen(url, timeout=5):
                return
        except OSError:
            assert all(one.poll() is None for one in processes), _read_logs(folder)
            assert time.monotonic() < deadline, _read_logs(folder)
            time.sleep(0.1)


@contextlib.contextmanager
def _open_door(routes: dict[str, int], listening: socket.socket, folder: Path) -> Iterator[None]:
    """Run the real front door in an event loop of its own thread."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(folder / "door.crt", folder / "door.key")
    ready: Future[Callable[[], object]] = Future()

    async def serve() -> None:
        stop = asyncio.Event()
        server = await asyncio.start_server(Door(routes).serve, sock=listening, ssl=context)
        loop = asyncio.get_running_loop()
        ready.set_result(lambda: loop.call_soon_threadsafe(stop.set))
        await stop.wait()
        server.close()

    thread = threading.Thread(target=asyncio.run, args=(serve(),))
    thread.start()
    close = ready.result(timeout=20)
    try:
        yield
    finally:
        close()
        thread.join(20)


def _read_logs(folder: Path) -> str:
    return "".join(path.read_text() for path in sorted(folder.glob("*.log")))


@pytest.fixture
def logs(folder: Path, federation: Federation) -> Callable[[], str]:
    return lambda: _read_logs(folder)


@pytest.fixture
async def browser(federation: Federation, authority: Path) -> AsyncIterator[Browser]:
    async with Browser(federation, authority) as one:
        yield one
