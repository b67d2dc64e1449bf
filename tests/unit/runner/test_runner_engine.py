"""The engine's logic, with laboratories in the same process."""

import asyncio
import base64
import struct
import zlib

import pytest
from dcde.errors import (
    AlreadyExists,
    InvalidParameter,
    NotAllowed,
    NotFound,
    PathRefused,
    RunnerBusy,
    SchedulerError,
    TemplateError,
    UnknownName,
)


def chunk(kind, body):
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


PNG = b"".join(
    (
        b"\x89PNG\r\n\x1a\n",
        chunk(b"IHDR", struct.pack(">IIBBBBB", 1, 1, 8, 0, 0, 0, 0)),
        chunk(b"IDAT", zlib.compress(b"\0\x80")),
        chunk(b"IEND", b""),
    )
)

ENDED = ("succeeded", "failed", "cancelled")
STEPS = ("first", "left", "right", "last")


async def until(ask, run, *states, seconds=20):
    """Watch a run until it is in one of the states; return it. A run that has ended is waited for no more."""
    async with asyncio.timeout(seconds):
        async for event in ask.watch(run):
            if event["type"] == "run" and event["state"] in states:
                return await ask.call("runs.show", run=run)
            if event["type"] == "run" and event["state"] in ENDED:
                raise AssertionError(f"{event['state']}: {event['reason']}")
    raise AssertionError("the events ended")


async def until_step(ask, run, step, *states, seconds=20):
    async with asyncio.timeout(seconds):
        async for event in ask.watch(run):
            steps = event["steps"] if event["type"] == "run" else [event]
            for seen in steps:
                if seen["id"] == step and seen["state"] in states:
                    return seen
    raise AssertionError("the events ended")


def by_id(run):
    return {step["id"]: step for step in run["steps"]}


async def test_a_run_goes_through_three_sites(start_engine, client, laboratories, hub):
    runner = await start_engine()
    ask = client(runner)
    run = await ask.call("runs.launch", template="letters", parameters={"text": "y"})
    assert run["id"] == "r1"
    assert run["project"] == "letters-1"
    done = await until(ask, "r1", "succeeded")
    steps = by_id(done)
    assert {s["state"] for s in steps.values()} == {"succeeded"}
    assert [steps[s]["site"] for s in STEPS] == ["bnl-sdcc", "bnl-sdcc", "ornl-cades", "anl-lcrc"]
    assert steps["last"]["node"] == "n1"
    assert steps["last"]["rows"] == {"a.star": 3}
    assert steps["last"]["bytes_moved"] > 0
    assert sorted(len(lab.starts) for lab in laboratories.values()) == [1, 1, 2]
    project = await ask.call("projects.show", name="letters-1")
    where = {f["path"]: sorted(r["site"] for r in f["replicas"]) for f in project["replicas"]}
    assert where["Letters/job001/first.txt"] == ["bnl-sdcc", "ornl-cades"]
    assert where["Letters/job002/left.txt"] == ["anl-lcrc", "bnl-sdcc"]


async def test_the_files_moved_are_the_missing_ones_and_nothing_else(start_engine, client, laboratories):
    ask = client(await start_engine())
    await ask.call("runs.launch", template="letters")
    await until(ask, "r1", "succeeded")
    there = {
        name: sorted(str(p.relative_to(lab.storage)) for p in lab.storage.rglob("*.txt"))
        for name, lab in laboratories.items()
    }
    folder = "projects/letters-1/Letters"
    assert there == {
        "bnl-sdcc": [f"{folder}/job001/first.txt", f"{folder}/job002/left.txt"],
        "ornl-cades": [f"{folder}/job001/first.txt", f"{folder}/job003/right.txt"],
        "anl-lcrc": [f"{folder}/job002/left.txt", f"{folder}/job003/right.txt", f"{folder}/job004/last.txt"],
    }


async def test_raw_files_appear_in_the_project(start_engine, client, laboratories):
    movies = laboratories["bnl-sdcc"].storage / "movies"
    movies.mkdir()
    for name in ("m1.mrcs", "m2.mrcs"):
        (movies / name).write_text(name)
    ask = client(await start_engine())
    await ask.call("sites.list")
    wishes = {"first": "ornl-cades"}
    await ask.call("runs.launch", template="letters", parameters={"raw": "bnl-sdcc:movies/*.mrcs"}, sites=wishes)
    await until(ask, "r1", "succeeded")
    raw = laboratories["ornl-cades"].project("letters-1") / "Raw"
    assert {p.name: p.read_text() for p in raw.iterdir()} == {"m1.mrcs": "m1.mrcs", "m2.mrcs": "m2.mrcs"}
    assert (laboratories["bnl-sdcc"].project("letters-1") / "Raw/m1.mrcs").is_symlink()


