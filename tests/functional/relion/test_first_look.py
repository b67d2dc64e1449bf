"""The whole of First look with the real RELION on synthetic movies, judged by what is known about them.

Each step runs in a folder that holds only the inputs its plan declares, so that a file the plan forgot would fail it.
"""

from __future__ import annotations

import json
import re
import struct
import subprocess
import zlib
from pathlib import Path
from typing import Any

import mrcfile
import numpy as np
import pytest
import truth
from dcde.pipelines.template import Template

pytestmark = pytest.mark.timeout(1200)

Array = np.ndarray[Any, np.dtype[Any]]
Rows = list[dict[str, str]]


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory, sample: Path, first_look: Template, lay_out: Any) -> Any:
    """First look on the test set with the template's own values, run once."""
    bench = lay_out(tmp_path_factory.mktemp("first-look"), first_look, sample / "movies", {})
    bench.run_all()
    return bench


@pytest.fixture(scope="module")
def told(sample: Path) -> dict[str, Any]:
    """The truth about the session."""
    found: dict[str, Any] = json.loads((sample / "truth/truth.json").read_text())
    return found


def star(path: Path, table: str) -> Rows:
    """Read one table of a STAR file."""
    blocks = re.split(r"^data_", path.read_text(), flags=re.M)[1:]
    lines = next(b for b in blocks if b.split("\n", 1)[0] == table).split("\n")[1:]
    names = [line.split()[0][1:] for line in lines if line.startswith("_")]
    rows = [line.split() for line in lines if line.strip() and line[0] not in "_#l"]
    return [dict(zip(names, row, strict=True)) for row in rows]


def png(path: Path) -> Array:
    """Decode one of our own PNGs (one IDAT chunk, unfiltered lines)."""
    data = path.read_bytes()
    width, height, _, kind = struct.unpack(">IIBB", data[16:26])
    size = struct.unpack(">I", data[33:37])[0]
    depth = 3 if kind == 2 else 1
    lines = np.frombuffer(zlib.decompress(data[41 : 41 + size]), np.uint8).reshape(height, 1 + width * depth)
    return lines[:, 1:].reshape(height, width, depth).astype(int)


def stem(name: str) -> str:
    return Path(name.split("@")[-1]).stem


def true_places(sample: Path) -> dict[str, Rows]:
    found: dict[str, Rows] = {}
    for row in star(sample / "truth/truth_particles.star", "particles"):
        found.setdefault(row["rlnMicrographName"], []).append(row)
    return found


def places(rows: Rows) -> Array:
    return np.array([(float(row["rlnCoordinateX"]), float(row["rlnCoordinateY"])) for row in rows])


def test_every_step_delivers_what_it_promised(done: Any, told: dict[str, Any]) -> None:
    assert {name: outcome.report["problems"] for name, outcome in done.outcomes.items()} == {
        step.id: [] for step in done.plan.steps
    }
    assert all(outcome.ok for outcome in done.outcomes.values())
    rows = {name: list(outcome.report["rows"].values()) for name, outcome in done.outcomes.items()}
    movies = len(told["micrographs"])
    assert rows["import"] == [movies] and rows["motioncorr"] == [movies] and rows["ctffind"] == [movies]
    assert rows["autopick"] == rows["extract"] == rows["class2d"][:1]
    assert rows["class2d"][1] == 8


def test_motion_and_defocus_are_the_true_ones(done: Any, told: dict[str, Any]) -> None:
    metrics = {n: m for outcome in done.outcomes.values() for n, m in outcome.report["metrics"].items()}
    steps = [np.hypot(np.diff(m["drift_x"]), np.diff(m["drift_y"])).sum() for m in told["micrographs"]]
    assert metrics["motion_total"]["unit"] == "Å"
    # Errors of the single shifts add to the length of the way, so that it comes out somewhat longer.
    assert 0.9 * np.mean(steps) < metrics["motion_total"]["value"] < 1.5 * np.mean(steps)
    fitted = star(done.site(done.plan.step("ctffind")) / "CtfFind/job003/micrographs_ctf.star", "micrographs")
    true = {m["name"]: (m["defocus_u"] + m["defocus_v"]) / 2 for m in told["micrographs"]}
    for row in fitted:
        mean = (float(row["rlnDefocusU"]) + float(row["rlnDefocusV"])) / 2
        assert mean == pytest.approx(true[stem(row["rlnMicrographName"])], rel=0.02)
    assert metrics["ctf_resolution"]["value"] < 10


