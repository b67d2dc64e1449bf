"""`DurableJobs` against a site whose answers are scripted: every word of Slurm, lost links, results that come late."""

import asyncio
import base64
import json

import pytest
from dcde.errors import (
    AgentRestarted,
    DiskFull,
    InvalidParameter,
    JobCancelled,
    JobFailed,
    JobLost,
    LinkLost,
    LinkRefused,
    NotFound,
    SchedulerError,
)
from dcde.jobs.durable import DurableJobs
from dcde.jobs.slurm import RULES, BatchOptions, batch_script, rule
from dcde.jobs.spec import JobSpec
from pydantic import ValidationError

KEY = "demo-r1-import-a1"
SPEC = JobSpec(title="Import", project="demo", storage_root="/s", interpreter="/usr/bin/python3", commands=[["true"]])
DONE = {"ok": True, "exit_codes": [0], "problems": [], "report": None}


def answer(state="running", slurm_state=None, **more):
    return {"state": state, "slurm_state": slurm_state, "job_id": "7", "node": "n1", "reason": "", **more}


class ScriptedSite:
    """A link whose `poll` gives one answer after the other for each key; the last one stays."""

    def __init__(self):
        self.script = {}
        self.files = {}
        self.calls = []
        self.submitted = {}
        self.errors = {}
        self.link_is_up = asyncio.Event()
        self.link_is_up.set()
        self.refused = False

    def plan(self, *answers, key=KEY):
        self.script[key] = list(answers)

    def fail(self, op, *errors):
        self.errors[op] = list(errors)

    def count(self, op):
        return sum(call[0] == op for call in self.calls)

    async def up(self, timeout=None):
        if self.refused:
            raise LinkRefused("your account is not known there")
        await asyncio.wait_for(self.link_is_up.wait(), timeout)

    async def call(self, op, *, timeout=60, **args):
        self.calls.append((op, args))
        await asyncio.sleep(0)
        if not self.link_is_up.is_set():
            raise LinkLost("the link is down")
        if self.errors.get(op):
            raise self.errors[op].pop(0)
        return getattr(self, f"_{op}")(**args)

    def _submit(self, key, files, options):
        how = "attached" if key in self.submitted else "new"
        self.submitted[key] = (files, options)
        return {"job_id": "7", "how": how}

    def _poll(self, keys):
        found = {}
        for key in keys:
            script = self.script[key]
            found[key] = script.pop(0) if len(script) > 1 else script[0]
        return found

    def _cancel(self, key):
        return {"job_id": "7"}

    def _tail(self, path, root, offset, limit):
        assert root == "records"
        if path not in self.files:
            raise NotFound("no such file", where=path)
        data = self.files[path]
        start = max(0, len(data) + offset) if offset < 0 else offset
        return {"data_base64": base64.b64encode(data[start : start + limit]).decode(), "size": len(data)}


@pytest.fixture
async def site():
    """A scripted site."""
    return ScriptedSite()


@pytest.fixture
async def jobs(site):
    """Quick `DurableJobs` at the scripted site."""
    made = DurableJobs(site, shortest=0.005, longest=0.02, grace=0.1)
    yield made
    await made.close()


async def run(jobs, key=KEY, told=None):
    return await asyncio.wait_for(jobs.run(key, SPEC, on_change=(told if told is not None else []).append), 10)


async def test_a_job_from_submission_to_result(site, jobs):
    site.plan(
        answer("pending", "PENDING", reason="Priority", node=None),
        answer("running", "RUNNING", progress={"fraction": 0.5}),
        answer("ended", "COMPLETED", result=DONE),
    )
    told = []
    result = await run(jobs, told=told)
    assert (result.key, result.job_id, result.node, result.result) == (KEY, "7", "n1", DONE)
    assert [status.state for status in told] == ["submitting", "pending", "pending", "running"]
    assert told[2].reason == "Priority"
    assert told[3].progress == {"fraction": 0.5}
    files, options = site.submitted[KEY]
    assert set(files) == {"job.json", "job.py", "batch.sh"}
    assert options["name"] == KEY
    assert json.loads(files["job.json"])["key"] == KEY


