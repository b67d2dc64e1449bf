"""The person's own files in the project: links at their own site."""

import os

import pytest
from dcde.data.raw import link_raw
from dcde.errors import AlreadyExists, InvalidParameter, NotFound
from dcde.pipelines.model import RawFiles

MOVIES = RawFiles(site="bnl", pattern="movies/*.mrcs", target="Movies")


async def test_files_appear_by_relative_links_inside_the_folder(sites):
    for name in ("a.mrcs", "b.mrcs", "gain.mrc"):
        sites.put("bnl", f"movies/{name}", name.encode())
    link = sites.link("bnl")
    found = await link_raw(link, "demo", MOVIES)
    assert [(file.path, file.size) for file in found] == [("Movies/a.mrcs", 6), ("Movies/b.mrcs", 6)]
    place = sites.path("bnl") / "projects/demo/Movies/a.mrcs"
    assert place.read_bytes() == b"a.mrcs"
    assert os.readlink(place) == "../../../movies/a.mrcs"
    assert found[0].mtime_ns == place.stat().st_mtime_ns
    assert await link_raw(link, "demo", MOVIES) == found, "again is no error"


async def test_nothing_that_fits(sites):
    with pytest.raises(NotFound, match="no file fits 'movies/"):
        await link_raw(sites.link("bnl"), "demo", MOVIES)


@pytest.mark.parametrize("name", ["<img onerror=x>.mrcs", "$(touch pwned).mrcs", "-rf.mrcs", "a b.mrcs", "é.mrcs"])
async def test_names_that_applications_must_not_see(sites, name):
    sites.put("bnl", f"movies/{name}")
    with pytest.raises(InvalidParameter) as caught:
        await link_raw(sites.link("bnl"), "demo", MOVIES)
    assert "Rename them" in caught.value.remedy
    assert not (sites.path("bnl") / "projects").exists()


async def test_the_same_name_twice(sites):
    sites.put("bnl", "one/a.mrcs")
    sites.put("bnl", "two/a.mrcs")
    raw = RawFiles(site="bnl", pattern="*/a.mrcs", target="Movies")
    with pytest.raises(InvalidParameter, match=r"same name: a\.mrcs"):
        await link_raw(sites.link("bnl"), "demo", raw)


async def test_another_file_of_that_name_in_the_project(sites):
    sites.put("bnl", "movies/a.mrcs")
    sites.put("bnl", "projects/demo/Movies/a.mrcs", b"other")
    with pytest.raises(AlreadyExists, match="another file"):
        await link_raw(sites.link("bnl"), "demo", MOVIES)
