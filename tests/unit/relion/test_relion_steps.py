"""First look as a plan: commands for RELION 3.1, exact inputs, derived sizes, and what is refused before anything runs."""

from __future__ import annotations

import fnmatch
import subprocess
from pathlib import Path
from typing import Any

import pytest
from dcde.errors import InvalidParameter, TemplateError
from dcde.pipelines import relion
from dcde.pipelines.model import RunPlan, StepPlan
from dcde.pipelines.relion.dialect import DIALECTS, dialect
from dcde.pipelines.relion.names import movie_glob
from dcde.pipelines.relion.steps import micrographs
from dcde.pipelines.template import load_template, load_templates

FIRST_LOOK = Path(relion.__file__).parent / "first_look" / "template.yaml"
BUNDLED = sorted(Path(relion.__file__).parent.glob("*/template.yaml"))


def plan(**parameters: Any) -> RunPlan:
    return load_template(FIRST_LOOK).plan(parameters, first_job=1)


def option(step: StepPlan, name: str) -> str:
    command = step.commands[-1]
    return command[command.index(name) + 1]


def test_they_come_with_the_library() -> None:
    assert {"first-look", "three-steps"} <= set(load_templates())


def test_one_click_is_enough() -> None:
    schema = load_template(FIRST_LOOK).schema()
    assert schema["required"] == []
    assert {"movies", "gain", "pixel_size", "voltage", "dose_per_frame", "diameter"} <= set(schema["properties"])
    assert {p["x-unit"] for n, p in schema["properties"].items() if n in ("pixel_size", "diameter")} == {"Å"}


def test_steps_run_at_the_three_sites_in_order() -> None:
    steps = plan().steps
    assert [(step.id, step.default_site) for step in steps] == [
        ("import", "bnl-sdcc"),
        ("motioncorr", "bnl-sdcc"),
        ("ctffind", "ornl-cades"),
        ("autopick", "ornl-cades"),
        ("extract", "anl-lcrc"),
        ("class2d", "anl-lcrc"),
    ]
    assert [step.job_dir for step in steps][:2] == ["Import/job001", "MotionCorr/job002"]


def test_job_numbers_follow_those_of_the_project() -> None:
    later = load_template(FIRST_LOOK).plan({}, first_job=41)
    assert [step.job_dir for step in later.steps][-1] == "Class2D/job046"
    assert option(later.step("extract"), "--coord_dir") == "AutoPick/job044/"


def test_sizes_follow_from_pixel_size_and_diameter() -> None:
    small = plan(pixel_size=1.0, diameter=130)
    extract = small.step("extract")
    assert (option(extract, "--extract_size"), option(extract, "--scale")) == ("200", "48")
    assert option(extract, "--bg_radius") == "18"
    assert float(option(small.step("class2d"), "--particle_diameter")) == pytest.approx(140.4)


def test_particles_are_never_scaled_up() -> None:
    coarse = plan(pixel_size=6.0)
    assert "--scale" not in coarse.step("extract").commands[-1]


def test_the_gain_reference_is_optional() -> None:
    with_gain, without = plan(), plan(gain="")
    assert option(with_gain.step("motioncorr"), "--gainref") == "Gain/gain.mrc"
    assert "Gain/gain.mrc" in with_gain.step("motioncorr").inputs[1].patterns
    assert "--gainref" not in without.step("motioncorr").commands[-1]
    assert [raw.target for raw in without.raw] == ["Movies"]


@pytest.mark.parametrize("pattern, expected", [("a/*.mrc", "*.mrc"), ("b/x_??.tiff", "*.tiff"), ("c/*.TIF", "*.TIF")])
def test_movies_of_other_kinds(pattern: str, expected: str) -> None:
    found = plan(movies=f"ornl-cades:{pattern}", gain="")
    assert option(found.step("import"), "--i") == f"Movies/{expected}"
    assert found.raw[0].site == "ornl-cades"


