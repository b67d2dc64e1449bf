"""A runner that plays a script: operations and events of the real one over the same socket, and no site behind it.

Started as `python scripted_runner.py` with `DCDE_RUNTIME_DIR` set. It notes the first line of its standard input in
`first_line.json` and each request in `requests.jsonl` there, so that a test can look. `DCDE_SCRIPT_STEP_S` is the
time of a step of a launched run, in seconds. A call of the operation `files.list` for the site `anl-lcrc` with the path
`crash` ends the process.
"""

from __future__ import annotations

import asyncio
import base64
import fcntl
import io
import json
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

from scripted_pictures import picture

FOLDER = Path(os.environ["DCDE_RUNTIME_DIR"])
STEP_S = float(os.environ.get("DCDE_SCRIPT_STEP_S", "1.0"))
NASTY = "<img src=x onerror=\"document.title='broken in'\">.mrc"
NOW = time.time()

STEPS = [
    ("import", "Import movies", "relion.import.movies", "bnl-sdcc", []),
    ("motioncorr", "Motion correction", "relion.motioncorr.own", "bnl-sdcc", ["import"]),
    ("ctffind", "CTF estimation", "relion.ctffind.ctffind4", "ornl-cades", ["motioncorr"]),
    ("autopick", "Particle picking", "relion.autopick.log", "ornl-cades", ["ctffind"]),
    ("extract", "Particle extraction", "relion.extract", "anl-lcrc", ["ctffind", "autopick"]),
    ("class2d", "2D classification", "relion.class2d", "anl-lcrc", ["extract"]),
]
PICTURES = {
    "motioncorr": [{"name": "micrograph", "title": "Aligned micrograph"}],
    "ctffind": [{"name": "power_spectrum", "title": "Power spectrum"}],
    "autopick": [{"name": "picks", "title": "Micrograph with picks"}],
    "class2d": [{"name": "classes", "title": "2D class averages"}],
}
METRICS = {
    "motioncorr": {"motion": {"value": 3.41, "unit": "Å", "title": "Mean total motion"}},
    "ctffind": {
        "resolution": {"value": 6.2, "unit": "Å", "title": "Fit to, median"},
        "defocus": {"value": 1.52, "unit": "µm", "title": "Defocus, median"},
    },
    "autopick": {"particles": {"value": 612, "unit": "", "title": "Particles picked"}},
    "class2d": {"classes": {"value": 8, "unit": "", "title": "Classes with particles"}},
}
SCHEMA = {
    "title": "First look",
    "type": "object",
    "additionalProperties": False,
    "required": ["movies", "pixel_size", "voltage", "diameter"],
    "properties": {
        "movies": {
            "title": "Movies", "type": "string", "x-order": 0, "x-group": "Data", "x-kind": "files",
            "description": "Your movies (mrc or tiff); * stands for any part of a name.",
            "default": "bnl-sdcc:movies/*.mrcs",
        },
        "gain": {
            "title": "Gain reference", "type": "string", "x-order": 1, "x-group": "Data", "x-kind": "file",
            "x-advanced": False, "description": "Leave empty when the movies are corrected already.",
        },
        "pixel_size": {
            "title": "Pixel size", "type": "number", "x-order": 2, "x-group": "Microscope", "x-kind": "number",
            "x-unit": "Å", "x-advanced": False, "default": 3.54, "minimum": 0.1, "maximum": 20,
        },
        "voltage": {
            "title": "Voltage", "type": "number", "x-order": 3, "x-group": "Microscope", "x-kind": "number",
            "x-unit": "kV", "x-advanced": False, "default": 300, "minimum": 80, "maximum": 400,
        },
        "dose": {
            "title": "Dose per frame", "type": "number", "x-order": 4, "x-group": "Microscope", "x-kind": "number",
            "x-unit": "e/Å²", "x-advanced": False, "default": 1.2, "minimum": 0, "maximum": 50,
        },
        "diameter": {
            "title": "Particle diameter", "type": "integer", "x-order": 5, "x-group": "Particles", "x-kind": "integer",
            "x-unit": "Å", "x-advanced": False, "default": 180, "minimum": 20, "maximum": 2000,
            "description": "Of the circle that just holds one particle.",
        },
        "classes": {
            "title": "Classes", "type": "integer", "x-order": 6, "x-group": "Particles", "x-kind": "integer",
            "x-advanced": True, "default": 8, "minimum": 1, "maximum": 200,
        },
        "symmetry": {
            "title": "Symmetry", "type": "string", "x-order": 7, "x-group": "Particles", "x-kind": "choice",
            "x-advanced": True, "default": "C1", "enum": ["C1", "C2", "D7"],
        },
        "ctf": {
            "title": "Correct for the CTF", "type": "boolean", "x-order": 8, "x-group": "Particles",
            "x-kind": "boolean", "x-advanced": True, "default": True,
        },
    },
}  # fmt: skip
TEMPLATE = {
    "name": "first-look",
    "title": "First look",
    "description": "From movies to 2D class averages: is this sample worth more time?",
    "version": "1.0",
}