async def test_all_keys_go_with_one_question(site, jobs):
    keys = [f"demo-r1-s{number}-a1" for number in range(20)]
    for key in keys:
        site.plan(answer("running", "RUNNING"), answer("running", "RUNNING"), answer("ended", result=DONE), key=key)
    await asyncio.gather(*(run(jobs, key) for key in keys))
    assert site.count("submit") == 20
    assert site.count("poll") <= 8


@pytest.mark.parametrize("word", sorted(RULES))
async def test_every_word_of_slurm(site, jobs, word):
    known = RULES[word]
    told = []
    if known.state != "ended":
        site.plan(answer(known.state, word), answer("ended", "COMPLETED", result=DONE))
        await run(jobs, told=told)
        assert told[-1].state == known.state
        return
    site.plan(answer("ended", word, exit_code="1:0"))
    site.files[f"jobs/{KEY}/stderr"] = b"x" * 5000 + b"the last words"
    error = {"failed": JobFailed, "lost": JobLost, "cancelled": JobCancelled}[known.outcome]
    with pytest.raises(error) as caught:
        await run(jobs, told=told)
    assert caught.value.where == KEY
    if error is JobFailed:
        assert caught.value.message.endswith("the last words")
        assert len(caught.value.message) < 2000
        assert not caught.value.retry
    if error is JobLost:
        assert caught.value.retry


def test_the_words_as_slurm_writes_them():
    assert rule("CANCELLED by 51001") is RULES["CANCELLED"]
    assert rule("CANCELLED+") is RULES["CANCELLED"]
    assert rule("completing") is RULES["COMPLETING"]
    assert rule("NEW_WORD") is None
    assert rule(None) is None


@pytest.mark.parametrize("state", ["unknown", "running", "pending"])
async def test_a_word_that_nobody_knows_is_never_an_end(site, jobs, state):
    site.plan(answer(state, "NEW_WORD"), answer("ended", result=DONE))
    told = []
    await run(jobs, told=told)
    assert told[-1].state == state


async def test_not_being_seen_is_unknown_and_never_an_end(site, jobs):
    site.plan(*[answer("unknown", None, reason="squeue does not answer")] * 30, answer("ended", result=DONE))
    told = []
    await run(jobs, told=told)
    assert told[-1].state == "unknown"
    assert told[-1].reason == "squeue does not answer"


async def test_a_result_may_come_late(site, jobs):
    site.plan(answer("ended", "COMPLETED"), answer("ended", "COMPLETED"), answer("ended", "COMPLETED", result=DONE))
    told = []
    assert (await run(jobs, told=told)).result == DONE
    assert told[-1].reason == "The job has ended; its result is not to be seen yet."


async def test_no_result_after_the_grace_time_is_a_failure_with_the_schedulers_log(site, jobs):
    site.plan(answer("ended", "FAILED", exit_code=2))
    site.files[f"jobs/{KEY}/stderr"] = b""
    site.files[f"jobs/{KEY}/batch.log"] = b"python3: can't open file 'job.py'"
    with pytest.raises(JobFailed, match=r"exit code 2.*left no result.*can't open file"):
        await run(jobs)


async def test_a_failed_result_says_what_and_carries_the_rest(site, jobs):
    failed = {"ok": False, "exit_codes": [0], "problems": ["movies.star has no rows"], "report": {"rows": {}}}
    site.plan(answer("ended", "COMPLETED", result=failed))
    with pytest.raises(JobFailed, match=r"movies\.star has no rows") as caught:
        await run(jobs)
    assert caught.value.result == failed


@pytest.mark.parametrize(
    ("word", "problem", "error"),
    [
        ("CANCELLED by 0", "The job was ended from outside (SIGTERM).", JobCancelled),
        ("TIMEOUT", "The job reached its time limit of 5 minutes.", JobFailed),
        ("PREEMPTED", "The job was ended from outside (SIGTERM).", JobLost),
    ],
)
async def test_why_a_job_was_ended_from_outside_is_the_schedulers_to_say(site, jobs, word, problem, error):
    stopped = {"ok": False, "exit_codes": [-15], "problems": [problem], "ended_by": "SIGTERM"}
    site.plan(answer("ended", "COMPLETING", result=stopped), answer("ended", word, result=stopped))
    with pytest.raises(error):
        await run(jobs)