@pytest.mark.parametrize(
    "changed, field",
    [
        ({"movies": "bnl-sdcc:movies/*"}, "movies"),
        ({"movies": "bnl-sdcc:movies/*.eer"}, "movies"),
        ({"movies": "bnl-sdcc:../other/*.mrcs"}, "movies"),
        ({"movies": "bnl-sdcc:movies/*.mrc"}, "gain"),  # the gain reference would be taken for a movie
        ({"gain": "bnl-sdcc:movies/gain;rm -rf ~.mrc"}, "gain"),
        ({"gain": "bnl-sdcc:movies/$(id).mrc"}, "gain"),
        ({"gain": "bnl-sdcc:movies/gain.txt"}, "gain"),
        ({"pixel_size": 0.1}, "pixel_size"),  # a particle of 1300 pixels
        ({"pixel_size": 20.0, "diameter": 40}, "pixel_size"),  # a particle of 2 pixels
        ({"pixel_size": 0}, "pixel_size"),
        ({"voltage": 3}, "voltage"),
        ({"classes": 2.5}, "classes"),
        ({"diameter": "nan"}, "diameter"),
    ],
)
def test_nonsense_is_refused_with_its_field(changed: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidParameter) as caught:
        plan(**changed)
    assert caught.value.where == field
    assert caught.value.remedy


def test_a_step_without_its_input_is_a_broken_template(tmp_path: Path) -> None:
    text = FIRST_LOOK.read_text().replace("inputs: {particles: extract}", "after: [extract]")
    (tmp_path / "template.yaml").write_text(text)
    with pytest.raises(TemplateError, match="particles"):
        load_template(tmp_path / "template.yaml").plan({}, first_job=1)


def test_micrographs_are_told_from_power_spectra() -> None:
    patterns = micrographs(plan().step("motioncorr"))
    folder = "MotionCorr/job002/Movies/"
    for name in ("movie_001.mrc", "a.mrc", "runS.mrc", "myPS.mrc", "x-PS.mrc", "PSx.mrc", "a_P.mrc", "a_S.mrc"):
        assert any(fnmatch.fnmatchcase(folder + name, pattern) for pattern in patterns), name
    for name in ("movie_001_PS.mrc", "runS_PS.mrc", "x_PS_PS.mrc"):
        assert not any(fnmatch.fnmatchcase(folder + name, pattern) for pattern in patterns), name


def test_what_is_moved_is_only_what_is_opened() -> None:
    found = plan()
    assert found.step("ctffind").inputs[0].patterns == [
        "MotionCorr/job002/corrected_micrographs.star",
        "MotionCorr/job002/Movies/*_PS.mrc",
    ]
    assert {ref.step for ref in found.step("class2d").inputs} == {"extract"}


@pytest.mark.parametrize("path", BUNDLED, ids=lambda path: path.parent.name)
def test_every_input_is_a_declared_output_of_its_step(path: Path) -> None:
    found = load_template(path).plan({}, first_job=1)
    for step in found.steps:
        for ref in step.inputs:
            if ref.step:
                outputs = found.step(ref.step).outputs
                for pattern in ref.patterns:
                    assert any(fnmatch.fnmatchcase(pattern, output) for output in outputs), (step.id, pattern)


@pytest.mark.parametrize("path", BUNDLED, ids=lambda path: path.parent.name)
def test_every_option_is_known_to_the_installed_relion(path: Path) -> None:
    """RELION 3.1 goes on after an unknown option, so that a wrong one would not be noticed where nobody looks."""
    steps = load_template(path).plan({}, first_job=1).steps
    for command in (command for step in steps for command in step.commands[1:]):
        told = subprocess.run([command[0], "--help"], capture_output=True, text=True)
        known = {word for line in (told.stdout + told.stderr).splitlines() for word in line.split()[:1]}
        options = {word for word in command if word.startswith("--")} - {"--pipeline_control"}
        assert options <= known, (command[0], options - known)


def test_versions_that_were_never_run_are_refused() -> None:
    assert dialect("3.1.3") is DIALECTS["3.1"]
    assert dialect(None).version in DIALECTS
    with pytest.raises(InvalidParameter, match=r"RELION 5\.0"):
        load_template(FIRST_LOOK).plan({}, first_job=1, version="5.0.1")


def test_movie_glob_keeps_the_target_folder() -> None:
    raw = plan(movies="bnl-sdcc:deep/er/x*.mrcs").raw[0]
    assert movie_glob(raw) == "Movies/*.mrcs"
