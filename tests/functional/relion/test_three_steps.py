"""The three steps of SC19 at three sites, with the real RELION: a picture of picks, and particles at the third site."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import mrcfile
import pytest
from dcde.pipelines.template import Template


@pytest.mark.timeout(300)
def test_three_steps_three_sites_one_picture(tmp_path: Path, sample: Path, three_steps: Template, lay_out: Any) -> None:
    bench = lay_out(tmp_path / "bench", three_steps, sample / "movies", {})
    outcomes = bench.run_all()
    assert {name: outcome.report["problems"] for name, outcome in outcomes.items()} == {
        "import": [],
        "autopick": [],
        "extract": [],
    }
    assert [step.default_site for step in bench.plan.steps] == ["bnl-sdcc", "ornl-cades", "anl-lcrc"]
    picks = outcomes["autopick"].report["metrics"]["picks"]["value"]
    true = json.loads((sample / "truth/truth.json").read_text())["particles"]
    assert 0.8 * true < picks < 1.2 * true
    assert outcomes["autopick"].picture("picks").stat().st_size > 10_000
    assert outcomes["extract"].report["metrics"]["particles"]["value"] == picks
    stacks = list((bench.folder / "anl-lcrc/Extract/job003/Movies").glob("*.mrcs"))
    assert sum(mrcfile.read(stack).shape[0] for stack in stacks) == picks
