"""Laboratories for tests of the engine's logic: folders with the agent's own file functions, and a scheduler in memory.

- `Laboratory`: one site. It outlives runners, counts what was started, and its jobs do as the test says.
- `LaboratoryLink`: what the runner holds instead of an ssh connection; it can be cut and mended.
- `Power`: counts the points at which a runner could die, and at the one chosen nothing of it happens any more.
- `TEMPLATE` and `render`: a renderer whose steps copy and write small files, and a template of four steps with it.

Only the engine's own tests use these; what speaks to real parts is tested against real parts.
"""

from __future__ import annotations

import asyncio
import base64
import json
import time
from concurrent.futures import Future
from pathlib import Path

import dcde.errors
from dcde.agent import files, globs
from dcde.agent.paths import Root
from dcde.agent.protocol import OpError
from dcde.errors import LinkLost
from dcde.link.state import LinkState
from dcde.pipelines.model import InputRef, StepPlan

__all__ = ["TEMPLATE", "Future", "Laboratory", "LaboratoryLink", "Power", "render"]

JOB_TYPES = {"letters.write", "letters.join"}

TEMPLATE = """
format: 1
name: letters
title: Letters
description: Four steps in a diamond.
version: "1"
renderer: letters
parameters:
  - {name: text, title: Text, type: text, default: x}
  - {name: raw, title: Raw files, type: files, required: false}
raw:
  - {parameter: raw, target: Raw}
steps:
  - {id: first, title: First, type: letters.write, site: bnl-sdcc}
  - {id: left, title: Left, type: letters.join, site: bnl-sdcc, inputs: {a: first}}
  - {id: right, title: Right, type: letters.join, site: ornl-cades, inputs: {a: first}}
  - {id: last, title: Last, type: letters.join, site: anl-lcrc, inputs: {a: left, b: right}}
"""


def render(request):
    """Return a step that needs its inputs' files and writes one of its own."""
    folder = f"Letters/job{request.number:03d}"
    inputs = [InputRef(step=plan.id, patterns=[f"{plan.job_dir}/*.txt"]) for plan in request.inputs.values()]
    if request.raw and not request.inputs:
        inputs.append(InputRef(step=None, patterns=["Raw/*"]))
    needs = [f"{plan.job_dir}/{plan.id}.txt" for plan in request.inputs.values()]
    return StepPlan(
        id=request.id,
        title=request.title,
        job_type=request.job_type,
        job_dir=folder,
        default_site=request.site,
        after=request.after,
        inputs=inputs,
        commands=[["need", *needs], ["write", f"{folder}/{request.id}.txt"]],
        outputs=[folder],
        application="writing",
    )


class Power:
    """Counts points; from point `last` on (None: never) whatever passes one waits for ever."""

    def __init__(self, last=None):
        self.last = last
        self.count = 0
        self.off = asyncio.Event()
        if last == 0:
            self.off.set()

    def passed(self):
        """Count one point and tell whether the runner is still alive after it."""
        if self.off.is_set():
            return False
        self.count += 1
        if self.last is not None and self.count > self.last:
            self.off.set()
            return False
        return True

    async def point(self):
        if not self.passed():
            await asyncio.Event().wait()


class Job:
    def __init__(self, key, number, spec):
        self.key = key
        self.step = spec["title"].lower()
        self.job_id = str(number)
        self.spec = spec
        self.state = "pending"
        self.slurm_state = "PENDING"
        self.result = None
        self.exit_code = None

    @property
    def owner(self):
        project, run, step = self.key.split("-r")[0], self.key.split("-r")[1].split("-")[0], self.step
        return project, run, step


