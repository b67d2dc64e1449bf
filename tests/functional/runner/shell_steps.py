"""A renderer whose steps are plain programs of a site: what a runner does around them is real, RELION is not needed.

Each step copies what the steps before it made, waits as long as the template says, and writes a file of its own.
"""

from __future__ import annotations

from dcde.pipelines.model import InputRef, StepPlan
from dcde.pipelines.renderer import StepRequest

JOB_TYPES = {"shell.make", "shell.fail", "shell.big"}

TEMPLATE = """
format: 1
name: shell
title: Shell
description: Three steps at three sites.
version: "1"
renderer: shell
parameters:
  - {name: seconds, title: Seconds a step takes, type: integer, default: 1, minimum: 0, maximum: 100}
steps:
  - {id: import, title: Import, type: shell.make, site: bnl-sdcc, settings: {seconds: "=seconds"}}
  - {id: pick, title: Pick, type: shell.make, site: ornl-cades, inputs: {a: import}, settings: {seconds: "=seconds"}}
  - {id: sort, title: Sort, type: shell.make, site: anl-lcrc, inputs: {a: pick}, settings: {seconds: "=seconds"}}
"""
FAILS = TEMPLATE.replace("name: shell\n", "name: fails\n").replace("Pick, type: shell.make", "Pick, type: shell.fail")
BIG = TEMPLATE.replace("name: shell\n", "name: big\n").replace("Pick, type: shell.make", "Pick, type: shell.big")
TEMPLATES = {"shell": TEMPLATE, "fails": FAILS, "big": BIG}


def render(request: StepRequest) -> StepPlan:
    """Return the step."""
    folder = f"Shell/job{request.number:03d}"
    inputs = [InputRef(step=plan.id, patterns=[f"{plan.job_dir}/*"]) for plan in request.inputs.values()]
    commands = [["mkdir", "-p", folder]]
    commands += [["cp", "-r", plan.job_dir, f"{folder}/from"] for plan in request.inputs.values()]
    commands += [["sleep", str(request.settings["seconds"])], ["touch", f"{folder}/{request.id}.txt"]]
    if request.job_type == "shell.fail":
        commands.append(["ls", "not-there-at-all"])
    if request.job_type == "shell.big":
        commands.append(["dd", "if=/dev/zero", f"of={folder}/big.mrcs", "bs=1000000", "count=40"])
    return StepPlan(
        id=request.id,
        title=request.title,
        job_type=request.job_type,
        job_dir=folder,
        default_site=request.site,
        after=request.after,
        inputs=inputs,
        commands=commands,
        outputs=[folder],
        resources=request.resources,
    )
