"""Listing, looking, writing: what comes back, and what is on disk when something fails."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from pathlib import Path

import pytest
from dcde.agent import files, globs
from dcde.agent.paths import Root
from dcde.agent.protocol import OpError

NAMES = [b"<img src=x onerror=alert(1)>", b"new\nline", b"not \xff utf-8", b" blank ", "größe".encode(), b"-rf"]


def test_names_come_back_as_they_are(root: Root) -> None:
    for name in NAMES:
        with open(os.path.join(os.fsencode(root.path), name), "wb") as file:
            file.write(b"x")
    found = [os.fsencode(entry["name"]) for entry in files.list_folder(root, "", 100)["entries"]]
    assert sorted(found) == sorted(NAMES)
    for name in NAMES:
        assert files.look(root, os.fsdecode(name))["type"] == "file"
    assert {os.fsencode(f["path"]) for f in globs.find(root, ["*"])["files"]} == set(NAMES)


def test_a_long_folder_is_cut_and_says_so(root: Root) -> None:
    for number in range(30):
        (Path(root.path) / f"f{number:02}").touch()
    answer = files.list_folder(root, "", 10)
    assert [e["name"] for e in answer["entries"]] == [f"f{n:02}" for n in range(10)]
    assert answer["truncated"]
    assert not files.list_folder(root, "", 30)["truncated"]


def test_making_folders(root: Root) -> None:
    files.make_folder(root, "a/b/c", True)
    files.make_folder(root, "a/b/c", True)
    with pytest.raises(OpError) as caught:
        files.make_folder(root, "a/b/c", False)
    assert caught.value.code == "AlreadyExists"
    with pytest.raises(OpError) as caught:
        files.make_folder(root, "x/y", False)
    assert caught.value.code == "NotFound"
    (Path(root.path) / "file").touch()
    with pytest.raises(OpError):
        files.make_folder(root, "file/below", True)
    assert (Path(root.path) / "a").stat().st_mode & 0o777 == 0o700


def test_links_are_relative_and_may_be_made_twice(root: Root) -> None:
    files.make_folder(root, "projects/p/Movies", True)
    files.make_folder(root, "movies", True)
    for _ in range(2):
        files.link(root, "projects/p/Movies/a.mrcs", "movies/a.mrcs")
    path = Path(root.path) / "projects/p/Movies/a.mrcs"
    assert os.readlink(path) == "../../../movies/a.mrcs"
    (Path(root.path) / "movies/a.mrcs").write_text("data")
    assert files.look(root, "projects/p/Movies/a.mrcs")["size"] == 4
    with pytest.raises(OpError) as caught:
        files.link(root, "projects/p/Movies/a.mrcs", "movies/b.mrcs")
    assert caught.value.code == "AlreadyExists"


def test_globs(root: Root) -> None:
    top = Path(root.path)
    for name in ("a/1.star", "a/b/2.star", "a/b/c/3.star", "a/.hidden.star", "a/4.txt", f"a/.x{files.PART_SUFFIX}"):
        (top / name).parent.mkdir(parents=True, exist_ok=True)
        (top / name).write_text(name)
    (top / "linked").symlink_to("a/1.star")
    (top / "broken").symlink_to("nowhere")
    (top / "away").symlink_to("/etc/passwd")

    def paths(*patterns: str) -> list[str]:
        return [found["path"] for found in globs.find(root, list(patterns))["files"]]

    assert paths("a/*.star") == ["a/1.star"]
    assert paths("a/**/*.star") == ["a/1.star", "a/b/2.star", "a/b/c/3.star"]
    assert paths("**/[23].star") == ["a/b/2.star", "a/b/c/3.star"]
    assert paths("a/**") == ["a/1.star", "a/4.txt", "a/b/2.star", "a/b/c/3.star"]
    assert paths("a/.h*") == ["a/.hidden.star"]
    assert paths("*") == ["linked"]
    assert paths("a/1.star", "a/?.star", "no/such/*", "a/1.star/**") == ["a/1.star"]
    found = globs.find(root, ["a/1.star"])["files"][0]
    assert found["size"] == 8
    assert found["mtime_ns"] == (top / "a/1.star").stat().st_mtime_ns


def test_checksum_and_tail(root: Root) -> None:
    data = os.urandom(3_000_000)
    (Path(root.path) / "f").write_bytes(data)
    assert files.checksum(root, "f")["sha256"] == hashlib.sha256(data).hexdigest()
    import base64

    for offset, limit, expected in (
        (0, 10, data[:10]),
        (-5, 100, data[-5:]),
        (2_999_999, 9, data[-1:]),
        (9**9, 5, b""),
    ):
        answer = files.tail(root, "f", offset, limit)
        assert base64.b64decode(answer["data_base64"]) == expected
        assert answer["size"] == len(data)


def test_writing_replaces_only_when_whole(root: Root) -> None:
    target = Path(root.path) / "f"
    target.write_text("old")
    writing = files.Writing(root, "f", 0o640)
    writing.open()
    writing.add(b"new ")
    writing.add(b"text")
    assert target.read_text() == "old"
    answer = writing.finish()
    writing.close()
    assert answer == {"size": 8, "sha256": hashlib.sha256(b"new text").hexdigest()}
    assert target.read_text() == "new text"
    assert target.stat().st_mode & 0o777 == 0o640
    given_up = files.Writing(root, "f", 0o600)
    given_up.open()
    given_up.add(b"half")
    given_up.close()
    assert [p.name for p in Path(root.path).iterdir()] == ["f"]
    assert target.read_text() == "new text"


FULL = """
import os, sys
from pathlib import Path
sys.path[:0] = sys.argv[2:]
from dcde.agent.files import Writing
from dcde.agent.paths import Root
from dcde.agent.protocol import OpError
folder = sys.argv[1]
Path(folder, "f").write_text("old")
writing = Writing(Root(folder), "f", 0o600)
writing.open()
try:
    for _ in range(100):
        writing.add(bytes(100_000))
    writing.finish()
except OpError as error:
    print(error.code, error.retry, bool(error.remedy), error.where)
writing.close()
print(sorted(os.listdir(folder)), Path(folder, "f").read_text())
"""


def test_a_full_disk_is_said_and_leaves_the_old_file(tmp_path: Path) -> None:
    small = tmp_path / "small"
    small.mkdir()
    namespace = ["unshare", "--mount"] if os.getuid() == 0 else ["unshare", "--user", "--map-root-user", "--mount"]
    shell = 'mount -t tmpfs -o size=1m small "$1" && exec "$2" -c "$3" "$1" "${@:4}"'
    done = subprocess.run(
        [*namespace, "bash", "-c", shell, "bash", str(small), sys.executable, FULL, *sys.path],
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
    )
    assert done.stdout.splitlines() == ["DiskFull True True f", "['f'] old"], done.stderr
