"""Durable jobs in real Slurm at real sites, from submission to every kind of end."""

import re

import pytest

from .conftest import wait_for

HOLD = "echo $$ >{key}.pid; until [ -e {key}.go ]; do sleep 0.1; done; echo done >{key}.done"


def hold(key):
    """Return a wish whose job runs until <key>.go appears in the project."""
    return {"script": HOLD.replace("{key}", key)}


def release(follower):
    follower.at_site("touch", f"{follower.project}/{follower.key}.go", user=follower.account)


@pytest.mark.parametrize("site", ["bnl-sdcc", "ornl-cades", "anl-lcrc"])
def test_a_job_runs_under_the_persons_own_account(follow, site):
    follower = follow(site, f"demo-r1-{site}-a1", {"script": "id -un; pwd"})
    end = follower.end()
    assert end["result"]["ok"] is True, end
    assert f"\n{follower.account}\n{follower.project}\n" in follower.record("stdout")
    shown = follower.at_site("scontrol", "show", "job", end["result"]["slurm_job_id"])
    assert f"UserId={follower.account}(" in shown
    assert f"JobName={follower.key}" in shown
    assert "Account=dcde" in shown
    assert "Requeue=0" in shown
    assert len(follower.starts()) == 1


def test_a_follower_that_dies_is_replaced_and_nothing_runs_twice(follow):
    first = follow("bnl-sdcc", "demo-r2-adopt-a1", hold("demo-r2-adopt-a1"))
    job_id = first.wait_state("running")["job_id"]
    first.kill()
    second = follow("bnl-sdcc", first.key, hold(first.key))
    assert second.wait_state("running")["job_id"] == job_id
    release(second)
    assert second.end()["result"]["slurm_job_id"] == job_id
    third = follow("bnl-sdcc", first.key, hold(first.key))
    assert third.end()["result"]["slurm_job_id"] == job_id
    assert len(third.starts()) == 1


def test_a_follower_killed_in_the_middle_of_submitting(follow):
    keys = [f"demo-r3-s{number}-a1" for number in range(4)]
    for number, key in enumerate(keys):
        dying = follow("ornl-cades", key, {"script": "true"})
        wait_for(lambda dying=dying: dying.lines, f"{key} is being submitted; {dying.said}")
        if number % 2:
            dying.wait_state("pending") if number == 3 else None
        dying.kill()
        living = follow("ornl-cades", key, {"script": "true"})
        assert living.end()["result"]["ok"] is True
        assert len(living.starts()) == 1
        names = living.at_site("squeue", "-h", "-t", "all", "-n", key, "-o", "%i").split()
        assert len(names) == 1


def test_a_second_batch_job_of_the_same_attempt_ends_itself(follow):
    first = follow("bnl-sdcc", "demo-r4-twice-a1", hold("demo-r4-twice-a1"))
    first.wait_state("running")
    wait_for(first.starts, "the first start")
    again = 'cd ~/.dcde/jobs/"$1" && sbatch --parsable batch.sh'
    number = first.at_site("sh", "-c", again, "sh", first.key, user=first.account).strip()
    state = ["scontrol", "-o", "show", "job", number]
    wait_for(lambda: "ExitCode=76:0" in first.at_site(*state), "the second job has ended itself")
    release(first)
    end = first.end()
    assert end["result"]["ok"] is True
    assert end["result"]["slurm_job_id"] != number
    assert first.record("stdout").startswith("+ bash -c"), "the second start has not wiped the log of the first"
    assert len(first.starts()) == 1


def test_cancelling_ends_the_application_and_is_noted(follow):
    follower = follow("ornl-cades", "demo-r5-cancel-a1", hold("demo-r5-cancel-a1"), "--cancel")
    end = follower.end()
    assert end["error"]["code"] == "JobCancelled", end
    assert follower.at_site("squeue", "-h", "-t", "R,PD,CG", "-n", follower.key) == ""
    assert follower.starts() == [] or len(follower.starts()) == 1
    assert "until [" not in follower.at_site("ps", "-eo", "args", node="n1")


