"""Bringing project files to a site: what moves, what does not, and what goes wrong on the way."""

import asyncio
import hashlib
import itertools

import pytest
from dcde.data.movement import MoveFile, Mover
from dcde.errors import ChecksumMismatch, DiskFull, MovementError, NotFound, PathRefused

HOSTILE = "<img onerror=alert(1)>.mrc"


def project(name):
    return f"projects/demo/{name}"


def wanted(sites, site, name, *, known=True):
    path = sites.path(site) / project(name)
    stat = path.stat()
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest() if known else None
    return MoveFile(name, stat.st_size, sha256, site, stat.st_mtime_ns)


@pytest.fixture
def mover(sites):
    """A mover between the sites."""
    return Mover(sites.link)


@pytest.mark.parametrize("known", [True, False])
async def test_files_arrive_whole_and_are_described_as_they_lie(sites, mover, known):
    data = bytes(range(256)) * 50
    sites.put("bnl", project("Import/job001/a.mrc"), data)
    sites.put("ornl", project(f"Extract/{HOSTILE}"), b"evil")
    sites.put("bnl", project("empty.star"), b"")
    files = [
        wanted(sites, "bnl", "Import/job001/a.mrc", known=known),
        wanted(sites, "ornl", f"Extract/{HOSTILE}", known=known),
        wanted(sites, "bnl", "empty.star", known=known),
    ]
    told = []
    moved = await mover.bring("demo", files, "anl", told.append)
    assert sites.files("anl") == {
        project("Import/job001/a.mrc"): data,
        project(f"Extract/{HOSTILE}"): b"evil",
        project("empty.star"): b"",
    }
    for file in moved:
        place = sites.path("anl") / project(file.path)
        assert (file.size, file.mtime_ns) == (place.stat().st_size, place.stat().st_mtime_ns)
        assert file.sha256 == hashlib.sha256(place.read_bytes()).hexdigest()
        assert place.stat().st_mode & 0o777 == 0o600
    assert [file.path for file in moved] == [file.path for file in files]
    assert (told[-1].files_done, told[-1].bytes_done) == (3, told[-1].bytes_total)


async def test_what_is_there_already_is_not_moved(sites, mover):
    sites.put("bnl", project("a"), b"same")
    sites.put("bnl", project("b"), b"new!")
    sites.put("anl", project("a"), b"same")
    there = sites.put("anl", project("b"), b"old!")
    before = (sites.path("anl") / project("a")).stat().st_mtime_ns
    moved = await mover.bring("demo", [wanted(sites, "bnl", "a"), wanted(sites, "bnl", "b")], "anl")
    assert there.read_bytes() == b"new!"
    assert moved[0].mtime_ns == before
    assert sites.link("anl").most_writing == 1


async def test_many_small_files_move_together_but_not_all_at_once(sites, mover):
    for number in range(60):
        sites.put("bnl", project(f"small/{number:03}.star"), b"data %d" % number)
    files = [wanted(sites, "bnl", f"small/{number:03}.star") for number in range(60)]
    await mover.bring("demo", files, "anl")
    assert sites.files("anl") == sites.files("bnl")
    assert 1 < sites.link("anl").most_writing <= 8


async def test_reading_goes_on_where_it_stopped_when_the_source_was_lost(sites, mover):
    data = bytes(range(250)) * 100
    sites.put("bnl", project("a"), data)
    sites.link("bnl").cut_after_bytes = 9500
    told = []
    await mover.bring("demo", [wanted(sites, "bnl", "a")], "anl", told.append)
    assert sites.files("anl") == {project("a"): data}
    counts = [progress.bytes_done for progress in told]
    assert counts == sorted(counts), "nothing was read twice"


async def test_a_lost_target_is_waited_for_and_the_file_sent_again(sites, mover):
    data = bytes(range(250)) * 100
    sites.put("bnl", project("a"), data)
    target = sites.link("anl")
    told = []

    def cut_once(progress):
        told.append(progress)
        if progress.bytes_done > 9500 and len([p for p in told if p.bytes_done > 9500]) == 1:
            target.cut()

    await mover.bring("demo", [wanted(sites, "bnl", "a")], "anl", cut_once)
    assert sites.files("anl") == {project("a"): data}
    assert told[-1].bytes_done == len(data)
    assert any(later.bytes_done < earlier.bytes_done for earlier, later in itertools.pairwise(told))


async def test_what_arrives_spoilt_is_thrown_away_and_sent_again(sites, mover):
    sites.put("bnl", project("a"), b"precious")
    sites.link("anl").spoil = 1
    await mover.bring("demo", [wanted(sites, "bnl", "a")], "anl")
    assert sites.files("anl") == {project("a"): b"precious"}