def test_picks_are_particles(done: Any, sample: Path) -> None:
    hits = picked = there = 0
    for name, rows in true_places(sample).items():
        path = done.site(done.plan.step("autopick")) / f"AutoPick/job004/Movies/{name}_autopick.star"
        found, true = places(star(path, "")), places(rows)
        near = np.hypot(*(found[:, None] - true[None]).transpose(2, 0, 1)).min(axis=1) * 3.0 < 40
        hits, picked, there = hits + int(near.sum()), picked + len(found), there + len(true)
    assert hits / picked > 0.85 and hits / there > 0.8


def test_the_picture_of_picks_circles_particles(done: Any, sample: Path) -> None:
    pixels = png(done.outcomes["autopick"].picture("picks"))
    green = (pixels[..., 1] - pixels[..., 0]) > 60
    assert pixels.shape == (768, 768, 3)
    assert 0.02 < green.mean() < 0.3
    best = 0.0
    yy, xx = np.mgrid[:768, :768]
    for rows in true_places(sample).values():  # which micrograph is shown is the report's choice
        inside = np.zeros((768, 768), bool)
        for x, y in places(rows):
            inside |= np.hypot(yy - y, xx - x) < 65 / 3.0 + 6
        best = max(best, float(inside[green].mean()))
    assert best > 0.8


def test_the_corrected_micrograph_shows_dark_particles(done: Any, sample: Path) -> None:
    pixels = png(done.outcomes["motioncorr"].picture("micrograph"))[..., 0]
    assert pixels.shape == (768, 768) and pixels.std() > 20
    there = np.array(
        [
            pixels[round(y) - 8 : round(y) + 8, round(x) - 8 : round(x) + 8].mean()
            for x, y in places(true_places(sample)["movie_001"])
        ]
    )
    assert there.mean() < pixels.mean() - 3


def test_the_power_spectrum_has_the_fits_rings(done: Any) -> None:
    pixels = png(done.outcomes["ctffind"].picture("power_spectrum"))[..., 0].astype(float)
    assert pixels.shape == (512, 512)
    yy, xx = np.mgrid[:512, :512]
    radius = np.hypot(yy - 256, xx - 256).astype(int)
    used = slice(60, 200)

    def profile(half: Array) -> Array:
        mean = np.bincount(radius[half], pixels[half]) / np.maximum(1, np.bincount(radius[half]))
        return np.asarray(mean[used] - np.convolve(np.pad(mean, 15, mode="edge"), np.ones(31) / 31, "valid")[used])

    assert np.corrcoef(profile(xx < 250), profile(xx > 262))[0, 1] > 0.6


def test_the_montage_shows_every_class(done: Any) -> None:
    pixels = png(done.outcomes["class2d"].picture("classes"))[..., 0]
    sizes = [float(x) for x in done.outcomes["class2d"].report["metrics"]["class_sizes"]["value"].split(",")]
    assert len(sizes) == 8 and sum(sizes) == pytest.approx(100, abs=4) and sizes == sorted(sizes, reverse=True)
    columns, tile = 4, (pixels.shape[1] - 4) // 4
    seen = 0
    for place in range(8):
        row, column = divmod(place, columns)
        window = pixels[4 + row * tile :, 4 + column * tile :][: tile - 4, : tile - 4]
        half = (tile - 4) // 2
        middle, rim = window[half - 20 : half + 20, half - 20 : half + 20], window[-12:, :]
        seen += middle.mean() > rim.mean() + 40
    assert seen >= 6


def test_progress_can_be_told_while_it_runs(done: Any) -> None:
    found = done.report(done.plan.step("class2d"), "--progress")
    assert found["fraction"] == 1 and [p["name"] for p in found["pictures"]] == ["classes"]
    done.report(done.plan.step("class2d"))


def averages(done: Any) -> tuple[Path, list[float]]:
    step = done.plan.step("class2d")
    root = done.site(step) / step.outputs[-1]
    model = star(root.with_name(root.name.replace("_classes.mrcs", "_model.star")), "model_classes")
    return root, [float(row["rlnClassDistribution"]) for row in model]


def test_class_averages_are_the_protein(done: Any, sample: Path) -> None:
    """At least two averages fit projections of the truth well, and clearly better than those of anything unrelated."""
    verdicts = truth.judge(averages(done)[0], sample / "truth/truth_map.mrc", averages(done)[1])
    assert sum(verdict.right and verdict.share > 0.03 for verdict in verdicts) >= 2, verdicts