def test_a_job_that_the_site_cancels(follow):
    follower = follow("bnl-sdcc", "demo-r6-scancel-a1", hold("demo-r6-scancel-a1"))
    status = follower.wait_state("running")
    wait_for(follower.starts, "its start")
    follower.at_site("scancel", status["job_id"])
    end = follower.end()
    assert end["error"]["code"] == "JobCancelled", end
    assert "at the site" in end["error"]["message"]
    assert '"ended_by": "SIGTERM"' in follower.record("result.json")


def test_a_job_whose_program_is_killed(follow):
    follower = follow("bnl-sdcc", "demo-r7-kill-a1", hold("demo-r7-kill-a1"))
    node = follower.wait_state("running")["node"]
    wait_for(follower.starts, "its start")
    node = {"n1": "n1", "n2": "n2"}[re.search(r"n[12]$", node)[0]]
    pids = follower.at_site("pgrep", "-u", follower.account, "-f", "job[.]py", node=node).split()
    follower.at_site("kill", "-9", *pids, node=node)
    end = follower.end()
    assert end["error"]["code"] == "JobFailed", end
    assert "left no result" in end["error"]["message"]
    assert "until [" not in follower.at_site("ps", "-eo", "args", node=node)


def test_a_silent_cut_during_which_the_job_ends(follow, jobs_world):
    follower = follow("anl-lcrc", "demo-r8-cut-a1", hold("demo-r8-cut-a1"))
    follower.wait_state("running")
    jobs_world.cut("anl-lcrc")
    try:
        release(follower)
        wait_for(lambda: "ok" in follower.record("result.json"), "the result at the site")
        follower.wait_state("unknown")
    finally:
        jobs_world.mend("anl-lcrc")
    assert follower.end()["result"]["ok"] is True
    assert len(follower.starts()) == 1


def test_a_disk_that_the_job_fills(follow):
    follower = follow("anl-lcrc", "demo-r9-full-a1", {"script": "head -c 40000000 /dev/zero >big"})
    end = follower.end()
    assert end["error"]["code"] == "JobFailed", end
    assert "full" in end["error"]["message"] or "No space left" in end["error"]["message"]
    assert "Make room" in end["error"]["remedy"]
    follower.at_site("rm", f"{follower.project}/big", user=follower.account)


def test_a_partition_that_is_not_there(follow):
    end = follow("bnl-sdcc", "demo-r10-part-a1", {"script": "true", "partition": "nowhere"}).end()
    assert end["error"]["code"] == "SchedulerError", end
    assert "artition" in end["error"]["message"]


@pytest.mark.long
def test_a_job_over_its_time_limit(follow):
    wish = hold("demo-r11-time-a1") | {"resources": {"walltime_minutes": 1}}
    end = follow("bnl-sdcc", "demo-r11-time-a1", wish).end(240)
    assert end["error"]["code"] == "JobFailed", end
    assert "time limit" in end["error"]["message"]
    assert "more time" in end["error"]["remedy"]


@pytest.mark.long
def test_a_node_that_dies_makes_the_job_lost(follow, jobs_world):
    follower = follow("ornl-cades", "demo-r12-node-a1", hold("demo-r12-node-a1"))
    node = re.search(r"n[12]$", follower.wait_state("running")["node"])[0]
    jobs_world.stop_node("ornl-cades", node)
    try:
        end = follower.end(400)
    finally:
        jobs_world.start_node("ornl-cades", node)
    assert end["error"]["code"] == "JobLost", end
    assert end["error"]["retry"] is True


def test_no_password_or_key_in_what_was_submitted(follow):
    follower = follow("bnl-sdcc", "demo-r13-plain-a1", {"script": "env; cat /proc/$$/cmdline"})
    assert follower.end()["result"]["ok"] is True
    said = "".join(follower.record(name) for name in ("stdout", "job.json", "batch.sh"))
    assert not re.search(r"(?i)token|password|PRIVATE KEY", said)