class Refused(Exception):
    """An error of the runner, as it goes over the socket."""

    def __init__(self, code: str, message: str, where: str = "", remedy: str = "", retry: bool = False) -> None:
        super().__init__(message)
        self.body = {"code": code, "message": message, "where": where, "remedy": remedy, "retry": retry}


def site(name: str, title: str, account: str, **changes: Any) -> dict[str, Any]:
    return {
        "name": name, "title": title, "aliases": [name.split("-")[0]], "description": f"{title}, sample site",
        "state": "up", "reason": "", "remedy": "", "since": NOW - 7300, "account": account,
        "login_host": f"login.{name}.example",
        "queue": {"running": 3, "pending": 1, "mine_running": 1, "mine_pending": 0, "nodes_idle": 1, "nodes_total": 2,
                  "nodes_down": 0},
        "free": {"total": 2_000_000_000_000, "available": 1_234_000_000_000},
        "allocations": [{"name": "dcde", "remaining_hours": 412.5}],
        "capabilities": [
            {"action": "submit", "title": "run jobs", "allowed": True, "reason": "", "remedy": ""},
            {"action": "transfer.read", "title": "read files", "allowed": True, "reason": "", "remedy": ""},
            {"action": "transfer.write", "title": "write files", "allowed": True, "reason": "", "remedy": ""},
        ],
        "applications": {"relion": "3.1.3"},
        **changes,
    }  # fmt: skip


def tree() -> dict[str, dict[str, list[dict[str, Any]]]]:
    def file(name: str, size: int, age: float = 86400.0) -> dict[str, Any]:
        return {"name": name, "type": "file", "size": size, "mtime": NOW - age}

    def folder(name: str) -> dict[str, Any]:
        return {"name": name, "type": "folder", "size": 4096, "mtime": NOW - 3600}

    movies = [file(f"movie_{n:04d}.mrcs", 33_554_432 + n * 1000, 90_000 - n) for n in range(1, 13)]
    many = [file(f"frame_{n:05d}.tiff", 1_000_000 + n) for n in range(2500)]
    return {
        "bnl-sdcc": {
            "": [
                folder("movies"),
                folder("many"),
                folder("empty"),
                folder("projects"),
                file("notes.txt", 812),
                file(NASTY, 17),
            ],
            "movies": [*movies, file("gain.mrc", 4_194_304)],
            "many": many,
            "empty": [],
            "projects": [folder("first-look-1")],
            "projects/first-look-1": [],
        },
        "ornl-cades": {"": [folder("in"), folder("projects")], "in": [], "projects": []},
        "anl-lcrc": {"": [folder("projects")], "projects": []},
    }


