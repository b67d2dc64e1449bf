"""Paths cannot leave their root: by name, by link, or by a link that appears while one looks."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest
from dcde.agent import files, globs, paths
from dcde.agent.paths import Root
from dcde.agent.protocol import OpError


@pytest.mark.parametrize(
    "path", ["..", "../outside/secret", "a/../../outside", "/etc/passwd", "a\x00b", "x/../y", "a/\ud800"]
)
def test_paths_that_leave_by_name_are_refused(root: Root, path: str) -> None:
    (Path(root.path) / "a").mkdir()
    for attempt in (
        lambda: files.look(root, path),
        lambda: files.list_folder(root, path, 10),
        lambda: files.make_folder(root, path, True),
        lambda: files.remove(root, path, True),
        lambda: files.rename(root, "a", path),
        lambda: files.link(root, "l", path),
        lambda: files.link(root, path, "a"),
        lambda: files.Writing(root, path, 0o600).open(),
        lambda: globs.find(root, [f"{path}/*"]),
    ):
        with pytest.raises(OpError) as caught:
            attempt()
        assert caught.value.code == "PathRefused", path
        assert "inside your own folder" in caught.value.remedy


@pytest.mark.parametrize("target", ["../outside", "/etc", "inner/../../outside", "/proc/self/root/etc"])
def test_links_that_lead_out_are_refused(root: Root, outside: Path, target: str) -> None:
    top = Path(root.path)
    (top / "inner").mkdir()
    (top / "way").symlink_to(target)
    for path in ("way", "way/secret", "way/passwd"):
        with pytest.raises(OpError) as caught:
            files.open_file(root, path)
        assert caught.value.code == "PathRefused"
    with pytest.raises(OpError, match="leads"):
        files.Writing(root, "way/new", 0o600).open()
    with pytest.raises(OpError, match="leads"):
        files.list_folder(root, "way", 10)
    assert (outside / "secret").read_text() == "not for you"


def test_links_inside_are_followed_and_listed_as_links(root: Root) -> None:
    top = Path(root.path)
    (top / "data/deep").mkdir(parents=True)
    (top / "data/deep/file").write_text("x")
    (top / "relative").symlink_to("data/deep")
    (top / "absolute").symlink_to(top / "data/deep")
    (top / "data/up").symlink_to("../data/deep/file")
    for path in ("relative/file", "absolute/file", "data/up"):
        assert files.look(root, path)["size"] == 1
    assert {e["name"]: e["type"] for e in files.list_folder(root, "", 10)["entries"]} == {
        "absolute": "link", "data": "folder", "relative": "link",
    }  # fmt: skip
    files.remove(root, "relative", True)
    assert (top / "data/deep/file").exists(), "removing a link leaves what it points to"


def test_a_link_to_itself_is_refused(root: Root) -> None:
    (Path(root.path) / "loop").symlink_to("loop")
    with pytest.raises(OpError, match="too many links"):
        files.look(root, "loop")


def test_removing_a_tree_does_not_follow_links(root: Root, outside: Path) -> None:
    top = Path(root.path)
    (top / "tree/sub").mkdir(parents=True)
    (top / "tree/sub/way").symlink_to(outside)
    (top / "tree/file").write_text("x")
    files.remove(root, "tree", True)
    assert not (top / "tree").exists()
    assert (outside / "secret").exists()


def test_a_folder_swapped_for_a_link_while_one_looks_gives_nothing_away(root: Root, outside: Path) -> None:
    top = Path(root.path)
    (top / "real").mkdir()
    (top / "real/secret").write_text("mine")
    (top / "evil").symlink_to(outside)
    stop = threading.Event()

    def swap() -> None:
        while not stop.is_set():
            (top / "real").rename(top / "aside")
            (top / "evil").rename(top / "real")
            (top / "real").rename(top / "evil")
            (top / "aside").rename(top / "real")

    swapper = threading.Thread(target=swap)
    swapper.start()
    outcomes = set()
    try:
        for _ in range(3000):
            try:
                with files.open_file(root, "real/secret") as file:
                    outcomes.add(file.read())
            except OpError as error:
                outcomes.add(error.code)
    finally:
        stop.set()
        swapper.join()
    assert b"not for you" not in outcomes
    assert b"mine" in outcomes
    assert outcomes <= {b"mine", "NotFound", "PathRefused", "FileTrouble"}


@pytest.mark.parametrize("path", ["real/secret", "real"])
def test_a_link_put_there_between_looking_and_opening(root: Root, outside: Path, monkeypatch, path: str) -> None:
    top = Path(root.path)
    (top / "real").mkdir()
    (top / "real/secret").write_text("mine")
    look = paths._link_target

    def look_and_swap(folder: int, name: str) -> str | None:
        target = look(folder, name)
        if name == "real" and not (top / "real").is_symlink():
            (top / "real").rename(top / "aside")
            (top / "real").symlink_to(outside)
        return target

    monkeypatch.setattr(paths, "_link_target", look_and_swap)
    with pytest.raises(OpError):
        files.list_folder(root, path, 10) if path == "real" else files.open_file(root, path)


def test_pipes_and_devices_are_not_read(root: Root) -> None:
    os.mkfifo(Path(root.path) / "pipe")
    with pytest.raises(OpError) as caught:
        files.open_file(root, "pipe")
    assert caught.value.code == "FileTrouble"


def test_the_root_itself_stays(root: Root) -> None:
    for attempt in (lambda: files.remove(root, "", True), lambda: files.rename(root, "", "x")):
        with pytest.raises(OpError, match="folder itself"):
            attempt()
