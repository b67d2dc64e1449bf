"""What a run over three laboratories costs beside the jobs themselves, against a script of ssh, sbatch and rsync."""

from __future__ import annotations

import json
import sys
from datetime import datetime
from typing import Any

from dcde_testbed.world import World

from benchmarks.by_hand import ByHand, class_averages
from benchmarks.measure import Figure, Result, cpu_seconds, loads, median
from benchmarks.worlds import PERSON, UID, hub_url, temporary_folder, world_in
from tests.browser import chromium, log_in, open_lab, visitor
from tests.journeys.conftest import MOVIES, Room, make_movies, until

REPEAT = 3
PARAMETERS: dict[str, Any] = {"iterations": 3, "classes": 4}
"""Few iterations and classes, so that RELION takes little of the time."""

WAIT, ASK = "sbatch --wait", "squeue twice a second"
COMMAND = 'echo "$EPOCHREALTIME"; dcde "$@" >bench.json; code=$?; echo "$EPOCHREALTIME"; times; exit $code'


def run(repeat: int) -> Result:
    """Bring a world up, log a person in, and let ours and the two peers run in turn, each turn in another order."""
    if not (MOVIES / "truth.json").exists():
        make_movies()
    turns: list[dict[str, Any]] = []
    with temporary_folder() as folder, world_in(folder, hub=True, movies=MOVIES) as world:
        room = open_room(world)
        peer = ByHand(world, PARAMETERS)
        for number in range(repeat):
            turn: dict[str, Any] = {"load": loads()[0]}
            order = ["ours", WAIT, ASK]
            for who in order[number % 3 :] + order[: number % 3]:
                how = "ask" if who == ASK else "wait"
                turn[who] = our_turn(world, room) if who == "ours" else peer.turn(f"{how}{number}", how)
            made = {turn[who].pop("classes") for who in order}
            assert len(made) == 1, f"different class averages: {made}"
            turns.append(turn)
            shown = ", ".join(f"{who} {turn[who]['overhead_s']:.1f}" for who in order)
            print(f"  turn {number + 1}: overhead in seconds: {shown}", file=sys.stderr, flush=True)
    return Result(
        name="three_sites",
        what="First look on 4 movies over three sites, six jobs of real RELION, started with `dcde launch` in the "
        "person's room. Overhead is wall time minus the sum of the job times that the jobs noted themselves.",
        peer="A script of ssh, sbatch and rsync that runs the same commands at the same sites in the same order "
        "(benchmarks/first_look_by_hand.sh), over standing connections (ControlMaster). It keeps no books, checks no "
        f"outputs and draws no pictures. It waits for a job with `{WAIT}`, or asks `{ASK}` on the login host.",
        figures=figures(turns),
        turns=turns,
        notes=notes(turns),
    )


def open_room(world: World) -> Room:
    """Log the person in with a browser, and return the room once the links to all sites are up."""
    with chromium() as browser, visitor(browser) as page:
        log_in(page, hub_url(world), PERSON)
        open_lab(page)
    room = Room(world, UID)
    until(lambda: {site["state"] for site in room.dcde("sites")} == {"up"}, 60, "the links to all sites")
    return room


def runner_pid(world: World) -> int:
    """Return the process id of the person's runner in the hub's room."""
    pids = world.run("hub", None, ["pgrep", "-u", str(UID), "-f", "-x", r"\S+ -m dcde\.runner"]).stdout.split()
    return int(pids[0])


def hub_file(world: World, path: str) -> str:
    """Return a file as the hub's room sees it."""
    return world.run("hub", None, ["cat", path]).stdout


def our_turn(world: World, room: Room) -> dict[str, Any]:
    """Run First look with the `dcde` command and return wall time, job times, parts and CPU seconds."""
    runner = f"/proc/{runner_pid(world)}/stat"
    before = cpu_seconds(hub_file(world, runner))
    wishes = [part for name, value in PARAMETERS.items() for part in ("--set", f"{name}={value}")]
    launch = ["launch", "first-look", *wishes, "--watch", "--json"]
    began, ended, _, of_command = room.run("bash", "-c", COMMAND, "bash", *launch, timeout=600).stdout.splitlines()
    cpu = cpu_seconds(hub_file(world, runner)) - before
    data = json.loads(room.run("cat", "bench.json").stdout)
    assert data["state"] == "succeeded", data["reason"]
    steps = [{**step, **record_times(world, data, step)} for step in data["steps"]]
    job_s = sum(step["ended"] - step["started"] for step in steps)
    checks_s = sum(step["ended"] - step["applied"] for step in steps)
    wall = float(ended) - float(began)
    storage = world.facts["sites"]["anl-lcrc"]["storage_root"]
    asked, entered = log_times(world, data["id"], data["created"])
    by_step = step_parts(steps, data["created"], entered)
    parts = {part: sum(step[part] for step in by_step.values()) for part in PARTS}
    parts |= {
        "start of the command": asked - float(began),
        "planning of the run": data["created"] - asked,
        "end of the run until the command returns": float(ended) - data["ended"],
    }
    return {
        "wall_s": wall,
        "job_s": job_s,
        "application_s": job_s - checks_s,
        "overhead_s": wall - job_s,
        "cpu_s": cpu,
        "command_cpu_s": sum(map(minutes, of_command.split())),
        "parts_s": parts,
        "steps_s": by_step,
        "classes": class_averages(world, f"{storage}/drivers/projects/{data['project']}"),
    }