def test_the_judge_does_not_believe_in_another_protein(done: Any, sample: Path, tmp_path: Path) -> None:
    """The same averages, with a made-up density of the same size given out as the truth: not one is accepted."""
    with mrcfile.open(sample / "truth/truth_map.mrc") as file:
        points, weights = truth.made_up(*truth.cloud(file.data.astype(float), 3.0), seed=7)
    volume, _ = np.histogramdd(points[:, ::-1], bins=64, range=[(-96, 96)] * 3, weights=weights)
    with mrcfile.new(tmp_path / "false.mrc") as file:
        file.set_data(volume.astype(np.float32))
        file.voxel_size = 3.0
    verdicts = truth.judge(averages(done)[0], tmp_path / "false.mrc", averages(done)[1])
    assert sum(verdict.right for verdict in verdicts) == 0, verdicts


def test_the_true_poses_reconstruct_the_true_map(done: Any, sample: Path, tmp_path: Path) -> None:
    """Geometry, contrast and optics in the truth's tables are RELION's: with them it rebuilds the density, in the right hand."""
    step = done.plan.step("extract")
    text = (done.site(step) / "Extract/job005/particles.star").read_text()
    head, body = text.split("data_particles")
    names = re.findall(r"^_(\S+)", body, re.M)
    rows = [dict(zip(names, line.split(), strict=True)) for line in body.splitlines() if re.match(r"\s*[-\d]", line)]
    true = true_places(sample)
    kept = []
    for row in rows:
        candidates = true[stem(row["rlnMicrographName"])]
        offset = places([row])[0] - places(candidates)
        nearest = int(np.hypot(*offset.T).argmin())
        if np.hypot(*offset[nearest]) * 3.0 < 40:
            pose = {n: candidates[nearest][n] for n in ("rlnAngleRot", "rlnAngleTilt", "rlnAnglePsi")}
            shift = {
                "rlnOriginXAngst": f"{3 * offset[nearest][0]:.3f}",
                "rlnOriginYAngst": f"{3 * offset[nearest][1]:.3f}",
            }
            kept.append(row | pose | shift)
    columns = list(kept[0])
    table = ["data_particles", "", "loop_", *(f"_{n} #{i}" for i, n in enumerate(columns, 1))]
    table += [" ".join(row[n] for n in columns) for row in kept]
    (tmp_path / "true.star").write_text(head + "\n".join([*table, ""]))
    subprocess.run(
        ["relion_reconstruct", "--i", tmp_path / "true.star", "--o", tmp_path / "map.mrc", "--ctf", "--maxres", "15"],
        cwd=done.site(step), check=True, capture_output=True,
    )  # fmt: skip
    rebuilt, pixel = mrcfile.read(tmp_path / "map.mrc").astype(float), 4.5
    right, mirrored = (correlation(rebuilt, pixel, sample, flip) for flip in (False, True))
    assert right > 0.85 and right > mirrored + 0.1, (right, mirrored)


def correlation(rebuilt: Array, pixel: float, sample: Path, flip: bool) -> float:
    """Correlate with the truth (or its mirror image) sampled at the same places, both seen at 15 Å."""
    with mrcfile.open(sample / "truth/truth_map.mrc") as file:
        points, weights = truth.cloud(file.data.astype(float), 3.0)
    size = len(rebuilt)
    index = np.rint(points / pixel).astype(int) + size // 2
    volume = np.zeros((size,) * 3)
    np.add.at(volume, (index[:, 2], index[:, 1], index[:, 0]), weights)
    volume = np.roll(volume[::-1], 1, axis=0) if flip else volume
    axis = np.fft.fftfreq(size, pixel)
    s2 = axis[:, None, None] ** 2 + axis[None, :, None] ** 2 + axis**2
    seen = [np.fft.ifftn(np.fft.fftn(v) * np.exp(-s2 * 15**2 / 2)).real for v in (volume, rebuilt)]
    near = (
        np.hypot(
            np.hypot(*np.meshgrid(*[np.arange(size) - size // 2] * 2))[None],
            (np.arange(size) - size // 2)[:, None, None],
        )
        * pixel
        < 70
    )
    return float(np.corrcoef(seen[0][near], seen[1][near])[0, 1])
