"""Exactly one submission for each key, and a poll that never takes "not seen" for "failed"."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from pathlib import Path

import pytest
from dcde.agent.protocol import OpError
from dcde.agent.slurm import parse_sacct, parse_scontrol, parse_squeue, refusal, submit_arguments, summary
from dcde.agent.work import Work
from link_site import until

FILES = {"batch.sh": "#!/bin/sh\ntrue\n", "job.json": "{}"}
KEY = "p-r1-import-a1"


async def test_one_key_is_one_job(tmp_path: Path, queue, work: Work) -> None:
    # Three agents, as on three login hosts that share the home.
    agents = [queue.jobs(tmp_path, work) for _ in range(3)]
    answers = await asyncio.gather(*(agent.submit(KEY, FILES, {"cores": 2}) for agent in agents))
    assert [answer["job_id"] for answer in answers] == ["1", "1", "1"]
    assert sorted(answer["how"] for answer in answers) == ["attached", "attached", "new"]
    assert len(queue.lines("jobs")) == 1
    record = tmp_path / "jobs" / KEY
    assert (record / "jobid").read_text() == "1"
    assert (record / "job.json").read_text() == "{}"
    arguments = queue.lines("arguments")[0].split()
    assert {"--parsable", f"--job-name={KEY}", "--no-requeue", "--ntasks-per-node=2"} <= set(arguments)
    assert arguments[-1] == str(record / "batch.sh")


async def test_a_submission_whose_agent_died_is_found_in_the_queue(tmp_path: Path, queue, work: Work) -> None:
    agent = queue.jobs(tmp_path, work)
    await agent.submit(KEY, FILES, {})
    (tmp_path / "jobs" / KEY / "jobid").unlink()
    assert await agent.submit(KEY, FILES, {}) == {"job_id": "1", "how": "recovered"}
    assert len(queue.lines("jobs")) == 1


async def test_a_job_that_slurm_forgot_is_not_submitted_again(tmp_path: Path, queue, work: Work) -> None:
    agent = queue.jobs(tmp_path, work)
    await agent.submit(KEY, FILES, {})
    record = tmp_path / "jobs" / KEY
    (record / "jobid").unlink()
    queue.set()
    (record / "claim").mkdir()
    assert (await agent.submit(KEY, FILES, {}))["how"] == "recovered"
    (record / "jobid").unlink()
    (record / "result.json").write_text('{"slurm_job_id": "41", "ok": true}')
    assert await agent.submit(KEY, FILES, {}) == {"job_id": "41", "how": "recovered"}
    assert queue.lines("jobs") == []


async def test_an_unclear_answer_is_looked_up_before_another_try(tmp_path: Path, queue, work: Work) -> None:
    agent = queue.jobs(tmp_path, work)
    queue.say("down")
    for _ in range(2):
        with pytest.raises(OpError) as caught:
            await agent.submit(KEY, FILES, {})
        assert (caught.value.code, caught.value.retry) == ("SchedulerError", True)
    (queue.folder / "down").unlink()
    assert (await agent.submit(KEY, FILES, {}))["how"] == "new"
    assert len(queue.lines("jobs")) == 1


async def test_a_refusal_says_what_to_do(tmp_path: Path, queue, work: Work) -> None:
    queue.say("no")
    with pytest.raises(OpError) as caught:
        await queue.jobs(tmp_path, work).submit(KEY, FILES, {"partition": "nope"})
    assert not caught.value.retry
    assert "invalid partition" in caught.value.message
    assert "another partition" in caught.value.remedy


SUBMIT = """
import asyncio, sys
sys.path[:0] = sys.argv[4:]
from dcde.agent.jobs import Jobs
from dcde.agent.paths import Root
from dcde.agent.programs import Programs
from dcde.agent.slurm import Slurm
from dcde.agent.work import Work
async def main():
    jobs = Jobs(Root(sys.argv[1]), Slurm(Programs(sys.argv[2]), "me"), Work())
    await jobs.submit(sys.argv[3], {"batch.sh": "#!/bin/sh"}, {})
