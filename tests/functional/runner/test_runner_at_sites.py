"""A real runner at three real sites: links, Slurm, movement, and everything that may die or be cut during a run."""

from __future__ import annotations

from typing import Any

from .conftest import Room


def by_id(run: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {step["id"]: step for step in run["steps"]}


def test_the_sites_are_up_and_say_what_may_be_done(room: Room) -> None:
    assert room.ask("whoami")["dcde_id"] == "dcde1000001"
    run = room.launch("shell", 0)
    room.until(run["id"], "-", "succeeded")
    sites = {site["name"]: site for site in room.ask("sites.list")}
    assert {name: site["state"] for name, site in sites.items()} == dict.fromkeys(sites, "up")
    bnl = sites["bnl-sdcc"]
    assert (bnl["account"], bnl["queue"]["nodes_total"]) == ("u12345", 2)
    assert bnl["free"]["total"] > 0
    assert [c["allowed"] for c in bnl["capabilities"]] == [True, True, True]
    assert bnl["applications"]["relion"] == "3.1.3"
    assert bnl["allocations"] == [{"name": "dcde", "remaining_hours": None}]


def test_a_run_goes_through_three_sites(room: Room) -> None:
    run = room.launch("shell", 1)
    done = room.until(run["id"], "-", "succeeded")
    assert done["state"] == "succeeded", done["reason"]
    steps = by_id(done)
    assert [s["site"] for s in done["steps"]] == ["bnl-sdcc", "ornl-cades", "anl-lcrc"]
    assert len(room.starts()) == 3
    for step, site, account in (("import", "bnl-sdcc", "u12345"), ("pick", "ornl-cades", "d7c")):
        assert any(f"-{step}-a1" in line and f" {account} " in line for line in room.slurm(site)), (
            "seen in Slurm itself"
        )
        assert steps[step]["job_id"]
        assert steps[step]["ended"] >= steps[step]["started"]
    log = room.ask("runs.log", run=run["id"], step="pick")
    assert "+ touch Shell/job002/pick.txt" in log["text"]
    project = room.ask("projects.show", name=run["project"])
    where = {f["path"]: [r["site"] for r in f["replicas"]] for f in project["replicas"]}
    assert where["Shell/job001/import.txt"] == ["bnl-sdcc", "ornl-cades"]
    assert where["Shell/job002/pick.txt"] == ["anl-lcrc", "ornl-cades"]
    assert where["Shell/job003/from/pick.txt"] == ["anl-lcrc"]


def test_a_killed_runner_goes_on_and_nothing_runs_twice(room: Room) -> None:
    run = room.launch("shell", 4)
    for step in ("import", "pick"):
        room.until(run["id"], step, "running")
        room.kill()
        room.start()
    done = room.until(run["id"], "-", "succeeded")
    assert done["state"] == "succeeded", done["reason"]
    assert {s["attempt"] for s in done["steps"]} == {1}
    starts = room.starts()
    assert len(starts) == len(set(starts)) == 3


def test_a_site_cut_off_silently_is_unknown_and_then_goes_on(room: Room) -> None:
    run = room.launch("shell", 5)
    room.until(run["id"], "pick", "running")
    room.world.cut("ornl-cades")
    try:
        cut = by_id(room.until(run["id"], "pick", "unknown"))["pick"]
        assert cut["state"] == "unknown", cut
        assert "job goes on" in cut["why"]
    finally:
        room.world.mend("ornl-cades")
    done = room.until(run["id"], "-", "succeeded")
    assert done["state"] == "succeeded", done["reason"]
    starts = room.starts()
    assert len(starts) == len(set(starts)) == 3


def test_cancel_ends_the_job_in_slurm(room: Room) -> None:
    run = room.launch("shell", 100)
    room.until(run["id"], "import", "running")
    room.ask("runs.cancel", run=run["id"])
    ended = room.until(run["id"], "-", "cancelled")
    assert ended["state"] == "cancelled"
    key = next(line for line in room.slurm("bnl-sdcc") if line.startswith(f"{run['project']}-{run['id']}-import-a1-"))
    assert key.split()[2] in ("CANCELLED", "COMPLETING")
    again = room.ask("runs.resume", run=run["id"])
    assert by_id(again)["import"]["state"] != "cancelled"
    room.until(run["id"], "import", "running")
    room.ask("runs.cancel", run=run["id"])
    assert room.until(run["id"], "-", "cancelled")["state"] == "cancelled"


def test_a_failed_program_is_told_with_its_last_words(room: Room) -> None:
    run = room.launch("fails", 0)
    steps = by_id(room.until(run["id"], "-", "failed"))
    assert {name: step["state"] for name, step in steps.items()} == {
        "import": "succeeded",
        "pick": "failed",
        "sort": "cancelled",
    }
    assert "not-there-at-all" in steps["pick"]["error"]["stderr"]
    assert steps["pick"]["problems"]


def test_a_full_storage_is_said_and_nothing_hangs(room: Room) -> None:
    run = room.launch("big", 0)
    steps = by_id(room.until(run["id"], "-", "failed"))
    assert steps["sort"]["state"] == "failed", steps["sort"]
    assert steps["sort"]["error"]["code"] == "DiskFull"
    assert steps["sort"]["error"]["remedy"]
    assert steps["pick"]["state"] == "succeeded"


def test_auto_places_where_the_data_is(room: Room) -> None:
    sites = {"import": "ornl-cades", "pick": "auto", "sort": "auto"}
    run = room.launch("big", 0, sites=sites)
    done = room.until(run["id"], "-", "succeeded")
    assert done["state"] == "succeeded", done["reason"]
    steps = by_id(done)
    assert steps["sort"]["site"] == steps["pick"]["site"]
    assert "anl" not in steps["sort"]["site"]