class World:
    """What the scripted runner pretends to know."""

    def __init__(self) -> None:
        self.sites = [
            site("bnl-sdcc", "BNL SDCC", "u12345"),
            site("ornl-cades", "ORNL CADES", "d7c", queue=dict(running=0, pending=0, mine_running=0, mine_pending=0,
                                                               nodes_idle=2, nodes_total=2, nodes_down=0)),
            site("anl-lcrc", "ANL LCRC", "drivers"),
            site("olcf-test", "OLCF test cluster", "", state="unavailable", queue=None, free=None, allocations=[],
                 login_host="", applications={}, reason="You have no account at this site.",
                 remedy="Ask for one at accounts@olcf.example; your group cryoem may have it.",
                 capabilities=[{"action": "submit", "title": "run jobs", "allowed": False,
                                "reason": "You have no account at this site.",
                                "remedy": "Ask for one at accounts@olcf.example."}]),
        ]  # fmt: skip
        self.files = tree()
        self.runs: dict[str, dict[str, Any]] = {}
        self.transfers: dict[str, dict[str, Any]] = {}
        self.watchers: set[asyncio.Queue[dict[str, Any]]] = set()
        self.tasks: set[asyncio.Task[None]] = set()
        self.tokens: dict[str, str] = {}
        self._earlier_runs()

    def tell(self, kind: str, thing: dict[str, Any], **more: Any) -> None:
        for queue in self.watchers:
            queue.put_nowait(json.loads(json.dumps({"type": kind, **thing, **more})))

    def new_run(self, project: str, sites: dict[str, str], created: float) -> dict[str, Any]:
        run_id = f"r{len(self.runs) + 1}"
        steps = [
            {
                "id": name, "title": title, "job_type": job_type, "site": sites.get(name) or default,
                "site_wish": sites.get(name, default), "after": after, "state": "waiting",
                "why": "It waits for " + " and ".join(after) + "." if after else "It starts at once.", "attempt": 1,
                "job_id": None, "slurm_state": None, "node": None, "queued_at": None, "started": None, "ended": None,
                "fraction": None, "bytes_moved": 0, "metrics": {}, "rows": {}, "pictures": [], "problems": [],
                "error": None,
            }
            for name, title, job_type, default, after in STEPS
        ]  # fmt: skip
        for step in steps:
            if step["site"] == "auto":
                step.update(site="ornl-cades", why="ORNL CADES was chosen: 2 nodes are idle there.")
        run = {
            "id": run_id, "template": "first-look", "title": "First look", "project": project, "parameters": {},
            "state": "waiting", "reason": "", "created": created, "ended": None, "steps": steps,
        }  # fmt: skip
        self.runs[run_id] = run
        return run

    def _earlier_runs(self) -> None:
        done = self.new_run("first-look-1", {}, NOW - 90_000)
        for number, step in enumerate(done["steps"]):
            at = NOW - 89_900 + number * 55
            self.finish(step, at, at + 48)
        done.update(state="succeeded", ended=NOW - 89_500)
        failed = self.new_run("first-look-2", {}, NOW - 5400)
        for number, step in enumerate(failed["steps"][:2]):
            self.finish(step, NOW - 5300 + number * 60, NOW - 5260 + number * 60)
        problem = "ctffind: WARNING: unknown option --use_gctf is ignored"
        failed["steps"][2].update(
            state="failed", job_id="215", node="n2", started=NOW - 5100, ended=NOW - 5080, problems=[problem],
            error={"code": "JobFailed", "message": "The step delivered no CTF values.", "where": "ctffind",
                   "remedy": "Look at the end of its log, correct the parameter and resume.", "retry": True},
            why="",
        )  # fmt: skip
        for step in failed["steps"][3:]:
            step["why"] = "CTF estimation failed."
        failed.update(state="failed", ended=NOW - 5080, reason="CTF estimation failed at ORNL CADES.")

    def finish(self, step: dict[str, Any], started: float, ended: float) -> None:
        step.update(
            state="succeeded", why="", started=started, ended=ended, queued_at=started - 4, fraction=1.0, node="n1",
            job_id=step["job_id"] or str(200 + len(self.runs) * 10 + STEPS_BY_ID[step["id"]]),
            metrics=METRICS.get(step["id"], {}), pictures=PICTURES.get(step["id"], []),
            bytes_moved=12_582_912 if step["id"] in ("ctffind", "extract") else 0,
        )  # fmt: skip

    async def play(self, run: dict[str, Any]) -> None:
        """Let a launched run go its way."""
        run["state"] = "running"
        self.tell("run", run)
        for number, step in enumerate(run["steps"]):
            if step["state"] == "succeeded":
                continue
            if step["after"] and number in (2, 4):
                step.update(state="moving", why="12.6 MB are brought from BNL SDCC.", fraction=0.4)
                self.tell("step", step, run=run["id"])
                await asyncio.sleep(STEP_S * 0.3)
            step.update(state="queued", queued_at=time.time(), job_id=str(301 + number), slurm_state="PENDING",
                        fraction=None, why="The queue of the partition batch has one job before it.")  # fmt: skip
            self.tell("step", step, run=run["id"])
            await asyncio.sleep(STEP_S * 0.3)
            step.update(state="running", started=time.time(), slurm_state="RUNNING", node="n1", why="")
            for part in range(4):
                step["fraction"] = part / 4
                self.tell("step", step, run=run["id"])
                await asyncio.sleep(STEP_S / 4)
            self.finish(step, step["started"], time.time())
            self.tell("step", step, run=run["id"])
        run.update(state="succeeded", ended=time.time())
        self.tell("run", run)

    async def move(self, transfer: dict[str, Any]) -> None:
        """Let a copy go its way."""
        transfer.update(state="moving", started=time.time())
        for part in range(1, 21):
            if transfer["state"] != "moving":
                return
            transfer.update(bytes_done=transfer["bytes_total"] * part // 20, files_done=part // 10, rate=8_388_608.0)
            self.tell("transfer", transfer)
            await asyncio.sleep(STEP_S / 8)
        transfer.update(state="done", ended=time.time(), files_done=transfer["files_total"])
        self.tell("transfer", transfer)

    def background(self, work: Any) -> None:
        task = asyncio.create_task(work)
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)

    def folder_of(self, name: str, path: str) -> list[dict[str, Any]]:
        if name not in self.files:
            raise Refused("UnknownName", f"There is no site {name!r}.", name)
        if ".." in path.split("/") or path.startswith("/"):
            raise Refused("PathRefused", "The path leaves your folder.", path)
        if path not in self.files[name]:
            raise Refused("NotFound", "There is no such folder.", f"{name}:{path}")
        return self.files[name][path]

    def run_of(self, args: dict[str, Any]) -> dict[str, Any]:
        if args.get("run") not in self.runs:
            raise Refused("UnknownName", f"There is no run {args.get('run')!r}.", str(args.get("run")))
        return self.runs[args["run"]]


