"""The near end of a link, run in the hub's room of a world; prints one JSON line for each thing a test waits for.

near_end.py SCENARIO SITE ACCOUNT PRINCIPAL CA_KEY
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import asyncssh
from dcde.credentials import Login
from dcde.errors import DcdeError
from dcde.link import Link
from dcde_models.sites import SiteDescriptor

BATCH = "#!/bin/bash\nmkdir claim || exit 0\nhostname -s >>starts\nsleep {seconds}\necho done; exit {code}\n"


def say(**words: Any) -> None:
    print(json.dumps(words), flush=True)


class Authority:
    """Signs with the CA that the site trusts."""

    def __init__(self, account: str, principal: str, ca: str) -> None:
        self.account, self.principal = account, principal
        self.ca = asyncssh.read_private_key(ca)

    async def certificate(self, site: str) -> Login:
        key = asyncssh.generate_private_key("ssh-ed25519")
        certificate = self.ca.generate_user_certificate(
            key, "test", principals=[self.principal], valid_after="-1m", valid_before="+10m"
        )
        return Login(self.account, self.principal, time.time() + 600, key, certificate)


def descriptor(name: str) -> SiteDescriptor:
    facts = json.loads(Path("/var/lib/dcde/world.json").read_text())["sites"][name]
    return SiteDescriptor.model_validate(
        {
            "name": name,
            "title": facts["title"],
            "ssh": {"hosts": facts["hosts"], "port": facts["port"], "host_keys": [facts["host_key"]]},
            "scheduler": {
                "nodes": facts["nodes"],
                "partitions": [
                    {**p, "cores_per_node": facts["cores_per_node"], "memory_mb_per_node": facts["memory_mb_per_node"]}
                    for p in facts["partitions"]
                ],
            },
            "storage": {"root": facts["storage_root"]},
        }
    )


async def ended(link: Link, keys: list[str]) -> dict[str, Any]:
    """Poll until every job has ended; the states on the way are collected under `seen`."""
    seen: dict[str, list[str]] = {key: [] for key in keys}
    async with asyncio.timeout(60):
        while True:
            found = await link.call("poll", keys=keys)
            for key, status in found.items():
                if status["state"] not in seen[key]:
                    seen[key].append(status["state"])
            if all(status["state"] == "ended" for status in found.values()):
                return {key: {**found[key], "seen": seen[key]} for key in keys}
            await asyncio.sleep(0.2)


async def jobs(link: Link) -> None:
    options = {
        "partition": "batch",
        "account": "dcde",
        "walltime_minutes": 5,
        "cores": 2,
        "memory_mb": 200,
        "name": "Import",
    }
    files = {"batch.sh": BATCH.format(seconds=1, code=0)}
    answers = await asyncio.gather(
        *(link.call("submit", key="t-r1-s-a1", files=files, options=options) for _ in range(3))
    )
    say(what="submitted", answers=answers)
    await link.call("remove", path="jobs/t-r1-s-a1/jobid", root="records")
    say(what="again", answer=await link.call("submit", key="t-r1-s-a1", files=files, options=options))
    bad = {"batch.sh": BATCH.format(seconds=0, code=3)}
    await link.call("submit", key="t-r1-bad-a1", files=bad, options=options)
    await link.call(
        "submit", key="t-r1-long-a1", files={"batch.sh": BATCH.format(seconds=100, code=0)}, options=options
    )
    await link.call("cancel", key="t-r1-long-a1")
    found = await ended(link, ["t-r1-s-a1", "t-r1-bad-a1", "t-r1-long-a1"])
    say(what="ended", jobs=found)
    tail = await link.call("tail", path="jobs/t-r1-s-a1/starts", root="records", offset=0)
    say(what="starts", tail=tail["data_base64"])
    say(what="queue", queue=await link.call("queue"))
    try:
        await link.call("submit", key="t-r1-no-a1", files=files, options={**options, "partition": "nowhere"})
    except DcdeError as error:
        say(what="refused", error=error.to_json())
    await link.call("forget", key="t-r1-s-a1")
    say(what="left", entries=(await link.call("list", path="jobs", root="records"))["entries"])


async def cut(link: Link) -> None:
    files = {"batch.sh": BATCH.format(seconds=1, code=0)}
    link.subscribe(lambda state: say(what=state.name, at=time.time(), reason=state.reason))
    say(what="cut me", at=time.time())
    await asyncio.sleep(0.5)
    keys = [f"t-r2-s{n}-a1" for n in range(5)]
    answers = await asyncio.gather(
        *(link.call("submit", key=key, files=files, options={}, timeout=None) for key in keys)
    )
    say(what="submitted", answers=answers)
    found = await ended(link, keys)
    say(
        what="ended", starts=[(await link.call("stat", path=f"jobs/{k}/starts", root="records"))["size"] for k in found]
    )


async def full(link: Link) -> None:
    async def chunks(size: int) -> AsyncIterator[bytes]:
        for _ in range(size):
            yield bytes(1 << 20)

    try:
        await link.write("too-big", chunks(64))
    except DcdeError as error:
        say(what="full", error=error.to_json())
    say(what="left", entries=(await link.call("list", path=""))["entries"])
    answer = await link.write("fits", chunks(2))
    say(what="fits", equal=answer["sha256"] == hashlib.sha256(bytes(2 << 20)).hexdigest())


async def main() -> None:
    scenario, site, account, principal, ca = sys.argv[1:]
    with tempfile.TemporaryDirectory() as state:
        link = Link(descriptor(site), Authority(account, principal, ca), state_dir=Path(state))
        await link.start()
        await link.up(60)
        try:
            await {"jobs": jobs, "cut": cut, "full": full}[scenario](link)
        finally:
            await link.close()


asyncio.run(main())