asyncio.run(main())
"""


async def test_an_agent_killed_while_sbatch_runs_leads_to_one_job(tmp_path: Path, queue, work: Work) -> None:
    # The job is made a second after the agent is gone: only the lock that `sbatch` holds tells of it until then.
    queue.say("late")
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", SUBMIT, str(tmp_path), queue.path, KEY, *sys.path
    )
    await until(lambda: (queue.folder / "begun").exists())
    os.kill(process.pid, signal.SIGKILL)
    await process.wait()
    assert queue.lines("jobs") == []
    answer = await queue.jobs(tmp_path, work).submit(KEY, FILES, {})
    assert answer == {"job_id": "1", "how": "recovered"}
    assert len(queue.lines("jobs")) == 1


async def test_a_submission_that_nobody_waits_for_is_brought_to_its_end(tmp_path: Path, queue, work: Work) -> None:
    queue.say("late")
    agent = queue.jobs(tmp_path, work)
    first = asyncio.create_task(agent.submit(KEY, FILES, {}))
    await until(lambda: (queue.folder / "begun").exists())
    first.cancel()
    await until(lambda: (tmp_path / "jobs" / KEY / "jobid").exists())
    assert (await agent.submit(KEY, FILES, {}))["how"] == "attached"


async def test_where_there_are_accounts_they_know_more(tmp_path: Path, queue, work: Work) -> None:
    agent = queue.jobs(tmp_path, work)
    await agent.submit("a", FILES, {})
    await agent.submit("b", FILES, {})
    queue.set()
    assert (await agent.poll(["a"]))["a"]["state"] == "unknown"
    (queue.folder / "accounts").write_text("1|TIMEOUT|0:15|n1|a\n2|COMPLETED|0:0|n2|b\n")
    agent = queue.jobs(tmp_path, work)
    found = await agent.poll(["a", "b"])
    assert [(s["slurm_state"], s["exit_code"]) for s in found.values()] == [("TIMEOUT", 143), ("COMPLETED", 0)]
    (tmp_path / "jobs/b/jobid").unlink()
    assert await agent.submit("b", FILES, {}) == {"job_id": "2", "how": "recovered"}


async def test_poll_asks_once_and_takes_nothing_for_failed(tmp_path: Path, queue, work: Work) -> None:
    agent = queue.jobs(tmp_path, work)
    keys = [f"k{n}" for n in range(6)]
    for key in keys[:5]:
        await agent.submit(key, FILES, {})
    calls = len(queue.lines("squeue-calls"))
    # k2 is not shown at all, k3 has failed, k4 has a result and is not shown, k5 was never submitted.
    queue.set(
        "1|PENDING|Resources||k0", "2|RUNNING|None|n1|k1", "4|FAILED|NonZeroExitCode|n2|k3", "77|RUNNING|None|n1|z"
    )
    (tmp_path / "jobs/k4/result.json").write_text(json.dumps({"ok": True}))
    (tmp_path / "jobs/k1/progress.json").write_text(json.dumps({"fraction": 0.5}))
    found = await agent.poll(keys)
    assert len(queue.lines("squeue-calls")) == calls + 1
    assert {key: status["state"] for key, status in found.items()} == {
        "k0": "pending", "k1": "running", "k2": "unknown", "k3": "ended", "k4": "ended", "k5": "unknown",
    }  # fmt: skip
    assert found["k0"]["reason"] == "Resources"
    assert (found["k1"]["node"], found["k1"]["progress"]) == ("n1", {"fraction": 0.5})
    assert found["k2"]["reason"] == "The scheduler does not show it."
    assert (found["k3"]["slurm_state"], found["k3"]["exit_code"]) == ("FAILED", 3)
    assert found["k4"]["result"] == {"ok": True}
    assert found["k5"]["reason"] == "It was not submitted."


async def test_a_silent_scheduler_makes_unknown(tmp_path: Path, queue, work: Work) -> None:
    agent = queue.jobs(tmp_path, work)
    await agent.submit("a", FILES, {})
    await agent.submit("b", FILES, {})
    (tmp_path / "jobs/b/result.json").write_text("{}")
    queue.say("down")
    found = await agent.poll(["a", "b"])
    assert (found["a"]["state"], found["b"]["state"]) == ("unknown", "ended")
    assert "Unable to contact" in found["a"]["reason"]


async def test_a_half_written_result_is_none(tmp_path: Path, queue, work: Work) -> None:
    agent = queue.jobs(tmp_path, work)
    await agent.submit("a", FILES, {})
    (tmp_path / "jobs/a/result.json").write_text('{"ok": tr')
    assert (await agent.poll(["a"]))["a"]["state"] == "pending"


async def test_cancel_and_forget(tmp_path: Path, queue, work: Work) -> None:
    agent = queue.jobs(tmp_path, work)
    assert await agent.cancel(KEY) == {"job_id": None}
    await agent.submit(KEY, FILES, {})
    with pytest.raises(OpError, match="not ended"):
        await agent.forget(KEY)
    assert await agent.cancel(KEY) == {"job_id": "1"}
    assert queue.lines("cancelled") == ["1"]
    queue.set("1|CANCELLED|None||x")
    await agent.forget(KEY)
    await agent.forget(KEY)
    assert list((tmp_path / "jobs").iterdir()) == []


@pytest.mark.parametrize("key", ["../x", "a/b", "", ".hidden", "a b", "x" * 201, "-n", "a\n"])
async def test_unsafe_keys_are_refused(tmp_path: Path, queue, work: Work, key: str) -> None:
    agent = queue.jobs(tmp_path, work)
    for attempt in (agent.submit(key, FILES, {}), agent.poll([key]), agent.cancel(key), agent.forget(key)):
        with pytest.raises(OpError) as caught:
            await attempt
        assert caught.value.code == "InvalidParameter"


@pytest.mark.parametrize(
    "files", [{}, {"batch.sh": 3}, {**FILES, "../x": ""}, {**FILES, "jobid": "9"}, {**FILES, ".x": ""}]
)
async def test_unsafe_files_are_refused(tmp_path: Path, queue, work: Work, files) -> None:
    with pytest.raises(OpError):
        await queue.jobs(tmp_path, work).submit(KEY, files, {})
    assert not (tmp_path / "jobs").exists()


@pytest.mark.parametrize(
    "options",
    [
        {"partition": "a b"},
        {"account": "--wrap=x"},
        {"cores": "2"},
        {"cores": True},
        {"memory_mb": -1},
        {"name": "$(x)"},
    ],
)
def test_unsafe_options_are_refused(options) -> None:
    with pytest.raises(OpError) as caught:
        submit_arguments(options)
    assert caught.value.code == "InvalidParameter"


def test_options_become_arguments() -> None:
    assert submit_arguments(
        {"partition": "batch", "account": "dcde", "walltime_minutes": 30, "cores": 4, "memory_mb": 500, "nodes": 2,
         "gpus": 1, "name": "Motion-correction"}
    ) == [
        "--no-requeue", "--nodes=2", "--ntasks-per-node=4", "--mem=500M", "--time=30", "--gres=gpu:1",
        "--partition=batch", "--account=dcde", "--comment=Motion-correction",
    ]  # fmt: skip
    assert submit_arguments({"gpus": 0, "partition": None}) == ["--no-requeue", "--nodes=1", "--ntasks-per-node=1"]


def test_what_slurm_prints() -> None:
    jobs = parse_squeue("7|RUNNING|None|n1|a|b\n8_1|PENDING|None||x\nnoise\n9|PENDING|(Resources)||k\n")
    assert [(job.job_id, job.state, name) for job, name in jobs] == [("7", "running", "a|b"), ("9", "pending", "k")]
    ((job, name),) = parse_scontrol(
        "JobId=12 JobName=k-1 UserId=u(1) JobState=TIMEOUT Reason=TimeLimit ExitCode=0:15 ReqNodeList=(null) NodeList=n2 X=1"
    )
    assert (job.state, job.exit_code, job.node, job.reason, name) == ("ended", 143, "n2", "TimeLimit", "k-1")
    ((job, name),) = parse_sacct("5|CANCELLED by 1000|0:15|None assigned|k\n")
    assert (job.slurm_state, job.state, job.node, name) == ("CANCELLED", "ended", "", "k")
    ((job, _),) = parse_squeue("5|SOMETHING_NEW|None||k")
    assert job.state == "unknown"


def test_the_queue_is_counted() -> None:
    jobs = "me|RUNNING\nother|RUNNING\nme|PENDING\nother|COMPLETING\n"
    nodes = "n1|idle\nn1|idle\nn2|down*\nn3|mixed\nn4|drained\nn5|idle*\n"
    assert summary(jobs, nodes, "me") == {
        "running": 2, "pending": 1, "mine_running": 1, "mine_pending": 1,
        "nodes_idle": 1, "nodes_total": 5, "nodes_down": 3,
    }  # fmt: skip


def test_refusals_tell_whether_to_try_again() -> None:
    assert refusal("squeue", "slurm_load_jobs error: Socket timed out on send/recv operation").retry
    assert not refusal("sbatch", "sbatch: error: Batch job submission failed: Invalid account").retry