async def test_raw_files_that_are_not_there_are_refused_at_once(start_engine, client):
    ask = client(await start_engine())
    await ask.call("sites.list")
    with pytest.raises(NotFound, match="movies"):
        await ask.call("runs.launch", template="letters", parameters={"raw": "bnl-sdcc:movies/*.mrcs"})
    assert await ask.call("runs.list") == []
    assert await ask.call("projects.list") == []


async def test_a_failure_of_the_application_ends_what_needs_it_and_resume_keeps_the_rest(
    start_engine, client, laboratories, hub
):
    laboratories["bnl-sdcc"].fates["left"] = ["fail"]
    ask = client(await start_engine())
    await ask.call("runs.launch", template="letters")
    failed = await until(ask, "r1", "failed")
    steps = by_id(failed)
    assert {name: steps[name]["state"] for name in STEPS} == {
        "first": "succeeded",
        "left": "failed",
        "right": "succeeded",
        "last": "cancelled",
    }
    assert steps["left"]["problems"] == ["It did not converge."]
    assert "bad news" in steps["left"]["error"]["stderr"]
    assert steps["left"]["error"]["code"] == "JobFailed"
    assert "Left" in steps["last"]["why"]
    assert "converge" in failed["reason"]
    await ask.call("runs.resume", run="r1")
    done = by_id(await until(ask, "r1", "succeeded"))
    assert {name: done[name]["attempt"] for name in STEPS} == {"first": 1, "left": 2, "right": 1, "last": 1}
    assert done["left"]["problems"] == []
    assert done["left"]["error"] is None
    keys = [key for lab in laboratories.values() for key in lab.starts]
    assert len(keys) == len(set(keys)) == 5
    with pytest.raises(InvalidParameter):
        await ask.call("runs.resume", run="r1")


async def test_a_lost_job_gets_a_new_attempt_but_not_for_ever(start_engine, client, laboratories):
    laboratories["bnl-sdcc"].fates["first"] = ["lost", "lost"]
    laboratories["ornl-cades"].fates["right"] = ["lost"] * 9
    ask = client(await start_engine())
    await ask.call("runs.launch", template="letters")
    steps = by_id(await until(ask, "r1", "failed"))
    assert (steps["first"]["state"], steps["first"]["attempt"]) == ("succeeded", 3)
    assert (steps["right"]["state"], steps["right"]["attempt"]) == ("failed", 3)
    assert steps["right"]["error"]["code"] == "JobLost"
    assert all(n == 1 for lab in laboratories.values() for n in lab.most_live.values())
    laboratories["ornl-cades"].fates["right"] = ["lost"]
    await ask.call("runs.resume", run="r1")
    steps = by_id(await until(ask, "r1", "succeeded"))
    assert steps["right"]["attempt"] == 5


async def test_a_site_that_is_down_is_waited_for_and_said(start_engine, client, laboratories):
    runner = await start_engine()
    ask = client(runner)
    await ask.call("sites.list")
    runner.links["ornl-cades"].cut()
    laboratories["bnl-sdcc"].held.add("left")
    await ask.call("runs.launch", template="letters")
    await until_step(ask, "r1", "left", "running")
    waiting = by_id(await ask.call("runs.show", run="r1"))["right"]
    assert waiting["state"] == "waiting"
    assert "ORNL-CADES" in waiting["why"]
    runner.links["bnl-sdcc"].cut()
    lost = await until_step(ask, "r1", "left", "unknown")
    assert "BNL-SDCC" in lost["why"]
    runner.links["ornl-cades"].mend()
    runner.links["bnl-sdcc"].mend()
    laboratories["bnl-sdcc"].held.clear()
    await until(ask, "r1", "succeeded")
    assert all(len(lab.starts) == len(set(lab.starts)) for lab in laboratories.values())