async def test_lost_links_are_waited_through(site, jobs):
    site.plan(answer("running", "RUNNING"), answer("running", "RUNNING"), answer("ended", result=DONE))
    site.fail("submit", LinkLost("cut in the middle"), AgentRestarted("new agent"))
    site.fail("poll", LinkLost("gone"), SchedulerError("squeue: no answer"), AgentRestarted("new agent"))
    told = []
    assert (await run(jobs, told=told)).result == DONE
    assert site.count("submit") == 3
    assert len(site.submitted) == 1
    assert [status.state for status in told][-2:] == ["unknown", "running"]


async def test_a_refused_link_does_not_end_a_job(site, jobs):
    site.plan(answer("ended", result=DONE))
    site.refused = True
    told = []
    task = asyncio.create_task(run(jobs, told=told))
    await asyncio.sleep(0.05)
    assert not task.done()
    assert told[-1].reason == "your account is not known there"
    site.refused = False
    assert (await task).result == DONE


@pytest.mark.parametrize("error", [SchedulerError("invalid partition"), DiskFull("no room", where="home")])
async def test_a_refused_submission_is_an_error_at_once(site, jobs, error):
    site.fail("submit", error)
    with pytest.raises(type(error)):
        await run(jobs)
    assert site.count("submit") == 1


async def test_a_scheduler_that_is_down_is_waited_for(site, jobs):
    site.fail("submit", SchedulerError("slurmctld is down", retry=True))
    site.plan(answer("ended", result=DONE))
    assert (await run(jobs)).result == DONE


async def test_cancelling_a_running_job(site, jobs):
    site.plan(answer("running", "RUNNING"))
    task = asyncio.create_task(run(jobs))
    await asyncio.sleep(0.03)
    await jobs.cancel(KEY)
    site.plan(answer("ended", "CANCELLED by 51001"))
    with pytest.raises(JobCancelled, match=r"The job was cancelled\.$"):
        await task
    assert site.count("cancel") == 1


async def test_cancelling_waits_through_a_lost_link(site, jobs):
    site.plan(answer("running", "RUNNING"))
    task = asyncio.create_task(run(jobs))
    await asyncio.sleep(0.03)
    site.link_is_up.clear()
    cancelling = asyncio.create_task(jobs.cancel(KEY))
    await asyncio.sleep(0.05)
    assert not cancelling.done()
    site.plan(answer("ended", "CANCELLED"))
    site.link_is_up.set()
    await cancelling
    with pytest.raises(JobCancelled):
        await task


async def test_cancelling_before_the_site_was_reached_submits_nothing(site, jobs):
    site.link_is_up.clear()
    task = asyncio.create_task(run(jobs))
    await asyncio.sleep(0.03)
    await asyncio.wait_for(jobs.cancel(KEY), 1)
    with pytest.raises(JobCancelled, match="before it was submitted"):
        await task
    assert site.count("submit") == 0


async def test_cancelling_a_doubtful_submission_makes_sure_and_cancels(site, jobs):
    site.plan(answer("ended", "CANCELLED"))
    site.fail("submit", LinkLost("no answer to the submission"))
    told = []

    def on_change(status):
        told.append(status)
        if status.reason:
            asyncio.get_running_loop().create_task(jobs.cancel(KEY))

    with pytest.raises(JobCancelled):
        await asyncio.wait_for(jobs.run(KEY, SPEC, on_change=on_change), 5)
    assert [call[0] for call in site.calls if call[0] != "poll"][:3] == ["submit", "submit", "cancel"]