def minutes(text: str) -> float:
    """Return the seconds in what bash's `times` prints, such as 0m0.250s."""
    whole, _, rest = text.rstrip("s").partition("m")
    return 60 * float(whole) + float(rest)


def record_times(world: World, run: dict[str, Any], step: dict[str, Any]) -> dict[str, float]:
    """Return when a step's job had its id, and when its application had ended, from files in the job's record."""
    record = f"/home/*/.dcde/jobs/{run['project']}-{run['id']}-{step['id']}-a{step['attempt']}-*"
    # report.stderr is opened when the checks begin; what they write there would make them look shorter.
    stat = f"stat -c %.9Y {record}/jobid {record}/report.stderr"
    submitted, applied = world.run(step["site"], "login", ["sh", "-c", stat]).stdout.split()
    return {"submitted": float(submitted), "applied": float(applied)}


PARTS = (
    "inputs",
    "submission",
    "queue and start of the job",
    "end of the job until its outputs are entered",
    "checks and pictures in the job",
)
"""All but the last are overhead; the last is part of the job times."""


def step_parts(steps: list[dict[str, Any]], created: float, entered: dict[str, float]) -> dict[str, dict[str, float]]:
    """Return where the time of each step went, in seconds; steps run one after the other here.

    Args:
        steps: The steps, with what their records say.
        created: When the run was launched.
        entered: When the runner had entered each step's success.
    """
    found = {}
    for step in steps:
        seconds = (
            step["queued_at"] - created,
            step["submitted"] - step["queued_at"],
            step["started"] - step["submitted"],
            entered[step["id"]] - step["ended"],
            step["ended"] - step["applied"],
        )
        job = {"application": step["applied"] - step["started"]}
        found[step["id"]] = dict(zip(PARTS, seconds, strict=True)) | job
        created = entered[step["id"]]
    return found


def log_times(world: World, run: str, created: float) -> tuple[float, dict[str, float]]:
    """Return when the runner was asked for a run, and when it had entered each step's success, from its log."""
    asked, entered = created, {}
    for line in hub_file(world, "/var/lib/dcde/logs/servers/dcde1000001.log").splitlines():
        if not line.startswith('{"time"'):
            continue
        entry = json.loads(line)
        when, message = datetime.fromisoformat(entry["time"]).timestamp(), str(entry["message"])
        if message == "request runs.launch" and when <= created:
            asked = when
        if entry.get("run") == run and message.startswith("step succeeded"):
            entered[entry["step"]] = when
    return asked, entered


def figures(turns: list[dict[str, Any]]) -> list[Figure]:
    """Return the medians."""

    def of(who: str, key: str) -> float:
        return median([turn[who][key] for turn in turns])

    def beyond(who: str) -> float:
        return median([turn[who]["wall_s"] - turn[who]["application_s"] for turn in turns])

    found = []
    for name in (WAIT, ASK):
        short = "wait" if name == WAIT else "ask"
        found += [
            Figure(
                f"overhead_{short}", "Overhead of the run", "s", of("ours", "overhead_s"), of(name, "overhead_s"), name
            ),
            Figure(f"beyond_{short}", "Overhead with our checks and pictures", "s", beyond("ours"), beyond(name), name),
            Figure(f"wall_{short}", "Wall time of the run", "s", of("ours", "wall_s"), of(name, "wall_s"), name),
            Figure(
                f"cpu_{short}", "CPU time at the hub (runner)", "CPU s", of("ours", "cpu_s"), of(name, "cpu_s"), name
            ),
        ]
    return [*found, Figure("command_cpu", "CPU time of `dcde launch --watch`", "CPU s", of("ours", "command_cpu_s"))]


def notes(turns: list[dict[str, Any]]) -> list[str]:
    """Return where our overhead went, and the script's, in medians over the turns."""
    found = [
        "Our first turn loads Parsl into the runner; CPU time at the sites is not counted for either side.",
        "What follows are medians part by part, so they need not add up to the median of the overhead.",
    ]
    for who in ("ours", WAIT, ASK):
        medians = {part: median([turn[who]["parts_s"][part] for turn in turns]) for part in turns[0][who]["parts_s"]}
        shown = ", ".join(f"{part} {value:.1f} s" for part, value in medians.items())
        found.append(f"{'Ours' if who == 'ours' else who}, summed over six steps: {shown}.")
    return found