STEPS_BY_ID = {step[0]: number for number, step in enumerate(STEPS)}


def answer(world: World, op: str, args: dict[str, Any]) -> Any:
    match op:
        case "whoami":
            return {"dcde_id": "dcde1000001", "name": "David Rivers", "email": "drivers@pnnl.example",
                    "institution": "Pacific Northwest National Laboratory (sample)", "groups": ["dcde-users", "cryoem"],
                    "policies": {}, "trainings": {}}  # fmt: skip
        case "sites.list":
            return world.sites
        case "templates.list":
            return [TEMPLATE]
        case "templates.show":
            if args.get("name") != "first-look":
                raise Refused("UnknownName", "There is no such template.", str(args.get("name")))
            steps = [{"id": s[0], "title": s[1], "default_site": s[3]} for s in STEPS]
            return {**TEMPLATE, "schema": SCHEMA, "steps": steps}
        case "files.list":
            if args["site"] == "anl-lcrc" and args.get("path") == "crash":
                os._exit(3)
            entries = world.folder_of(args["site"], args.get("path", ""))
            return {"site": args["site"], "path": args.get("path", ""), "entries": entries, "truncated": False}
        case "files.mkdir":
            parent, _, name = args["path"].rpartition("/")
            entries = world.folder_of(args["site"], parent)
            if any(entry["name"] == name for entry in entries):
                raise Refused("AlreadyExists", f"There is already something called {name!r}.", args["path"])
            entries.append({"name": name, "type": "folder", "size": 4096, "mtime": time.time()})
            world.files[args["site"]][args["path"]] = []
            return {}
        case "files.copy":
            number = f"t{len(world.transfers) + 1}"
            transfer = {"id": number, "source": args["source"], "target": args["target"], "state": "waiting",
                        "bytes_done": 0, "bytes_total": 67_108_864, "files_done": 0, "files_total": 2, "rate": None,
                        "started": None, "ended": None, "error": None}  # fmt: skip
            world.transfers[number] = transfer
            world.background(world.move(transfer))
            return transfer
        case "transfers.list":
            return list(world.transfers.values())
        case "transfers.cancel":
            world.transfers[args["id"]]["state"] = "cancelled"
            world.tell("transfer", world.transfers[args["id"]])
            return world.transfers[args["id"]]
        case "projects.list":
            return [{"name": run["project"], "created": run["created"], "sites": [], "files": 0, "bytes": 0}
                    for run in world.runs.values()]  # fmt: skip
        case _ if op.startswith("runs."):
            return answer_runs(world, op, args)
    raise Refused("UnknownName", f"There is no operation {op!r}.")


