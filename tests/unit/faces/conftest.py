"""Fixtures of the faces' tests:

- `scripted`: a server on a unix socket that speaks the runner's protocol and answers from a table, so that what a face
  asks and how it shows an answer can be tested; whole journeys use the real runner.
"""

import base64
import json
import socketserver
import threading

import pytest
from dcde.errors import DcdeError

PNG = base64.b64encode(b"\x89PNG\r\n\x1a\n" + b"0" * 20).decode()


def step(id, state="succeeded", **more):
    base = {
        "id": id, "title": id.capitalize(), "job_type": f"relion.{id}", "site": "bnl-sdcc", "site_wish": "auto", "after": [],
        "state": state, "why": "", "attempt": 1, "job_id": "7", "slurm_state": "COMPLETED", "node": "n1", "queued_at": 1.0,
        "started": 1.0, "ended": 13.0, "fraction": 1.0, "bytes_moved": 0, "metrics": {}, "rows": {}, "pictures": [],
        "problems": [], "error": None,
    }  # fmt: skip
    return base | more


def run(state="succeeded", steps=(), **more):
    base = {
        "id": "r1", "template": "first-look", "title": "First look", "project": "p1", "parameters": {}, "state": state,
        "reason": "", "created": 1.0, "ended": 20.0, "steps": list(steps),
    }  # fmt: skip
    return base | more


class Scripted:
    """Answers of the runner, by operation; a callable gets the arguments, an error is raised. `asked` keeps what was asked."""

    def __init__(self):
        self.answers = {}
        self.asked = []

    def answer(self, request):
        self.asked.append((request["op"], request["args"]))
        found = self.answers[request["op"]]
        result = found(request["args"]) if callable(found) else found
        if isinstance(result, DcdeError):
            return {"id": request["id"], "error": result.to_json()}
        return {"id": request["id"], "result": result}


@pytest.fixture
def scripted(tmp_path, monkeypatch):
    script = Scripted()

    class Handler(socketserver.StreamRequestHandler):
        def handle(self):
            line = self.rfile.readline()
            self.wfile.write(json.dumps(script.answer(json.loads(line))).encode() + b"\n")

    class Server(socketserver.ThreadingUnixStreamServer):
        daemon_threads = True

    monkeypatch.setenv("DCDE_RUNTIME_DIR", str(tmp_path))
    with Server(str(tmp_path / "runner.sock"), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield script
        server.shutdown()
        thread.join()