async def test_what_always_arrives_spoilt_is_an_error_and_leaves_nothing(sites, mover):
    sites.put("bnl", project("a"), b"precious")
    sites.link("anl").spoil = 1000
    with pytest.raises(ChecksumMismatch):
        await mover.bring("demo", [wanted(sites, "bnl", "a")], "anl")
    assert sites.files("anl") == {}
    assert sites.files("bnl") == {project("a"): b"precious"}


async def test_full_disk_is_told_before_anything_moves(sites, mover):
    sites.put("bnl", project("a"), b"x" * 5000)
    sites.link("anl").room = 4000
    with pytest.raises(DiskFull) as caught:
        await mover.bring("demo", [wanted(sites, "bnl", "a")], "anl")
    assert caught.value.where == "anl"
    assert "5 KB are to come, and there is room for 4 KB" in caught.value.message
    assert sites.files("anl") == {}


async def test_disk_that_fills_on_the_way_leaves_no_half_file_and_loses_nothing(sites, mover):
    for name in "abc":
        sites.put("bnl", project(name), name.encode() * 5000)
    target = sites.link("anl")

    def fill(progress):
        target.room = 3000

    with pytest.raises(DiskFull):
        await mover.bring("demo", [wanted(sites, "bnl", name) for name in "abc"], "anl", fill)
    assert sites.files("anl") == {}
    assert len(sites.files("bnl")) == 3


async def test_cancelling_leaves_no_half_file(sites, mover):
    sites.put("bnl", project("a"), b"x" * 100_000)
    begun = asyncio.Event()
    task = asyncio.create_task(mover.bring("demo", [wanted(sites, "bnl", "a")], "anl", lambda p: begun.set()))
    await begun.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert sites.files("anl") == {}


async def test_a_source_that_changed_is_refused(sites, mover):
    place = sites.put("bnl", project("a"), b"before")
    file = wanted(sites, "bnl", "a")
    place.write_bytes(b"after it")
    with pytest.raises(MovementError, match="has changed since it was entered") as caught:
        await mover.bring("demo", [file], "anl")
    assert caught.value.retry
    place.unlink()
    with pytest.raises(NotFound):
        await mover.bring("demo", [file], "anl")


async def test_copy_of_a_file(sites, mover):
    sites.put("bnl", f"in/{HOSTILE}", b"data")
    copied = await mover.copy("bnl", f"in/{HOSTILE}", "anl", "out/")
    assert (copied.files, copied.bytes) == (1, 4)
    await mover.copy("bnl", f"in/{HOSTILE}", "anl", "out/renamed")
    await mover.copy("bnl", f"in/{HOSTILE}", "bnl", "copy")
    assert sites.files("anl") == {f"out/{HOSTILE}": b"data", "out/renamed": b"data"}
    assert sites.files("bnl")["copy"] == b"data"


async def test_copy_of_a_folder_with_all_that_is_in_it(sites, mover):
    for name in ("a[1].star", "deep/er/b", ".hidden", "$(touch pwned)"):
        sites.put("bnl", f"set/{name}", name.encode())
    sites.put("bnl", "set/.a1b2.dcde-part", b"half writ")
    (sites.path("bnl") / "set/empty").mkdir()
    (sites.path("bnl") / "set/link").symlink_to("deep/er/b")
    (sites.path("bnl") / "set/gone").symlink_to("nowhere")
    (sites.path("bnl") / "set/out").symlink_to("/etc/passwd")
    told = []
    copied = await mover.copy("bnl", "set", "anl", "", told.append)
    names = ("a[1].star", "deep/er/b", ".hidden", "$(touch pwned)")
    expected = {f"set/{name}": name.encode() for name in names} | {"set/link": b"deep/er/b"}
    assert sites.files("anl") == expected
    assert (sites.path("anl") / "set/empty").is_dir()
    assert sorted(copied.skipped) == ["set/gone", "set/out"]
    assert told[-1].files_done == 5


async def test_a_copy_can_be_repeated_under_its_exact_name(sites, mover):
    sites.put("bnl", "set/a", b"a")
    sites.put("bnl", "set/b", b"b")
    sites.put("anl", "copy/a", b"a")
    sites.put("anl", "copy/other", b"stays")
    before = (sites.path("anl") / "copy/a").stat().st_mtime_ns
    await mover.copy("bnl", "set", "anl", "copy", exact=True)
    assert sites.files("anl") == {"copy/a": b"a", "copy/b": b"b", "copy/other": b"stays"}
    assert (sites.path("anl") / "copy/a").stat().st_mtime_ns == before


async def test_copy_refuses_what_cannot_be(sites, mover):
    sites.put("bnl", "set/a")
    with pytest.raises(PathRefused):
        await mover.copy("bnl", "set", "bnl", "set/inner")
    with pytest.raises(NotFound):
        await mover.copy("bnl", "nothing", "anl", "")
    with pytest.raises(PathRefused):
        await mover.copy("bnl", "../set", "anl", "")
    assert sites.files("anl") == {}