def answer_runs(world: World, op: str, args: dict[str, Any]) -> Any:
    match op:
        case "runs.list":
            return list(world.runs.values())
        case "runs.show":
            return world.run_of(args)
        case "runs.launch":
            diameter = args["parameters"].get("diameter", 180)
            if diameter == 666:
                raise Refused("InvalidParameter", "diameter is 666 Å; it must be another number", "diameter",
                              "Correct the field 'Particle diameter'.")  # fmt: skip
            token = args.get("token") or str(time.time())
            if token not in world.tokens:
                project = args.get("project") or f"first-look-{len(world.runs) + 1}"
                run = world.new_run(project, args.get("sites", {}), time.time())
                world.tokens[token] = run["id"]
                world.background(world.play(run))
            return world.runs[world.tokens[token]]
        case "runs.cancel" | "runs.resume":
            run = world.run_of(args)
            run["state"] = "cancelled" if op == "runs.cancel" else "running"
            if op == "runs.resume":
                world.background(world.play(run))
            world.tell("run", run)
            return run
        case "runs.log":
            whole = "".join(
                f"{n:4d}  {args['step']}: work on micrograph {n} of 40 <b>&amp;</b>\n" for n in range(1, 41)
            )
            return {"text": whole[args["offset"] :], "offset": len(whole)}
        case "runs.picture":
            if args.get("name") == "nasty":
                return {"png_base64": base64.b64encode(b"<svg onload='alert(1)'/>").decode(), "title": "nasty"}
            image = io.BytesIO(picture(args["name"]))
            return {"png_base64": base64.b64encode(image.getvalue()).decode(), "title": args["name"]}
    raise Refused("UnknownName", f"There is no operation {op!r}.")


async def serve(world: World, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while line := await reader.readline():
            request = json.loads(line)
            with (FOLDER / "requests.jsonl").open("a") as log:
                log.write(json.dumps(request) + "\n")
            if request["op"] == "watch":
                await watch(world, request, writer)
                return
            try:
                reply = {"id": request["id"], "result": answer(world, request["op"], request["args"])}
            except Refused as error:
                reply = {"id": request["id"], "error": error.body}
            writer.write(json.dumps(reply).encode() + b"\n")
            await writer.drain()
    except (ConnectionError, asyncio.CancelledError):
        pass
    finally:
        writer.close()


async def watch(world: World, request: dict[str, Any], writer: asyncio.StreamWriter) -> None:
    queue: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
    world.watchers.add(queue)
    for place in world.sites:
        queue.put_nowait({"type": "site", **place})
    try:
        while True:
            event = await queue.get()
            writer.write(json.dumps({"id": request["id"], "event": event}).encode() + b"\n")
            await writer.drain()
    finally:
        world.watchers.discard(queue)


async def main() -> None:
    (FOLDER / "first_line.json").write_text(sys.stdin.readline())
    (FOLDER / "environment.json").write_text(json.dumps(dict(os.environ)))
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    world = World()
    path = FOLDER / "runner.sock"
    path.unlink(missing_ok=True)
    server = await asyncio.start_unix_server(lambda r, w: serve(world, r, w), str(path))
    with (FOLDER / "starts.log").open("a") as log:
        log.write(f"{os.getpid()}\n")
    await stop.wait()
    server.close()
    path.unlink(missing_ok=True)
    (FOLDER / "ended").write_text("SIGTERM")


if __name__ == "__main__":
    with (FOLDER / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            sys.exit("another runner is at work")
        asyncio.run(main())
