"""Small parts of the runner: pictures, patterns, logs, what is known of sites, and what the keeper is told."""

import struct
import zlib

import pytest
from dcde.errors import BrokerUnreachable, FileTrouble, LinkRefused, UnknownName
from dcde.runner.inputs import matches, patterns_of
from dcde.runner.keeper import Keeper
from dcde.runner.knowledge import load
from dcde.runner.png import cleaned
from dcde.runner.records import _whole_characters
from dcde.runner.transfers import split_place

from .conftest import TOKEN
from .test_runner_engine import PNG, chunk

SIGNATURE = PNG[:8]
HEADER = chunk(b"IHDR", struct.pack(">IIBBBBB", 1, 1, 8, 0, 0, 0, 0))
DATA = chunk(b"IDAT", zlib.compress(b"\0\x80"))
END = chunk(b"IEND", b"")


def test_a_picture_keeps_its_image_and_loses_the_rest():
    assert cleaned(PNG) == PNG
    text = chunk(b"tEXt", b"Comment\0<script>alert(1)</script>")
    dirty = SIGNATURE + HEADER + text + DATA + END + b"<script>trailing</script>"
    assert cleaned(dirty) == PNG


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"<svg onload=alert(1)>",
        b"GIF89a" + PNG,
        PNG[:-5],
        PNG[:20],
        SIGNATURE + DATA + END,
        SIGNATURE + HEADER + END,
        SIGNATURE + HEADER + DATA[:-1] + b"x" + END,
        SIGNATURE + chunk(b"IHDR", struct.pack(">IIBBBBB", 100_000, 1, 8, 0, 0, 0, 0)) + DATA + END,
        SIGNATURE + struct.pack(">I", 2**31) + b"IHDR",
    ],
)
def test_what_is_no_whole_picture_is_refused(data):
    with pytest.raises(FileTrouble):
        cleaned(data)


@pytest.mark.parametrize(
    ("path", "pattern", "fits"),
    [
        ("Import/job001/movies.star", "Import/job001/*.star", True),
        ("Import/job001/deep/movies.star", "Import/job001/*.star", False),
        ("Import/job001/deep/er/movies.star", "Import/job001/**", True),
        ("Import/job001/movies.star", "Import/job001/**", True),
        ("Import/job001/movies.star", "**/movies.star", True),
        ("movies.star", "**/movies.star", True),
        ("Import/job0010/movies.star", "Import/job001/**", False),
        ("Movies/a.mrcs", "Movies/[ab].mrcs", True),
        ("Movies/c.mrcs", "Movies/[ab].mrcs", False),
        ("Movies", "Movies/**", False),
    ],
)
def test_patterns_mean_here_what_they_mean_at_the_sites(path, pattern, fits, tmp_path):
    from dcde.agent.globs import find
    from dcde.agent.paths import Root

    file = tmp_path / path
    file.parent.mkdir(parents=True, exist_ok=True)
    file.touch()
    assert matches(path, pattern) is fits
    assert [f["path"] for f in find(Root(str(tmp_path)), [pattern])["files"]] == ([path] if fits else [])


def test_an_output_may_be_a_folder_a_file_or_a_pattern():
    assert patterns_of("Import/job001/") == ["Import/job001", "Import/job001/**"]
    assert patterns_of("Import/*.star") == ["Import/*.star"]


@pytest.mark.parametrize("text", ["", "a", "é", "aé", "€x", "x€", "😀", "a😀"])
def test_a_character_in_two_parts_waits_for_its_end(text):
    data = text.encode()
    assert _whole_characters(data) == len(data)
    for cut in range(len(data)):
        whole = _whole_characters(data[:cut])
        assert text.startswith(data[:whole].decode())
        assert cut - whole < 4
    assert _whole_characters(b"\x80\x80\x80\x80\x80") == 5, "what is no text at all must not stop the log"


def test_places():
    assert split_place("bnl-sdcc:a/b:c") == ("bnl-sdcc", "a/b:c")


async def test_without_an_answer_of_the_hub_everything_says_so(start_runner, client, hub):
    hub.down = True
    ask = client(await start_runner())
    for op in ("whoami", "sites.list"):
        with pytest.raises(BrokerUnreachable):
            await ask.call(op)
    assert await ask.call("runs.list") == []


async def test_the_last_good_answer_is_kept(start_runner, client, hub, folders):
    hub.add_sites("bnl-sdcc", "ornl-cades")
    hub.accounts.pop("ornl-cades")
    runner = await start_runner()
    before = {site["name"]: site for site in await client(runner).call("sites.list")}
    assert before["ornl-cades"]["state"] == "refused"
    assert "account" in before["ornl-cades"]["reason"]
    assert [c["allowed"] for c in before["ornl-cades"]["capabilities"]] == [False, False, False]
    assert before["bnl-sdcc"]["state"] in ("connecting", "lost", "refused")
    await runner.close()
    hub.down = True
    kept = load(folders[0] / "sites.json")
    assert kept.site("bnl").name == "bnl-sdcc"
    with pytest.raises(UnknownName):
        kept.site("cern")
    ask = client(await start_runner())
    assert {s["name"] for s in await ask.call("sites.list")} == {"bnl-sdcc", "ornl-cades"}
    (folders[0] / "sites.json").write_text("{}")
    assert load(folders[0] / "sites.json") is None


async def test_a_site_without_rules_is_unavailable_and_a_closed_one_refuses(start_runner, client, hub):
    hub.add_sites("bnl-sdcc", "ornl-cades")
    hub.capabilities.pop()
    hub.accounts.pop("bnl-sdcc")
    ask = client(await start_runner())
    states = {site["name"]: site["state"] for site in await ask.call("sites.list")}
    assert states == {"bnl-sdcc": "refused", "ornl-cades": "unavailable"}
    with pytest.raises(Exception, match="account") as caught:
        await ask.call("files.list", site="bnl-sdcc")
    assert caught.value.code in ("NotAllowed", LinkRefused.__name__)


async def test_rules_that_change_open_and_close_the_link(start_engine, client, hub):
    runner = await start_engine()
    ask = client(runner)
    await ask.call("sites.list")
    hub.accounts.pop("ornl-cades")
    await runner.sites.refresh()
    views = {site["name"]: site["state"] for site in await ask.call("sites.list")}
    assert views["ornl-cades"] == "refused"
    assert runner.links["ornl-cades"].closed
    hub.accounts["ornl-cades"] = "d7c"
    await runner.sites.refresh()
    views = {site["name"]: site["state"] for site in await ask.call("sites.list")}
    assert views["ornl-cades"] == "up"


async def test_the_keeper_is_told_again_until_it_has_heard(hub):
    hub.down = True
    keeper = Keeper(f"{hub.url}/services/keeper/", TOKEN)
    keeper.start()
    keeper.needed(["r2", "r1"])
    await hub.until(lambda: hub.asked)
    hub.down = False
    await hub.until(lambda: hub.needed == [["r1", "r2"]])
    keeper.needed(["r1", "r2"])
    keeper.needed([])
    await hub.until(lambda: hub.needed == [["r1", "r2"], []])
    await keeper.close()
    nowhere = Keeper("", TOKEN)
    nowhere.start()
    nowhere.needed(["r1"])
    await nowhere.close()
