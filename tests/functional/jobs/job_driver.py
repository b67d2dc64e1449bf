"""Follows one durable job from inside a world, as a runner would: real link, real agent, real Slurm.

    job_driver.py SITE KEY JOB_JSON [--cancel]

JOB_JSON has `script` (run by bash in the project folder) and what else `JobSpec` may take. Each status and the end are
printed as a line of JSON. With --cancel the job is cancelled as soon as it runs.
"""

import asyncio
import json
import sys
import tempfile
import time
from dataclasses import asdict
from pathlib import Path

import asyncssh
from dcde.credentials import Login
from dcde.errors import DcdeError
from dcde.jobs.durable import DurableJobs
from dcde.jobs.spec import JobSpec
from dcde.link import Link
from dcde_demo.sites import descriptor

ACCOUNT = {"bnl-sdcc": "u12345", "ornl-cades": "d7c", "anl-lcrc": "drivers"}


class Authority:
    """Signs as the broker would, with the CA that the site trusts."""

    async def certificate(self, site):
        authority = asyncssh.read_private_key(f"/var/lib/dcde/onboarding/{site}/user_ca")
        key = asyncssh.generate_private_key("ssh-ed25519")
        principal = f"dcde1000001@{site}"
        signed = authority.generate_user_certificate(
            key, "test", principals=[principal], valid_after="-1m", valid_before="+10m"
        )
        return Login(ACCOUNT[site], principal, time.time() + 600, key, signed)


def say(**line):
    print(json.dumps(line), flush=True)


def spec_of(site, wish):
    script = wish.pop("script")
    return JobSpec(
        title="Test",
        project="demo",
        storage_root=site.storage.root,
        interpreter=site.worker_interpreter,
        setup=site.environment.init,
        commands=[["bash", "-c", script]],
        allocation="dcde",
        **wish,
    )


async def main(site, key, wish, cancel):
    with tempfile.TemporaryDirectory() as state:
        link = Link(site, Authority(), state_dir=Path(state))
        await link.start()
        try:
            await link.up(30)
            await link.call("mkdir", path="projects/demo", parents=True)
            jobs = DurableJobs(link)
            done = asyncio.create_task(jobs.run(key, spec_of(site, wish), on_change=lambda s: told(jobs, s, cancel)))
            say(result=(await done).result)
        except DcdeError as error:
            say(error=error.to_json(), result=getattr(error, "result", None))
        finally:
            await link.close()


CANCELLING = set()


def told(jobs, status, cancel):
    say(status=asdict(status))
    if cancel and status.state == "running" and not CANCELLING:
        CANCELLING.add(asyncio.get_running_loop().create_task(jobs.cancel(status.key)))


if __name__ == "__main__":
    facts = json.loads(Path("/var/lib/dcde/world.json").read_text())["sites"][sys.argv[1]]
    asyncio.run(main(descriptor(sys.argv[1], facts), sys.argv[2], json.loads(sys.argv[3]), "--cancel" in sys.argv))