async def test_cancel_ends_the_jobs_and_resume_goes_on(start_engine, client, laboratories, hub):
    laboratories["bnl-sdcc"].held.add("left")
    laboratories["ornl-cades"].pending.add("right")
    ask = client(await start_engine())
    await ask.call("runs.launch", template="letters")
    await until_step(ask, "r1", "left", "running")
    await until_step(ask, "r1", "right", "queued")
    await ask.call("runs.cancel", run="r1")
    cancelled = await until(ask, "r1", "cancelled")
    states = {name: step["state"] for name, step in by_id(cancelled).items()}
    assert states == {"first": "succeeded", "left": "cancelled", "right": "cancelled", "last": "cancelled"}
    for lab in laboratories.values():
        assert all(job.state == "ended" for job in lab.jobs.values())
    assert (await ask.call("runs.cancel", run="r1"))["state"] == "cancelled"
    laboratories["bnl-sdcc"].held.clear()
    laboratories["ornl-cades"].pending.clear()
    await ask.call("runs.resume", run="r1")
    steps = by_id(await until(ask, "r1", "succeeded"))
    assert (steps["left"]["attempt"], steps["right"]["attempt"], steps["last"]["attempt"]) == (2, 2, 1)


async def test_a_cancel_is_delivered_to_a_site_that_is_away(start_engine, client, laboratories):
    lab = laboratories["bnl-sdcc"]
    lab.held.add("first")
    runner = await start_engine()
    ask = client(runner)
    await ask.call("runs.launch", template="letters")
    await until_step(ask, "r1", "first", "running")
    runner.links["bnl-sdcc"].cut()
    await ask.call("runs.cancel", run="r1")
    run = await ask.call("runs.show", run="r1")
    assert run["state"] == "running"
    assert "being cancelled" in run["reason"]
    with pytest.raises(RunnerBusy):
        await ask.call("runs.resume", run="r1")
    runner.links["bnl-sdcc"].mend()
    await until(ask, "r1", "cancelled")
    assert [job.slurm_state for job in lab.jobs.values()] == ["CANCELLED by 1001"]


async def test_a_cancel_outlives_the_runner(start_engine, client, laboratories):
    lab = laboratories["bnl-sdcc"]
    lab.held.add("first")
    runner = await start_engine()
    ask = client(runner)
    await ask.call("runs.launch", template="letters")
    await until_step(ask, "r1", "first", "running")
    runner.links["bnl-sdcc"].cut()
    await ask.call("runs.cancel", run="r1")
    await runner.close()
    assert [job.state for job in lab.jobs.values()] == ["running"]
    ask = client(await start_engine())
    await until(ask, "r1", "cancelled")
    assert [job.slurm_state for job in lab.jobs.values()] == ["CANCELLED by 1001"]


async def test_the_end_of_the_runner_touches_no_job(start_engine, client, laboratories, hub):
    laboratories["bnl-sdcc"].held.add("first")
    runner = await start_engine()
    ask = client(runner)
    await ask.call("runs.launch", template="letters")
    await until_step(ask, "r1", "first", "running")
    await runner.close()
    laboratories["bnl-sdcc"].poll([])
    assert [job.state for job in laboratories["bnl-sdcc"].jobs.values()] == ["running"]
    laboratories["bnl-sdcc"].held.clear()
    ask = client(await start_engine())
    await until(ask, "r1", "succeeded")
    assert all(len(lab.starts) == len(set(lab.starts)) for lab in laboratories.values())


async def test_a_token_launches_once(start_engine, client, laboratories):
    ask = client(await start_engine())
    launched = [ask.call("runs.launch", template="letters", token="click-1") for _ in range(5)]
    assert {run["id"] for run in await asyncio.gather(*launched)} == {"r1"}
    assert (await ask.call("runs.launch", template="letters", token="click-2"))["id"] == "r2"
    await until(ask, "r1", "succeeded")
    await until(ask, "r2", "succeeded")
    assert len(await ask.call("runs.list")) == 2


async def test_two_runs_in_one_project_have_folders_of_their_own(start_engine, client, laboratories):
    ask = client(await start_engine())
    for _ in range(2):
        await ask.call("runs.launch", template="letters", project="mine")
    await until(ask, "r1", "succeeded")
    await until(ask, "r2", "succeeded")
    files = {f["path"] for f in (await ask.call("projects.show", name="mine"))["replicas"]}
    assert {"Letters/job001/first.txt", "Letters/job005/first.txt", "Letters/job008/last.txt"} <= files


