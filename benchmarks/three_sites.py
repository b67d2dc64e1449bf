"""What a run over three laboratories costs beside the jobs themselves, against a script of ssh, sbatch and rsync."""

from __future__ import annotations

import json
import re
import sys
from datetime import datetime
from typing import Any

from dcde_testbed.world import World

from benchmarks.by_hand import ByHand, class_averages, hub_file, owner_of_room
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
    """Bring a world up, log a person in, and let ours and the two peers run in turn."""
    if not (MOVIES / "truth.json").exists():
        make_movies()
    turns: list[dict[str, Any]] = []
    with temporary_folder() as folder, world_in(folder, hub=True, movies=MOVIES) as world:
        room = open_room(world)
        peer = ByHand(world, PARAMETERS)
        for number in range(1, repeat + 1):
            turn: dict[str, Any] = {"load": loads()[0], "ours": our_turn(world, room)}
            for name, how in ((WAIT, "wait"), (ASK, "ask")):
                turn[name] = peer.turn(f"{how}{number}", how)
                made = peer.classes(f"{how}{number}")
                assert made == turn["ours"]["classes"], f"the script made {made}, ours {turn['ours']['classes']}"
            turns.append(turn)
            shown = ", ".join(f"{who} {turn[who]['overhead_s']:.1f}" for who in ("ours", WAIT, ASK))
            print(f"  turn {number}: overhead in seconds: {shown}", file=sys.stderr, flush=True)
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


def our_turn(world: World, room: Room) -> dict[str, Any]:
    """Run First look with the `dcde` command and return wall time, job times, parts and CPU seconds."""
    runner = f"/proc/{owner_of_room(world)}/stat"
    before = cpu_seconds(hub_file(world, runner))
    wishes = [part for name, value in PARAMETERS.items() for part in ("--set", f"{name}={value}")]
    launch = ["launch", "first-look", *wishes, "--watch", "--json"]
    began, ended, _, of_command = room.run("bash", "-c", COMMAND, "bash", *launch, timeout=600).stdout.splitlines()
    cpu = cpu_seconds(hub_file(world, runner)) - before
    data = json.loads(room.run("cat", "bench.json").stdout)
    assert data["state"] == "succeeded", data["reason"]
    steps = data["steps"]
    job_s = sum(step["ended"] - step["started"] for step in steps)
    reports = report_seconds(world, data)
    wall = float(ended) - float(began)
    storage = world.facts["sites"]["anl-lcrc"]["storage_root"]
    made = class_averages(world, f"{storage}/drivers/projects/{data['project']}")
    return {
        "wall_s": wall,
        "job_s": job_s,
        "application_s": job_s - reports,
        "overhead_s": wall - job_s,
        "cpu_s": cpu,
        "command_cpu_s": sum(map(minutes, of_command.split())),
        "parts_s": parts(world, data, reports, wall - job_s),
        "at_s": {"launch": data["created"] - float(began), "return": float(ended) - data["ended"]},
        "classes": made,
    }


def minutes(text: str) -> float:
    """Return the seconds in what bash's `times` prints, such as 0m0.250s."""
    whole, _, rest = text.rstrip("s").partition("m")
    return 60 * float(whole) + float(rest)


def report_seconds(world: World, run: dict[str, Any]) -> float:
    """Return how long the jobs took to check their outputs and draw: from the opening of their log to the end."""
    total = 0.0
    for step in run["steps"]:
        record = f"/home/*/.dcde/jobs/{run['project']}-{run['id']}-{step['id']}-a{step['attempt']}-*/report.stderr"
        found = world.run(step["site"], "login", ["sh", "-c", f"stat -c %.9Y {record}"]).stdout.split()
        total += step["ended"] - max(map(float, found))
    return total


def parts(world: World, run: dict[str, Any], reports: float, overhead: float) -> dict[str, float]:
    """Return where the overhead went, summed over the steps, from the runner's log and the jobs' own times."""
    seen = log_times(world, run["id"])
    before = {step["id"]: seen[run["steps"][number - 1]["id"]] for number, step in enumerate(run["steps"]) if number}
    before[run["steps"][0]["id"]] = run["created"]
    found = {
        "inputs": sum(step["queued_at"] - before[step["id"]] for step in run["steps"]),
        "submission until the job runs": sum(step["started"] - step["queued_at"] for step in run["steps"]),
        "check of outputs and pictures in the job": reports,
        "end of the job until its outputs are entered": sum(seen[step["id"]] - step["ended"] for step in run["steps"]),
    }
    inside = sum(value for name, value in found.items() if name != "check of outputs and pictures in the job")
    return {**found, "command before and after": overhead - inside}


def log_times(world: World, run: str) -> dict[str, float]:
    """Return when the runner entered each step's success, from its log."""
    found = {}
    for line in hub_file(world, "/var/lib/dcde/logs/servers/dcde1000001.log").splitlines():
        if not re.match(r'\{"time"', line):
            continue
        entry = json.loads(line)
        if entry.get("run") == run and str(entry["message"]).startswith("step succeeded"):
            found[entry["step"]] = datetime.fromisoformat(entry["time"]).timestamp()
    return found


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
    found = []
    for who in ("ours", WAIT, ASK):
        medians = {part: median([turn[who]["parts_s"][part] for turn in turns]) for part in turns[0][who]["parts_s"]}
        shown = ", ".join(f"{part} {value:.1f} s" for part, value in medians.items())
        found.append(f"{'Ours' if who == 'ours' else who}, summed over six steps: {shown}.")
    return found
