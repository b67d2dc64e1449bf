"""Log in, launch First look from the panel at three laboratories, see the class averages; and again in a notebook and a terminal."""

from __future__ import annotations

import base64
import io
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import Page, expect

from tests.journeys.conftest import ACCOUNTS, Hub, Room, until
from tests.truth import judge

RUN_SECONDS = 420_000
DEFAULT_SITES = {
    "import": "bnl-sdcc",
    "motioncorr": "bnl-sdcc",
    "ctffind": "ornl-cades",
    "autopick": "ornl-cades",
    "extract": "anl-lcrc",
    "class2d": "anl-lcrc",
}

pytestmark = pytest.mark.timeout(900)


def contrast(png: bytes) -> float:
    """Return the standard deviation of a picture's pixels; a blank picture has none."""
    return float(np.asarray(Image.open(io.BytesIO(png)).convert("L"), dtype=float).std())


def test_a_run_from_the_panel_ends_with_class_averages(
    rivers: Page, hub: Hub, room: Room, truth_map: Path, tmp_path: Path
) -> None:
    before = {site: hub.world.counters(site) for site in ACCOUNTS}
    rivers.locator(".jp-LauncherCard", has_text="First look").first.click()  # click 1
    rivers.get_by_test_id("dcde-launch").click()  # click 2
    opened = rivers.get_by_test_id("dcde-run-open")
    expect(opened).to_be_visible(timeout=30_000)
    run = opened.get_attribute("data-run")
    assert run
    expect(opened).to_have_attribute("data-state", "succeeded", timeout=RUN_SECONDS)

    steps = rivers.get_by_test_id("dcde-step")
    shown = {
        s.get_attribute("data-step"): (s.get_attribute("data-site"), s.get_attribute("data-state")) for s in steps.all()
    }
    assert shown == {step: (site, "succeeded") for step, site in DEFAULT_SITES.items()}

    rivers.locator("[data-testid=dcde-step][data-step=class2d]").click()
    picture = rivers.locator("[data-testid=dcde-picture][data-step=class2d] img").first
    expect(picture).to_be_visible(timeout=30_000)
    until(lambda: picture.evaluate("i => i.complete && i.naturalWidth > 100"), 30, "the montage")
    assert contrast(picture.screenshot()) > 15

    data = room.dcde("show", run)
    assert data["state"] == "succeeded"
    assert {s["id"]: s["site"] for s in data["steps"]} == DEFAULT_SITES
    pictures = {(s["id"], p["name"]) for s in data["steps"] for p in s["pictures"]}
    assert {step for step, _ in pictures} >= {"motioncorr", "ctffind", "autopick", "class2d"}
    the_sites_saw_it(hub, data)
    only_ssh_crossed_the_firewalls(hub, before)
    the_averages_are_the_protein(hub, data, truth_map, tmp_path)


def the_sites_saw_it(hub: Hub, data: dict) -> None:
    """Root at each site sees the jobs in Slurm under the person's own account there."""
    for step in data["steps"]:
        site = step["site"]
        form = "--format=%i %u %T"
        listed = hub.world.run(
            site, "login", ["squeue", "--states=all", "--noheader", "--jobs", step["job_id"], form]
        ).stdout
        assert listed.split() == [step["job_id"], ACCOUNTS[site], "COMPLETED"]
    counted = hub.starts(data["project"])
    assert {step: len(starts) for step, starts in counted.items()} == dict.fromkeys(DEFAULT_SITES, 1)


def only_ssh_crossed_the_firewalls(hub: Hub, before: dict[str, dict[str, int]]) -> None:
    """The counters of every site's own firewall: ssh came in, and nothing else was even tried."""
    for site, old in before.items():
        new = hub.world.counters(site)
        grown = {name for name in new if new[name] > old.get(name, 0)}
        assert grown <= {"in_ssh"}, (site, grown)


def the_averages_are_the_protein(hub: Hub, data: dict, truth_map: Path, tmp_path: Path) -> None:
    """At least two averages fit projections of the truth, and clearly better than those of unrelated densities."""
    folder = f"{hub.storage('anl-lcrc')}/projects/{data['project']}"
    listed = hub.world.run(
        "anl-lcrc", "login", ["sh", "-c", f"ls {folder}/Class2D/job*/run_it*_classes.mrcs | tail -1"]
    )
    encoded = hub.world.run("anl-lcrc", "login", ["base64", "-w0", listed.stdout.strip()]).stdout
    classes = tmp_path / "classes.mrcs"
    classes.write_bytes(base64.b64decode(encoded))
    verdicts = judge(classes, truth_map)
    assert sum(v.right for v in verdicts) >= 2, verdicts


def test_the_same_run_is_there_in_the_terminal_and_in_a_notebook(rivers: Page, room: Room) -> None:
    runs = room.dcde("runs")
    assert [r["state"] for r in runs].count("succeeded") >= 1
    run = next(r["id"] for r in runs if r["state"] == "succeeded")
    assert "2D classification" in room.run("dcde", "show", run).stdout
    code = f"run = dcde.run({run!r}); print(run.state); print(len(run.picture('classes').png))"
    said = room.run("python", "-c", f"import dcde\n{code}").stdout.split()
    assert said[0] == "succeeded"
    assert int(said[1]) > 5000


TEN_LINES = """\
import dcde
run = dcde.launch("first-look", {"iterations": 5})
run.wait()
run.picture("classes")
"""


def test_the_demonstration_takes_ten_lines_without_addresses(room: Room, rivers: Page) -> None:
    """The notebook of the template runs by itself in the DCDE kernel and shows the montage."""
    assert len(TEN_LINES.splitlines()) <= 10
    notebook = {
        "nbformat": 4,
        "nbformat_minor": 5,
        "metadata": {"kernelspec": {"name": "dcde", "display_name": "DCDE", "language": "python"}},
        "cells": [
            {
                "cell_type": "code",
                "id": "a",
                "metadata": {},
                "execution_count": None,
                "outputs": [],
                "source": TEN_LINES,
            }
        ],
    }
    room.run("sh", "-c", 'printf %s "$1" > ten.ipynb', "sh", json.dumps(notebook))
    done = execute(room, "ten.ipynb")
    (output,) = [o for o in done["cells"][0]["outputs"] if o["output_type"] == "execute_result"]
    assert contrast(base64.b64decode(output["data"]["image/png"])) > 15


def test_the_notebook_template_runs_by_itself(room: Room, rivers: Page) -> None:
    room.run("cp", "/opt/dcde/user/share/dcde/notebooks/first-look/notebook.ipynb", "first-look.ipynb")
    done = execute(room, "first-look.ipynb")
    outputs = [o for cell in done["cells"] for o in cell.get("outputs", [])]
    assert not [o for o in outputs if o["output_type"] == "error"]
    pictures = [o["data"]["image/png"] for o in outputs if "image/png" in o.get("data", {})]
    assert pictures
    assert contrast(base64.b64decode(pictures[-1])) > 15


def execute(room: Room, name: str) -> dict:
    """Run a notebook of the person's in the DCDE kernel and return it with its outputs."""
    argv = [
        "python",
        "-m",
        "nbconvert",
        "--to",
        "notebook",
        "--execute",
        "--stdout",
        "--ExecutePreprocessor.timeout=600",
    ]
    done: dict = json.loads(room.run(*argv, name, timeout=700).stdout)
    return done