async def test_what_can_never_be_is_refused_and_nothing_is_stored(start_engine, client, hub, folders):
    bad = folders[0] / "templates" / "circle" / "template.yaml"
    bad.parent.mkdir()
    bad.write_text(
        (folders[0] / "templates" / "letters" / "template.yaml")
        .read_text()
        .replace("name: letters", "name: circle")
        .replace("site: bnl-sdcc}", "site: bnl-sdcc, after: [last]}", 1)
    )
    ask = client(await start_engine())
    assert "circle" not in {t["name"] for t in await ask.call("templates.list")}
    refused = [
        ({"template": "circle"}, TemplateError),
        ({"template": "letters", "sites": {"nothing": "auto"}}, InvalidParameter),
        ({"template": "letters", "sites": {"first": "cern"}}, UnknownName),
        ({"template": "letters", "parameters": {"colour": 3}}, InvalidParameter),
        ({"template": "letters", "parameters": {"text": "$(rm)"}}, InvalidParameter),
        ({"template": "letters", "partition": "gold"}, InvalidParameter),
        ({"template": "letters", "allocation": "gold"}, NotAllowed),
        ({"template": "letters", "parameters": {"raw": "cern:a"}}, UnknownName),
    ]
    for wish, error in refused:
        with pytest.raises(error) as caught:
            await ask.call("runs.launch", **wish)
        assert caught.value.message
    assert await ask.call("runs.list") == []
    assert await ask.call("projects.list") == []


async def test_a_person_with_one_site_runs_everything_there(start_engine, client, hub, laboratories):
    hub.accounts = {"ornl-cades": "mt9"}
    ask = client(await start_engine())
    states = {site["name"]: site["state"] for site in await ask.call("sites.list")}
    assert states == {"bnl-sdcc": "refused", "ornl-cades": "up", "anl-lcrc": "refused"}
    with pytest.raises(NotAllowed) as caught:
        await ask.call("runs.launch", template="letters", sites={"first": "bnl-sdcc"})
    assert "account" in str(caught.value)
    await ask.call("runs.launch", template="letters")
    steps = by_id(await until(ask, "r1", "succeeded"))
    assert {step["site"] for step in steps.values()} == {"ornl-cades"}
    assert steps["last"]["bytes_moved"] == 0


async def test_a_step_that_may_no_longer_run_fails_with_the_reason(start_engine, client, hub, laboratories):
    laboratories["bnl-sdcc"].held.add("first")
    runner = await start_engine()
    ask = client(runner)
    await ask.call("runs.launch", template="letters")
    await until_step(ask, "r1", "first", "running")
    await runner.close()
    hub.capabilities[1]["groups"] = {"others": {"actions": ["submit", "transfer.read"]}}
    laboratories["bnl-sdcc"].held.clear()
    (folder := runner._state / "sites.json").unlink()
    assert not folder.exists()
    ask = client(await start_engine())
    steps = by_id(await until(ask, "r1", "failed"))
    assert steps["right"]["error"]["code"] == "NotAllowed"
    assert "others" in steps["right"]["why"] + steps["right"]["error"]["remedy"]


async def test_a_submission_that_the_site_refuses_fails_the_step(start_engine, client, laboratories):
    laboratories["ornl-cades"].refuse_submission = SchedulerError("Invalid account", where="ornl-cades")
    ask = client(await start_engine())
    await ask.call("runs.launch", template="letters")
    steps = by_id(await until(ask, "r1", "failed"))
    assert "Invalid account" in steps["right"]["problems"][0]
    laboratories["ornl-cades"].refuse_submission = None
    await ask.call("runs.resume", run="r1")
    await until(ask, "r1", "succeeded")


async def test_logs_and_pictures_of_a_step(start_engine, client, laboratories):
    def pictures(record):
        (record / "pictures").mkdir()
        (record / "pictures/montage.png").write_bytes(PNG)
        (record / "pictures/bad.png").write_bytes(b"<svg onload=alert(1)>")
        return [
            {"name": "montage", "title": "Class averages", "file": "pictures/montage.png"},
            {"name": "bad", "title": "Bad", "file": "pictures/bad.png"},
            {"name": "worse", "title": "Worse", "file": "../../../etc/passwd"},
            {"name": "gone", "title": "Gone", "file": "pictures/gone.png"},
            "nonsense",
        ]

    laboratories["bnl-sdcc"].pictures = pictures
    ask = client(await start_engine())
    await ask.call("runs.launch", template="letters")
    first = by_id(await until(ask, "r1", "succeeded"))["first"]
    assert first["pictures"] == [{"name": "montage", "title": "Class averages"}]
    shown = await ask.call("runs.picture", run="r1", step="first", name="montage")
    assert base64.b64decode(shown["png_base64"]) == PNG
    assert shown["title"] == "Class averages"
    for step, name in (("first", "bad"), ("left", "gone"), ("last", "montage")):
        with pytest.raises(NotFound):
            await ask.call("runs.picture", run="r1", step=step, name=name)
    with pytest.raises(UnknownName):
        await ask.call("runs.log", run="r1", step="nothing")
    log = await ask.call("runs.log", run="r1", step="first")
    assert log == {"text": "went well é\n", "offset": 13}
    assert await ask.call("runs.log", run="r1", step="first", offset=13) == {"text": "", "offset": 13}
    assert await ask.call("runs.log", run="r1", step="first", stream="stderr") == {"text": "", "offset": 0}