class Laboratory:
    """A site.

    Attributes:
        held: Steps whose jobs stay running until they are taken out; `pending` those whose jobs stay in the queue.
        fates: For a step, the fates of its next jobs: `fail`, `lost` or `ok`; none left means `ok`.
        starts: The keys whose jobs began, in order.
        most_live: For each step of a run, the most jobs that were live at once.
    """

    def __init__(self, folder: Path, account="u12345"):
        self.storage = folder / "storage"
        self.records = folder / "records"
        for made in (self.storage, self.records):
            made.mkdir(parents=True)
        self.roots = {"storage": Root(str(self.storage)), "records": Root(str(self.records))}
        self.jobs = {}
        self.held = set()
        self.pending = set()
        self.fates = {}
        self.starts = []
        self.submissions = []
        self.most_live = {}
        self.reads = []
        self.refuse_submission = None
        self.early = []

    def project(self, name):
        return self.storage / "projects" / name

    def submit(self, key, files, options):
        if self.refuse_submission:
            raise self.refuse_submission
        if key in self.jobs:
            return {"job_id": self.jobs[key].job_id, "how": "attached"}
        record = self.records / "jobs" / key
        record.mkdir(parents=True)
        for name, text in files.items():
            (record / name).write_text(text)
        job = self.jobs[key] = Job(key, len(self.jobs) + 1, json.loads(files["job.json"]))
        self.submissions.append((key, options))
        live = [j for j in self.jobs.values() if j.owner == job.owner and j.state != "ended"]
        self.most_live[job.owner] = max(self.most_live.get(job.owner, 0), len(live))
        return {"job_id": job.job_id, "how": "new"}

    def poll(self, keys):
        for job in list(self.jobs.values()):
            self._go_on(job)
        return {key: self._status(key) for key in keys}

    def _status(self, key):
        job = self.jobs.get(key)
        if job is None:
            return {"state": "unknown", "reason": "gone: no such job"}
        return {
            "state": job.state,
            "slurm_state": job.slurm_state,
            "job_id": job.job_id,
            "node": "n1",
            "exit_code": job.exit_code,
            "result": job.result,
            "progress": {"fraction": 0.5, "pictures": self.early} if job.state == "running" else None,
        }

    def _go_on(self, job):
        if job.state == "pending" and job.step not in self.pending:
            job.state, job.slurm_state = "running", "RUNNING"
            self.starts.append(job.key)
        elif job.state == "running" and job.step not in self.held:
            self._finish(job)

    def _finish(self, job):
        job.state = "ended"
        fates = self.fates.get(job.step, [])
        fate = fates.pop(0) if fates else "ok"
        if fate == "lost":
            job.slurm_state = "NODE_FAIL"
            return
        problems = self._run(job)
        record = self.records / "jobs" / job.key
        (record / "stdout").write_text("went well é\n")
        if fate == "fail":
            problems.append("It did not converge.")
            (record / "stderr").write_text("first\nbad news\n")
        job.slurm_state = "COMPLETED" if not problems else "FAILED"
        now = time.time()
        job.result = {
            "ok": not problems,
            "problems": problems,
            "exit_codes": [0],
            "started": now - 1,
            "ended": now,
            "host": "n1",
            "slurm_job_id": job.job_id,
            "report": {"ok": not problems, "rows": {"a.star": 3}, "metrics": {}, "pictures": self.pictures(record)},
        }

    def pictures(self, record):
        return []

    def _run(self, job):
        project = self.project(job.spec["project"])
        if not project.is_dir():
            return ["no project folder"]
        problems = []
        for name, *paths in job.spec["commands"]:
            for path in paths:
                if name == "need" and not (project / path).is_file():
                    problems.append(f"{path} is missing")
                if name == "write":
                    (project / path).parent.mkdir(parents=True, exist_ok=True)
                    (project / path).write_text(job.key)
        return problems

    def cancel(self, key):
        job = self.jobs.get(key)
        if job is not None and job.state != "ended":
            job.state, job.slurm_state = "ended", "CANCELLED by 1001"
        return {"job_id": job.job_id if job else None}

    def carry_out(self, op, a):
        root = self.roots[a.get("root", "storage")]
        table = {
            "list": lambda: files.list_folder(root, a["path"], a.get("limit", 2000)),
            "stat": lambda: files.look(root, a["path"]),
            "glob": lambda: globs.find(root, a["patterns"]),
            "mkdir": lambda: files.make_folder(root, a["path"], a.get("parents", False)),
            "remove": lambda: files.remove(root, a["path"], a.get("recursive", False)),
            "link": lambda: files.link(root, a["path"], a["target"]),
            "checksum": lambda: files.checksum(root, a["path"]),
            "tail": lambda: files.tail(root, a["path"], a["offset"], a.get("limit", 65536)),
            "free": lambda: {"total": 10**9, "available": 10**9},
            "queue": lambda: dict.fromkeys(
                ("running", "pending", "mine_running", "mine_pending", "nodes_idle", "nodes_total", "nodes_down"), 1
            ),
            "submit": lambda: self.submit(a["key"], a["files"], a["options"]),
            "poll": lambda: self.poll(a["keys"]),
            "cancel": lambda: self.cancel(a["key"]),
        }
        try:
            return table[op]()
        except OpError as error:
            cls = getattr(dcde.errors, error.code)
            raise cls(error.message, where=error.where, remedy=error.remedy, retry=error.retry) from error


class LaboratoryLink:
    """A link to a laboratory in the same process."""

    def __init__(self, site, laboratory, power):
        self.site = site
        self.laboratory = laboratory
        self.power = power
        self.state = LinkState("connecting", time.time())
        self.subscribers = []
        self.changed = asyncio.Condition()
        self.closed = False

    async def start(self):
        self._set("up")

    async def close(self):
        self.closed = True
        self._set("lost")

    def cut(self):
        self._set("lost")

    def mend(self):
        self._set("up")

    def _set(self, name):
        self.state = LinkState(name, time.time(), login_host="login")
        for callback in list(self.subscribers):
            callback(self.state)
        self._told = asyncio.get_running_loop().create_task(self._tell())

    async def _tell(self):
        async with self.changed:
            self.changed.notify_all()

    def subscribe(self, callback):
        self.subscribers.append(callback)
        return lambda: self.subscribers.remove(callback)

    async def up(self, timeout=None):
        try:
            async with asyncio.timeout(timeout), self.changed:
                await self.changed.wait_for(lambda: self.state.name == "up")
        except TimeoutError:
            raise LinkLost("the link is down", where=self.site.name) from None

    async def call(self, op, *, timeout=60, **args):
        if self.state.name != "up":
            raise LinkLost("the link is down", where=self.site.name)
        await self.power.point()
        result = self.laboratory.carry_out(op, args)
        await self.power.point()
        if self.state.name != "up":
            raise LinkLost("the link went down", where=self.site.name)
        return result

    async def read(self, path, *, root="storage", offset=0, length=None):
        answer = await self.call("tail", path=path, root=root, offset=offset, limit=length or 10**9)
        self.laboratory.reads.append(path)
        yield base64.b64decode(answer["data_base64"])

    async def write(self, path, chunks, *, root="storage", mode=0o600):
        writing = files.Writing(self.laboratory.roots[root], path, mode)
        writing.open()
        try:
            async for chunk in chunks:
                writing.add(chunk)
            await self.power.point()
            result = writing.finish()
            await self.power.point()
            return result
        finally:
            writing.close()
