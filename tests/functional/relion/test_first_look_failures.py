"""What goes wrong with RELION, and that it is noticed: RELION itself ends most of these with exit code 0."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mrcfile
import numpy as np
import pytest

pytestmark = pytest.mark.timeout(300)


@pytest.fixture
def movies(small: Path, tmp_path: Path) -> Path:
    """A folder with links to the small movies, which a test may change."""
    folder = tmp_path / "movies"
    folder.mkdir()
    for path in (small / "movies").iterdir():
        (folder / path.name).symlink_to(path)
    return folder


def problems(outcome: Any) -> str:
    assert not outcome.ok
    return " ".join(outcome.report["problems"])


def changed(bench: Any, step_id: str, change: Callable[[list[str]], list[str]]) -> None:
    """Change the command of one step of a plan."""
    steps = [
        step
        if step.id != step_id
        else step.model_copy(update={"commands": [step.commands[0], change(step.commands[1])]})
        for step in bench.plan.steps
    ]
    bench.plan = bench.plan.model_copy(update={"steps": steps})


def test_an_option_of_another_version(bench: Any, movies: Path) -> None:
    made = bench(movies)
    changed(made, "motioncorr", lambda command: [*command, "--float16"])
    outcome = made.run_all()["motioncorr"]
    assert outcome.codes == [0, 0]
    assert "does not know the option --float16" in problems(outcome)


def test_a_movie_that_was_cut_off(bench: Any, movies: Path) -> None:
    whole = (movies / "movie_002.mrcs").read_bytes()
    (movies / "movie_002.mrcs").unlink()
    (movies / "movie_002.mrcs").write_bytes(whole[: len(whole) // 2])
    outcome = bench(movies).run_all()["import"]
    assert outcome.codes == [0, 0]
    assert "Movies/movie_002.mrcs is no whole MRC file" in problems(outcome)


def test_a_gain_reference_of_another_size(bench: Any, movies: Path) -> None:
    (movies / "gain.mrc").unlink()
    with mrcfile.new(movies / "gain.mrc") as file:
        file.set_data(np.ones((100, 100), np.float32))
    outcomes = bench(movies).run_all()
    assert list(outcomes) == ["import", "motioncorr"]
    assert "RELION said: The size of the image and the size of the gain reference do not match" in problems(
        outcomes["motioncorr"]
    )


def test_no_movies_at_all(bench: Any, movies: Path) -> None:
    outcomes = bench(movies, movies="bnl-sdcc:movies/*.tiff", gain="").run_all()
    assert list(outcomes) == ["import"]
    assert problems(outcomes["import"])


def test_ctffind_is_not_there(bench: Any, movies: Path) -> None:
    made = bench(movies)
    made.programs["ctffind"] = "/no/such/ctffind"
    outcome = made.run_all()["ctffind"]
    assert "no CTF could be fitted" in problems(outcome)
    assert "Is CTFFIND there" in problems(outcome)


def test_nothing_is_picked(bench: Any, movies: Path) -> None:
    outcomes = bench(movies, pick_threshold=10).run_all()
    assert list(outcomes)[-1] == "autopick"
    assert "no particles were picked" in problems(outcomes["autopick"])
    assert "picking threshold" in problems(outcomes["autopick"])
    assert outcomes["autopick"].report["metrics"]["picks"]["value"] == 0


@pytest.mark.parametrize(
    "name", ["a;touch hacked;.mrcs", "$(touch hacked).mrcs", "<img onerror=x>.mrcs", "b;id>hacked;.mrcs", "-rf.mrcs"]
)
def test_a_movie_whose_name_a_shell_would_understand(bench: Any, movies: Path, name: str, tmp_path: Path) -> None:
    (movies / name).symlink_to(movies / "movie_001.mrcs")
    outcomes = bench(movies).run_all()
    assert list(outcomes) == ["import"]
    assert problems(outcomes["import"])
    assert not list(tmp_path.rglob("hacked"))


@pytest.mark.parametrize("ending", ["mrc", "tif"])
def test_movies_of_other_kinds(bench: Any, movies: Path, tmp_path: Path, ending: str) -> None:
    """MRC movies may be called .mrc; TIFF movies are made by RELION's own program."""
    other = tmp_path / "other"
    other.mkdir()
    for path in movies.glob("*.mrcs"):
        (other / path.with_suffix(".mrc").name).symlink_to(path.resolve())
    if ending == "tif":
        made = subprocess.run(
            ["relion_convert_to_tiff", "--i", "movie_001.mrcs", "--o", f"{other}/", "--compression", "none"],
            cwd=movies, capture_output=True, text=True,
        )  # fmt: skip
        assert made.returncode == 0, made.stdout + made.stderr
    outcomes = bench(other, movies=f"bnl-sdcc:movies/*.{ending}", gain="").run_all(until="motioncorr")
    assert outcomes["motioncorr"].ok, outcomes["motioncorr"].report