async def test_pictures_appear_while_the_job_runs(start_engine, client, laboratories):
    lab = laboratories["bnl-sdcc"]
    lab.held.add("first")
    ask = client(await start_engine())
    await ask.call("runs.launch", template="letters")
    await until_step(ask, "r1", "first", "running")
    (record,) = (lab.records / "jobs").iterdir()
    (record / "pictures").mkdir()
    (record / "pictures/montage.png").write_bytes(PNG)
    lab.early = [{"name": "montage", "title": "So far", "file": "pictures/montage.png"}]
    async with asyncio.timeout(10):
        async for event in ask.watch("r1"):
            if event["type"] == "step" and event["id"] == "first" and event["pictures"]:
                assert event["state"] == "running"
                break
    shown = await ask.call("runs.picture", run="r1", step="first", name="montage")
    assert base64.b64decode(shown["png_base64"]) == PNG
    lab.held.clear()
    first = by_id(await until(ask, "r1", "succeeded"))["first"]
    assert first["pictures"] == [], "what counts is what the job left at its end"


async def test_the_keeper_is_told_what_is_unfinished(start_engine, client, laboratories, hub):
    laboratories["bnl-sdcc"].held.add("first")
    hub.down = False
    ask = client(await start_engine())
    await ask.call("runs.launch", template="letters")
    await until_step(ask, "r1", "first", "running")
    await hub.until(lambda: hub.needed[-1:] == [["r1"]])
    laboratories["bnl-sdcc"].held.clear()
    await until(ask, "r1", "succeeded")
    await hub.until(lambda: hub.needed[-1] == [])


async def test_a_run_goes_on_while_the_hub_is_away(start_engine, client, laboratories, hub):
    runner = await start_engine()
    await client(runner).call("sites.list")
    await runner.close()
    hub.down = True
    ask = client(await start_engine())
    assert (await ask.call("whoami"))["dcde_id"] == "dcde1000001"
    await ask.call("runs.launch", template="letters")
    await until(ask, "r1", "succeeded")


async def test_copies_between_sites(start_engine, client, laboratories):
    source = laboratories["bnl-sdcc"].storage / "movies"
    source.mkdir()
    (source / "<img src=x onerror=alert(1)>").write_text("harmless")
    (source / "b").write_text("x" * 5000)
    runner = await start_engine()
    ask = client(runner)
    transfer = await ask.call("files.copy", source="bnl:movies", target="ornl-cades:in/")
    assert transfer["target"] == "ornl-cades:in/"
    done = await transfer_end(ask, transfer["id"])
    assert (done["state"], done["files_done"], done["bytes_done"]) == ("done", 2, 5008)
    copied = laboratories["ornl-cades"].storage / "in/movies"
    assert (copied / "<img src=x onerror=alert(1)>").read_text() == "harmless"
    again = await ask.call("files.copy", source="bnl:movies/b", target="ornl-cades:in")
    await transfer_end(ask, again["id"])
    renamed = await ask.call("files.copy", source="bnl:movies/b", target="ornl-cades:in/c")
    await transfer_end(ask, renamed["id"])
    assert sorted(p.name for p in copied.parent.iterdir()) == ["b", "c", "movies"]
    listed = await ask.call("files.list", site="ornl-cades", path="in/movies")
    assert [e["name"] for e in listed["entries"]] == ["<img src=x onerror=alert(1)>", "b"]
    failed = await ask.call("files.copy", source="bnl:nothing", target="ornl-cades:in/")
    failed = await transfer_end(ask, failed["id"])
    assert (failed["state"], failed["error"]["code"]) == ("failed", "NotFound")
    with pytest.raises(PathRefused):
        await ask.call("files.list", site="bnl", path="../up")
    with pytest.raises(PathRefused):
        await ask.call("files.remove", site="bnl", path="/etc/passwd")
    await ask.call("files.mkdir", site="bnl", path="new")
    with pytest.raises(AlreadyExists):
        await ask.call("files.mkdir", site="bnl", path="new")
    await ask.call("files.remove", site="bnl", path="new")
    assert [t["id"] for t in await ask.call("transfers.list")] == ["t4", "t3", "t2", "t1"]
    runner.links["anl-lcrc"].cut()
    waiting = await ask.call("files.copy", source="bnl:movies", target="anl:in/")
    assert (await ask.call("transfers.cancel", id=waiting["id"]))["state"] == "cancelled"


