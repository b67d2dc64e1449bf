"""Movement between two real sites: sshd, agents and links as in production, and networks that fail on the way."""

import asyncio
import contextlib
import hashlib
import os

import pytest
from dcde.data.movement import MoveFile, Mover
from dcde.data.raw import link_raw
from dcde.errors import InvalidParameter, PathRefused
from dcde.pipelines.model import RawFiles
from link_site import has_sshd, site_in_test

pytestmark = pytest.mark.skipif(not has_sshd(), reason="no sshd can be run here")
HOSTILE = "<img onerror=alert(1)> $(touch pwned).mrc"


@pytest.fixture
async def pair():
    """Two sites with links that are up, as (sites, mover); the sites are called bnl and anl."""
    async with contextlib.AsyncExitStack() as stack:
        sites = {name: await stack.enter_async_context(site_in_test()) for name in ("bnl", "anl")}
        links = {name: await site.link() for name, site in sites.items()}
        yield sites, Mover(links.__getitem__)


def put(site, path, data):
    place = site.storage / path
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_bytes(data)
    return hashlib.sha256(data).hexdigest()


def content(site):
    """Return the files at a site; what an agent that was killed had half written has a name of its own and is left out."""
    files = (p for p in site.storage.rglob("*") if p.is_file() and p.suffix != ".dcde-part")
    return {str(p.relative_to(site.storage)): p.read_bytes() for p in files}


async def test_large_and_small_files_arrive(pair):
    sites, mover = pair
    data = os.urandom(20_000_000)
    files = [MoveFile("big.mrcs", len(data), put(sites["bnl"], "projects/demo/big.mrcs", data), "bnl")]
    for number in range(300):
        text = f"loop_ {number}".encode()
        sha256 = put(sites["bnl"], f"projects/demo/Extract/job005/{number}.star", text)
        files.append(MoveFile(f"Extract/job005/{number}.star", len(text), sha256, "bnl"))
    put(sites["bnl"], f"projects/demo/{HOSTILE}", b"evil")
    files.append(MoveFile(HOSTILE, 4, None, "bnl"))
    told = []
    moved = await mover.bring("demo", files, "anl", told.append)
    assert content(sites["anl"]) == content(sites["bnl"])
    assert [file.path for file in moved] == [file.path for file in files]
    assert (told[-1].files_done, told[-1].bytes_done) == (302, told[-1].bytes_total)
    again = await mover.bring("demo", files, "anl")
    assert again == moved


@pytest.mark.parametrize("which", ["bnl", "anl"])
@pytest.mark.parametrize("how", ["cut", "reset", "kill_agent"])
async def test_a_lost_site_is_waited_for(pair, which, how):
    sites, mover = pair
    data = os.urandom(8_000_000)
    sha256 = put(sites["bnl"], "projects/demo/big", data)
    sites[which].wire.rate = 4_000_000
    done = []

    def disturb(progress):
        if progress.bytes_done < 2_000_000 or done:
            return
        done.append(progress)
        sites[which].wire.rate = None
        if how == "cut":
            sites[which].wire.cut()
            asyncio.get_running_loop().call_later(2.0, sites[which].wire.mend)
        elif how == "reset":
            sites[which].wire.reset()
        else:
            for pid in sites[which].agents():
                os.kill(pid, 9)

    moved = await mover.bring("demo", [MoveFile("big", len(data), sha256, "bnl")], "anl", disturb)
    assert done, "nothing was disturbed"
    assert moved[0].sha256 == sha256
    assert content(sites["anl"]) == {"projects/demo/big": data}


async def test_paths_cannot_leave_the_persons_folder(pair):
    sites, mover = pair
    put(sites["bnl"], "a", b"x")
    (sites["anl"].storage / "out").symlink_to(sites["anl"].folder)
    for target in ("../a", "out/a", "/tmp/a"):
        with pytest.raises(PathRefused):
            await mover.copy("bnl", "a", "anl", target, exact=True)
    assert not (sites["anl"].folder / "a").exists()


async def test_raw_files_by_links(pair):
    sites, mover = pair
    for name in ("a.mrcs", "b.mrcs"):
        put(sites["bnl"], f"movies/{name}", name.encode())
    link = mover._links("bnl")
    found = await link_raw(link, "demo", RawFiles(site="bnl", pattern="movies/*.mrcs", target="Movies"))
    files = [MoveFile(file.path, file.size, None, "bnl", file.mtime_ns) for file in found]
    await mover.bring("demo", files, "anl")
    assert content(sites["anl"]) == {"projects/demo/Movies/a.mrcs": b"a.mrcs", "projects/demo/Movies/b.mrcs": b"b.mrcs"}
    put(sites["bnl"], f"movies/{HOSTILE}s", b"evil")
    with pytest.raises(InvalidParameter):
        await link_raw(link, "demo", RawFiles(site="bnl", pattern="movies/*.mrcs", target="Movies"))