async def test_a_result_that_came_before_the_cancelling_counts(site, jobs):
    site.plan(answer("running", "RUNNING"))
    task = asyncio.create_task(run(jobs))
    await asyncio.sleep(0.03)
    site.plan(answer("ended", "COMPLETED", result=DONE))
    await jobs.cancel(KEY)
    assert (await task).result == DONE


async def test_cancelling_a_job_that_the_scheduler_has_forgotten_ends_it(site, jobs):
    site.plan(answer("unknown", None, reason="The scheduler does not show it."))
    task = asyncio.create_task(run(jobs))
    await asyncio.sleep(0.05)
    assert not task.done()
    await jobs.cancel(KEY)
    with pytest.raises(JobCancelled):
        await task


async def test_ending_the_following_touches_no_job(site, jobs):
    site.plan(answer("running", "RUNNING"))
    task = asyncio.create_task(run(jobs))
    await asyncio.sleep(0.03)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert site.count("cancel") == 0
    site.plan(answer("ended", result=DONE))
    assert (await run(jobs)).result == DONE, "it is adopted again"


async def test_a_second_start_of_the_same_job_means_that_the_first_is_dead(site, jobs):
    site.plan(answer("ended", "FAILED", exit_code="76:0"))
    site.files[f"jobs/{KEY}/claim/owner.json"] = json.dumps({"job_id": "7", "host": "n1"}).encode()
    with pytest.raises(JobLost, match="second time"):
        await run(jobs)


async def test_another_job_that_holds_the_claim_is_waited_for(site, jobs):
    site.plan(*[answer("ended", "FAILED", exit_code="76:0")] * 30, answer("ended", result=DONE))
    site.files[f"jobs/{KEY}/claim/owner.json"] = json.dumps({"job_id": "6", "host": "n2"}).encode()
    told = []
    assert (await run(jobs, told=told)).result == DONE
    assert (told[-1].state, "job 6 on n2" in told[-1].reason) == ("unknown", True)


async def test_a_listener_that_fails_harms_nobody(site, jobs, caplog):
    site.plan(answer("running", "RUNNING"), answer("ended", result=DONE))

    def bad(status):
        raise RuntimeError("listener")

    assert (await asyncio.wait_for(jobs.run(KEY, SPEC, on_change=bad), 5)).result == DONE
    assert "a listener failed" in caplog.text


async def test_nonsense_from_the_site_is_not_believed(site, jobs):
    site.plan(
        "nonsense",
        {"state": 7, "result": "yes", "progress": [], "job_id": None, "exit_code": {}},
        answer("ended", result=DONE),
    )
    assert (await run(jobs)).result == DONE


@pytest.mark.parametrize("key", ["", "../x", "a b", "a;b", "-a", "a\n", "x" * 200])
async def test_unsafe_keys(jobs, key):
    with pytest.raises(InvalidParameter):
        await jobs.run(key, SPEC, on_change=print)
    with pytest.raises(InvalidParameter):
        await jobs.cancel(key)


def test_batch_script():
    options = BatchOptions(
        name=KEY, partition="batch", account="dcde", walltime_minutes=20, cores=2, memory_mb=900, gpus=1
    )
    lines = batch_script(options, "/opt/my python/bin/python").splitlines()
    assert lines[0] == "#!/bin/bash"
    assert f"#SBATCH --job-name={KEY}" in lines
    assert {"#SBATCH --no-requeue", "#SBATCH --partition=batch", "#SBATCH --account=dcde"} < set(lines)
    assert {"#SBATCH --time=20", "#SBATCH --mem=900", "#SBATCH --gpus-per-node=1"} < set(lines)
    assert lines[-1] == "exec '/opt/my python/bin/python' job.py"


@pytest.mark.parametrize(
    "bad", [{"partition": "a\n#SBATCH --uid=0"}, {"account": "$(id)"}, {"name": "a b"}, {"cores": 0}, {"memory_mb": -1}]
)
def test_batch_options_are_of_a_safe_alphabet(bad):
    good = {"name": KEY, "walltime_minutes": 1, "cores": 1, "memory_mb": 1}
    with pytest.raises(ValidationError):
        BatchOptions.model_validate(good | bad)