async def transfer_end(ask, name):
    async with asyncio.timeout(10):
        async for event in ask.watch():
            if event["type"] == "transfer" and event["id"] == name and event["state"] not in ("waiting", "moving"):
                return event
    raise AssertionError("the events ended")


async def test_a_file_that_was_changed_where_it_was_made_is_brought_again(start_engine, client, laboratories):
    ask = client(await start_engine())
    laboratories["anl-lcrc"].fates["last"] = ["fail"]
    await ask.call("runs.launch", template="letters")
    await until(ask, "r1", "failed")
    (laboratories["bnl-sdcc"].project("letters-1") / "Letters/job002/left.txt").write_text("changed by hand")
    copy = laboratories["anl-lcrc"].project("letters-1") / "Letters/job003/right.txt"
    copy.write_text("spoiled")
    await ask.call("runs.resume", run="r1")
    await until(ask, "r1", "succeeded")
    assert copy.read_text().startswith("letters-1-r1-right"), "a copy that was changed is brought again"


async def test_an_input_that_is_gone_everywhere_is_said(start_engine, client, laboratories):
    laboratories["bnl-sdcc"].fates["left"] = ["fail"]
    laboratories["bnl-sdcc"].fates["first"] = ["ok"]
    ask = client(await start_engine())
    await ask.call("runs.launch", template="letters", sites={"right": "bnl-sdcc"})
    await until(ask, "r1", "failed")
    (laboratories["bnl-sdcc"].project("letters-1") / "Letters/job001/first.txt").unlink()
    await ask.call("runs.resume", run="r1")
    steps = by_id(await until(ask, "r1", "failed"))
    assert steps["left"]["error"]["code"] == "NotFound"
    assert "first.txt" in steps["left"]["problems"][0]


async def test_a_copy_serves_when_the_place_of_birth_is_away(start_engine, client, laboratories):
    runner = await start_engine()
    ask = client(runner)
    await ask.call("sites.list")
    runner.links["anl-lcrc"].cut()
    await ask.call("runs.launch", template="letters", sites={"left": "ornl-cades", "right": "anl-lcrc"})
    await until_step(ask, "r1", "left", "succeeded")
    runner.links["bnl-sdcc"].cut()
    runner.links["anl-lcrc"].mend()
    await until(ask, "r1", "succeeded")
    assert (laboratories["anl-lcrc"].project("letters-1") / "Letters/job001/first.txt").exists()


async def test_an_input_where_nobody_answers_is_waited_for(start_engine, client, laboratories):
    runner = await start_engine()
    ask = client(runner)
    laboratories["bnl-sdcc"].held.add("left")
    laboratories["ornl-cades"].pending.add("right")
    await ask.call("runs.launch", template="letters", sites={"last": "ornl-cades"})
    await until_step(ask, "r1", "left", "running")
    await until_step(ask, "r1", "right", "queued")
    laboratories["bnl-sdcc"].held.clear()
    await until_step(ask, "r1", "left", "succeeded")
    runner.links["bnl-sdcc"].cut()
    laboratories["ornl-cades"].pending.clear()
    await until_step(ask, "r1", "right", "succeeded")
    waiting = await until_step(ask, "r1", "last", "moving", "waiting")
    async with asyncio.timeout(10):
        async for event in ask.watch("r1"):
            steps = event["steps"] if event["type"] == "run" else [event]
            waiting = next((s for s in steps if s["id"] == "last"), waiting)
            if "nobody answers" in waiting["why"]:
                break
    assert waiting["state"] == "waiting"
    runner.links["bnl-sdcc"].mend()
    await until(ask, "r1", "succeeded")
