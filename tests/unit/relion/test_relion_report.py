"""report.py on files made by hand: STAR and MRC as RELION writes them, broken ones, and hostile ones."""

from __future__ import annotations

import ast
import json
import os
import struct
import subprocess
import sys
import zlib
from pathlib import Path
from typing import Any

import mrcfile
import numpy as np
import pytest
from dcde.pipelines import relion

REPORT = Path(relion.__file__).with_name("report.py")
OPTICS = "data_optics\n\nloop_\n_rlnOpticsGroup #1\n_rlnMicrographOriginalPixelSize #2\n_rlnMicrographPixelSize #3\n1 3.0 3.0\n\n"


class Project:
    """A project folder and a record, and report.py run on them as a job does."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.record = folder / "project", folder / "record"
        self.folder.mkdir()
        self.record.mkdir()

    def star(self, path: str, table: str, columns: list[str], rows: list[str], *, before: str = OPTICS) -> None:
        head = [f"data_{table}", "", "loop_", *(f"_{c} #{i}" for i, c in enumerate(columns, 1))]
        self.file(path, before + "\n".join([*head, *rows, ""]))

    def file(self, path: str, text: str) -> None:
        (self.folder / path).parent.mkdir(parents=True, exist_ok=True)
        (self.folder / path).write_text(text)

    def mrc(self, path: str, data: Any) -> None:
        (self.folder / path).parent.mkdir(parents=True, exist_ok=True)
        with mrcfile.new(self.folder / path, overwrite=True) as file:
            file.set_data(np.asarray(data))

    def report(self, *options: str, checks: Any = (), pictures: Any = (), job_dir: str = "") -> dict[str, Any]:
        spec = {"checks": list(checks), "pictures": list(pictures), "stderr": "stderr", "job_dir": job_dir}
        (self.record / "spec.json").write_text(json.dumps(spec))
        argv = [sys.executable, "-I", str(REPORT), str(self.record / "spec.json"), str(self.record), *options]
        done = subprocess.run(argv, cwd=self.folder, capture_output=True, text=True)
        assert done.stderr == "" and done.returncode in (0, 1)
        found: dict[str, Any] = json.loads((self.record / "report.json").read_text())
        assert found["ok"] == (done.returncode == 0)
        return found


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return Project(tmp_path)


def read_png(path: Path) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """Decode a PNG whose lines are unfiltered."""
    data = path.read_bytes()
    assert data[:8] == b"\x89PNG\r\n\x1a\n"
    place, body, width, height, kind = 8, b"", 0, 0, 0
    while place < len(data):
        size, name = struct.unpack(">I4s", data[place : place + 8])
        chunk = data[place + 8 : place + 8 + size]
        assert struct.unpack(">I", data[place + 8 + size : place + 12 + size])[0] == zlib.crc32(name + chunk)
        if name == b"IHDR":
            width, height, _, kind = struct.unpack(">IIBB", chunk[:10])
        if name == b"IDAT":
            body += chunk
        place += size + 12
    depth = 3 if kind == 2 else 1
    lines = np.frombuffer(zlib.decompress(body), np.uint8).reshape(height, width * depth + 1)
    assert not lines[:, 0].any()
    return lines[:, 1:].reshape(height, width, depth)


def test_it_needs_nothing_but_numpy() -> None:
    imported = {
        (node.module or "") if isinstance(node, ast.ImportFrom) else name.name
        for node in ast.walk(ast.parse(REPORT.read_text()))
        if isinstance(node, ast.Import | ast.ImportFrom)
        for name in node.names
    }
    assert {name.split(".")[0] for name in imported} - sys.stdlib_module_names == {"numpy"}


def test_rows_and_finite_columns(project: Project) -> None:
    project.star("C/m.star", "micrographs", ["rlnMicrographName", "rlnDefocusU"], ["M/a.mrc 15000.5", "M/b.mrc 16000"])
    check = {"star": "C/m.star", "table": "micrographs", "min_rows": 2, "finite": ["rlnDefocusU"]}
    found = project.report(checks=[check])
    assert found["ok"] and found["rows"] == {"C/m.star": 2} and found["fraction"] == 1


@pytest.mark.parametrize(
    "rows, change, told",
    [
        (["M/a.mrc nan"], {}, "no finite numbers"),
        (["M/a.mrc inf"], {}, "no finite numbers"),
        (["M/a.mrc 1"], {"min_rows": 2}, "at least 2"),
        ([], {}, "0 rows"),
        (["M/a.mrc 1 2"], {}, "3 values for 2 columns"),
        (["M/a.mrc 1"], {"finite": ["rlnDefocusV"]}, "no column rlnDefocusV"),
        (["M/a.mrc 1"], {"table": "particles"}, "no table particles"),
        (["M/a.mrc 1"], {"star": "C/none.star"}, "not there"),
        (["M/a.mrc 1"], {"star": "C/*.none"}, "there is no"),
        (["M/a.mrc 1"], {"star": "/etc/passwd"}, "not in the project"),
        (["M/a.mrc 1"], {"star": "../record/spec.json"}, "not in the project"),
    ],
)
def test_broken_promises(project: Project, rows: list[str], change: dict[str, Any], told: str) -> None:
    project.star("C/m.star", "micrographs", ["rlnMicrographName", "rlnDefocusU"], rows)
    check = {"star": "C/m.star", "table": "micrographs", "min_rows": 1, "finite": ["rlnDefocusU"]} | change
    found = project.report(checks=[check])
    assert not found["ok"]
    assert told in found["problems"][0]


@pytest.mark.parametrize(
    "name", ["Movies/$(id).mrcs", "Movies/a;b.mrcs", "Movies/<img.mrcs", "../x.mrcs", "-rf.mrcs", "M/`a`"]
)
def test_names_that_a_shell_would_understand_are_refused(project: Project, name: str) -> None:
    project.star(
        "Import/job001/movies.star", "movies", ["rlnMicrographMovieName", "rlnOpticsGroup"], ["M/a.mrcs 1", f"{name} 1"]
    )
    check = {"star": "Import/job001/movies.star", "table": "movies"}
    found = project.report(checks=[check], job_dir="Import/job001")
    assert not found["ok"] and "only letters" in found["problems"][0]


def test_a_link_that_leads_out_is_refused(project: Project, tmp_path: Path) -> None:
    (tmp_path / "outside.star").write_text(OPTICS)
    (project.folder / "in.star").symlink_to(tmp_path / "outside.star")
    found = project.report(checks=[{"star": "in.star", "table": "optics"}])
    assert "not in the project" in found["problems"][0]


def test_as_many_rows_as_another_table(project: Project) -> None:
    project.star("I/movies.star", "movies", ["rlnMicrographMovieName"], ["M/a.mrcs", "M/b.mrcs"])
    project.star("C/m.star", "micrographs", ["rlnMicrographName"], ["M/a.mrc"])
    check = {"star": "C/m.star", "table": "micrographs", "min_rows": "rows(I/movies.star)"}
    assert "at least 2" in project.report(checks=[check])["problems"][0]


def test_an_unknown_option_is_a_failure(project: Project) -> None:
    (project.record / "stderr").write_text("WARNING: Option --grad\tis not a valid RELION argument\n")
    found = project.report()
    assert found["problems"] == ["RELION does not know the option --grad and went on without it"]


def test_no_picks(project: Project) -> None:
    for name in "ab":
        project.star(f"AutoPick/job004/Movies/{name}_autopick.star", "", ["rlnCoordinateX"], [], before="")
    check = {"star": "AutoPick/job004/Movies/*_autopick.star", "table": "", "finite": ["rlnCoordinateX"]}
    found = project.report(checks=[check], job_dir="AutoPick/job004")
    assert found["problems"][0].startswith("no particles were picked")
    assert found["metrics"]["picks"]["value"] == 0


def test_some_micrographs_may_have_no_picks(project: Project) -> None:
    project.star("AutoPick/job004/Movies/a_autopick.star", "", ["rlnCoordinateX"], ["5.5", "6.5"], before="")
    project.file("AutoPick/job004/Movies/b_autopick.star", "")
    check = {"star": "AutoPick/job004/Movies/*_autopick.star", "table": "", "finite": ["rlnCoordinateX"]}
    found = project.report(checks=[check], job_dir="AutoPick/job004")
    assert found["ok"] and found["metrics"]["picks_per_micrograph"]["value"] == 1
    project.file("AutoPick/job004/Movies/a_autopick.star", "")
    found = project.report(checks=[check], job_dir="AutoPick/job004")
    assert found["problems"][0].startswith("no particles were picked")


def test_metrics_with_units(project: Project) -> None:
    columns = ["rlnMicrographName", "rlnDefocusU", "rlnDefocusV", "rlnCtfMaxResolution", "rlnAccumMotionTotal"]
    project.star("C/m.star", "micrographs", columns, ["M/a.mrc 15000 14000 6 4", "M/b.mrc 17000 16000 7 5"])
    metrics = project.report(checks=[{"star": "C/m.star", "table": "micrographs"}])["metrics"]
    assert metrics["defocus_mean"] == {"value": 1.55, "unit": "µm", "title": "Defocus, mean"}
    assert metrics["motion_total"]["value"] == 13.5 and metrics["motion_total"]["unit"] == "Å"
    assert metrics["ctf_resolution"]["value"] == 6.5


def lay_picks(project: Project, *, size: int = 600) -> dict[str, Any]:
    rng = np.random.default_rng(1)
    project.mrc("MotionCorr/job002/Movies/a.mrc", rng.normal(size=(size, size)).astype(np.float32))
    project.star("C/m.star", "micrographs", ["rlnMicrographName"], ["MotionCorr/job002/Movies/a.mrc"])
    picks = ["rlnCoordinateX", "rlnCoordinateY"]
    project.star(
        "AutoPick/job004/Movies/a_autopick.star", "", picks, ["100 200", "nan 5", "-1e9 3", "599 599"], before=""
    )
    source = {"star": "C/m.star", "picks": "AutoPick/job004", "suffix": "_autopick.star", "diameter": "120"}
    return {"name": "picks", "title": "Picks", "kind": "micrograph_picks", "source": source}


def test_picks_are_circles_at_their_places(project: Project) -> None:
    found = project.report(pictures=[lay_picks(project)])
    assert found["pictures"] == [{"name": "picks", "title": "Picks", "file": "pictures/picks.png"}]
    pixels = read_png(project.record / "pictures/picks.png").astype(int)
    green = (pixels[..., 1] - pixels[..., 0]) > 60
    y, x = np.nonzero(green[:400, :400])
    assert np.allclose(np.hypot(x - 100, y - 200), 20, atol=1)  # 120 Å across, 3 Å a pixel
    assert len(x) > 100
    assert green[560:, 560:].any()  # cut off at the corner, and no error


def test_large_micrographs_are_reduced(project: Project) -> None:
    project.report(pictures=[lay_picks(project, size=1600)])
    pixels = read_png(project.record / "pictures/picks.png").astype(int)
    assert pixels.shape[:2] == (533, 533)
    y, x = np.nonzero((pixels[..., 1] - pixels[..., 0] > 60)[:120, :120])
    assert np.allclose(np.hypot(x - 100 / 3, y - 200 / 3), 20 / 3, atol=1)


def lay_classes(project: Project, iteration: int, shares: list[float]) -> dict[str, Any]:
    averages = np.zeros((len(shares), 24, 24), np.float32)
    yy, xx = np.mgrid[:24, :24]
    for number in range(len(shares)):
        averages[number][np.hypot(yy - 12, xx - 6 - 3 * number) < 3] = 1
    root = f"Class2D/job006/run_it{iteration:03d}"
    project.mrc(f"{root}_classes.mrcs", averages)
    rows = [f"{i:06d}@{root}_classes.mrcs {share} 20.5" for i, share in enumerate(shares, 1)]
    columns = ["rlnReferenceImage", "rlnClassDistribution", "rlnEstimatedResolution"]
    project.star(f"{root}_model.star", "model_classes", columns, rows)
    return {"name": "classes", "title": "Classes", "kind": "class_montage", "source": {"root": "Class2D/job006/run"}}


def brightest(pixels: np.ndarray[Any, np.dtype[np.uint8]], place: int) -> float:
    """Where along x the bright spot of the tile at `place` in the first row lies, from 0 to 1 (its label left out)."""
    tile = 144
    found = pixels[4 + 30 : 4 + tile, 4 + place * (tile + 4) : 4 + place * (tile + 4) + tile, 0].astype(float)
    found = np.where(found > 180, found, 0)
    return float((found.sum(0) * np.arange(tile)).sum() / found.sum() / tile)


def test_the_montage_begins_with_the_largest_class(project: Project) -> None:
    picture = lay_classes(project, 3, [0.1, 0.7, 0.2])
    project.report(pictures=[picture])
    pixels = read_png(project.record / "pictures/classes.png")
    places = [brightest(pixels, place) for place in range(3)]
    assert places == pytest.approx([9.5 / 24, 12.5 / 24, 6.5 / 24], abs=0.03)


def test_progress_shows_the_newest_averages(project: Project) -> None:
    lay_classes(project, 1, [1.0])
    picture = lay_classes(project, 2, [0.5, 0.5])
    project.file("Class2D/job006/run_it002_optimiser.star", "data_optimiser_general\n\n_rlnNumberOfIterations 8\n")
    found = project.report("--progress", checks=[{"star": "none.star", "table": "x"}], pictures=[picture])
    assert found["ok"] and found["fraction"] == 0.25
    assert read_png(project.record / "pictures/classes.png").shape[1] == 4 + 2 * 148


def test_progress_by_counting_files(project: Project) -> None:
    project.star("I/movies.star", "movies", ["rlnMicrographMovieName"], [f"M/{i}.mrcs" for i in range(4)])
    project.file("MotionCorr/job002/Movies/0.star", "")
    source = {"star": "x", "done": "MotionCorr/job002/Movies/*.star", "of": "I/movies.star"}
    picture = {"name": "micrograph", "title": "", "kind": "micrograph", "source": source}
    found = project.report("--progress", pictures=[picture])
    assert found["fraction"] == 0.25 and found["pictures"] == []


@pytest.mark.parametrize("damage", ["empty", "cut", "header", "missing", "outside", "zeros", "inf"])
def test_broken_images_make_no_picture_and_no_crash(project: Project, damage: str) -> None:
    picture = lay_classes(project, 1, [0.5, 0.5])
    stack = project.folder / "Class2D/job006/run_it001_classes.mrcs"
    data = stack.read_bytes()
    if damage == "missing":
        stack.unlink()
    elif damage == "outside":
        stack.unlink()
        stack.symlink_to("/dev/zero")
    elif damage == "zeros":
        project.mrc(str(stack.relative_to(project.folder)), np.zeros((2, 24, 24), np.float32))
    elif damage == "inf":
        stack.write_bytes(data[:1024] + struct.pack("<f", float("inf")) * (2 * 24 * 24))
    else:
        huge = struct.pack("<4i", 2**31 - 1, 2**31 - 1, 2**31 - 1, 2) + data[16:]
        stack.write_bytes({"empty": b"", "cut": data[:2000], "header": huge}[damage])
    found = project.report(pictures=[picture])
    assert found["ok"]
    assert bool(found["pictures"]) == (damage in ("zeros", "inf"))
    assert bool(found["notes"]) != bool(found["pictures"])


def test_pictures_are_the_owners_alone(project: Project) -> None:
    project.report(pictures=[lay_picks(project)])
    assert os.stat(project.record / "pictures").st_mode & 0o077 == 0
    assert os.stat(project.record / "report.json").st_mode & 0o077 == 0


def test_a_picture_cannot_choose_where_it_is_written(project: Project) -> None:
    found = project.report(pictures=[lay_picks(project) | {"name": "../../x"}])
    assert found["pictures"] == []
