"""Worlds with the hub in them, as benchmarks use them: up in a folder of their own, and nothing left afterwards."""

from __future__ import annotations

import contextlib
import shutil
import socket
import ssl
import subprocess
import tempfile
import time
from collections.abc import Iterator
from http.client import HTTPException, HTTPSConnection
from pathlib import Path

from dcde_testbed.world import World

from benchmarks import ENVIRONMENTS, ROOT

GUEST = ROOT / "demo/guest.yaml"
PERSON = "drivers@pnnl.example"
UID = 51001
"""David Rivers, who has accounts at all three sites."""


def free_port() -> int:
    """Return a loopback port that nobody uses now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextlib.contextmanager
def temporary_folder() -> Iterator[Path]:
    """Yield a private folder and remove it afterwards, also what accounts inside a world have left in it."""
    folder = Path(tempfile.mkdtemp(prefix="dcde-bench-"))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        if folder.exists():  # files of other accounts of a world that an ordinary user ran
            subprocess.run(["unshare", "--map-auto", "--map-root-user", "rm", "-rf", str(folder)], check=False)


def world_in(folder: Path, *, hub: bool, movies: Path | None = None) -> World:
    """Return a world that is not up yet; with the hub, or with nothing but the sites and the institutions."""
    guest = GUEST if hub else None
    return World(folder, free_port(), environments=ENVIRONMENTS, guest=guest, sample_data=movies)


def hub_url(world: World) -> str:
    """Return the hub's address at the front door."""
    return f"https://hub.localhost:{world.port}/"


def login_page(world: World, seconds: float = 60.0) -> None:
    """Return when the hub's first page answers through the front door."""
    context = ssl.create_default_context(cafile=str(world.ca))
    end = time.monotonic() + seconds
    while True:
        with contextlib.suppress(OSError, HTTPException):
            if _status(world.port, context) == 200:
                return
        if time.monotonic() > end:
            raise TimeoutError(f"the login page did not answer within {seconds:g} s")
        time.sleep(0.05)


def _status(port: int, context: ssl.SSLContext) -> int:
    # The name hub.localhost need not be known to the resolver; the certificate is checked against it all the same.
    connection = HTTPSConnection("hub.localhost", port, timeout=10, context=context)
    plain = socket.create_connection(("127.0.0.1", port), timeout=10)
    try:
        connection.sock = context.wrap_socket(plain, server_hostname="hub.localhost")
        connection.request("GET", "/hub/login")
        return connection.getresponse().status
    finally:
        connection.close()
        plain.close()
