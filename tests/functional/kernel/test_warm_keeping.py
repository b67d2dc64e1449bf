"""The server's side: a warm process is there, comes back when it was killed, and is new when the library is."""

# ruff: noqa: ASYNC110, ASYNC240 - a test may wait for files and programs
import asyncio
import logging
import os
import shutil
import time
from pathlib import Path

import pytest
from dcde.kernel import keeping
from dcde.kernel.asking import socket_path
from dcde.kernel.keeping import WarmProcess

from .conftest import ROOT, exists


async def until(condition, seconds=60.0):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        await asyncio.sleep(0.05)


async def until_listening():
    async def listens():
        try:
            _, writer = await asyncio.open_unix_connection(str(socket_path(os.getpid())))
        except OSError:
            return False
        writer.close()
        await writer.wait_closed()
        return True

    async with asyncio.timeout(60):
        while not await listens():
            await asyncio.sleep(0.05)


@pytest.fixture
async def keeper(place, monkeypatch):
    monkeypatch.setattr(keeping, "FIRST_PAUSE", 0.1)
    made = WarmProcess(logging.getLogger("test"))
    yield made
    await made.stop()


async def test_it_is_there_and_goes_with_the_server(keeper, kernels):
    keeper.start()
    await until_listening()
    kernel, pid = await kernels.start(), keeper.pid
    assert kernel.warm
    await keeper.stop()
    assert not exists(pid) and not socket_path(os.getpid()).exists()
    assert await kernel.value("1 + 1") == 2, "kernels go on"
    assert not (await kernels.start()).warm


async def test_it_comes_back(keeper, kernels):
    keeper.start()
    await until_listening()
    killed = keeper.pid
    os.kill(killed, 9)
    await until(lambda: keeper.pid not in (None, killed))
    await until_listening()
    assert (await kernels.start()).warm


async def test_it_is_new_when_the_library_is(keeper, kernels, place, monkeypatch):
    library = place / "library"
    shutil.copytree(ROOT / "extensions/dcde/src/dcde", library / "dcde")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(library), os.environ["PYTHONPATH"]]))
    keeper.start()
    await until_listening()
    old = keeper.pid
    kernel = await kernels.start()
    assert kernel.warm and await kernel.value("dcde.__version__") == "0.1.0"

    file = library / "dcde/__init__.py"
    file.write_text(file.read_text().replace("0.1.0", "0.2.0.dev1"))
    meanwhile = await kernels.start()
    assert not meanwhile.warm, "nobody gets the old library"
    assert await meanwhile.value("dcde.__version__") == "0.2.0.dev1"
    await until(lambda: keeper.pid not in (None, old))
    await until_listening()
    again = await kernels.start()
    assert again.warm and await again.value("dcde.__version__") == "0.2.0.dev1"
    assert await kernel.value("dcde.__version__") == "0.1.0", "a kernel at work is left alone"


async def test_sockets_of_servers_that_are_gone_are_removed(keeper, place):
    folder = Path(os.environ["DCDE_RUNTIME_DIR"])
    gone, there = folder / "warm-4194305.sock", folder / "warm-1.sock"  # no process id is greater than 4194304
    for path in (gone, there):
        path.touch()
    keeper.start()
    await until_listening()
    assert not gone.exists() and there.exists()


async def test_a_folder_that_others_can_enter_is_not_used(keeper, kernels, monkeypatch):
    folder = Path(os.environ["DCDE_RUNTIME_DIR"])
    folder.chmod(0o755)
    keeper.start()
    await until(lambda: keeper._process is not None and keeper._process.returncode is not None)
    assert not list(folder.iterdir())
    assert not (await kernels.start()).warm
