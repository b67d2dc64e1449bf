import json

import pytest
from dcde import errors
from dcde.cli import main

from tests.unit.faces.conftest import run, step

SITE = {
    "name": "bnl-sdcc", "title": "BNL SDCC", "aliases": ["bnl"], "description": "", "state": "up", "reason": "", "remedy": "",
    "since": 1.0, "account": "u12345", "login_host": "login", "free": {"total": 10, "available": 5},
    "queue": {"running": 1, "pending": 2, "mine_running": 0, "mine_pending": 0, "nodes_idle": 1, "nodes_total": 2, "nodes_down": 0},
    "allocations": [], "applications": {"relion": "3.1.3"},
    "capabilities": [{"action": "submit", "title": "run jobs", "allowed": False, "reason": "no", "remedy": "Accept the policy."}],
}  # fmt: skip


def test_every_command_has_json(scripted, capsys):
    scripted.answers = {
        "whoami": {"dcde_id": "dcde1000001", "groups": ["cryoem"]},
        "sites.list": [SITE],
        "files.list": {"site": "bnl-sdcc", "path": "", "entries": [], "truncated": False},
        "files.copy": {"id": "t1", "state": "done", "files_done": 1, "bytes_done": 5, "bytes_total": 5, "error": None},
        "projects.list": [],
        "templates.list": [],
        "runs.launch": run(),
        "runs.list": [run()],
        "runs.show": run(steps=[step("import")]),
        "runs.log": lambda args: {"text": "line\n" if args["offset"] == 0 else "", "offset": 5},
        "runs.cancel": run("cancelled"),
        "runs.resume": run("running"),
    }
    lines = ["whoami", "sites", "ls bnl:", "cp bnl:a ornl:b", "projects", "templates", "launch first-look", "runs", "show r1",
             "watch r1", "logs r1 import", "cancel r1", "resume r1"]  # fmt: skip
    for line in lines:
        assert main([*line.split(), "--json"]) == 0, line
        json.loads(capsys.readouterr().out)
        assert main(line.split()) == 0, line
        assert capsys.readouterr().out.strip(), line


def test_values_and_sites_of_a_launch_are_passed_on(scripted, capsys):
    scripted.answers = {"runs.launch": run()}
    main(["launch", "first-look", "--set", "voltage=200", "--set", "movies=bnl:m/*.mrcs", "--site", "class2d=auto"])
    assert scripted.asked[0][1] == {
        "template": "first-look",
        "parameters": {"voltage": 200, "movies": "bnl:m/*.mrcs"},
        "sites": {"class2d": "auto"},
    }


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (errors.UnknownName("x"), 2),
        (errors.NotAllowed("x"), 3),
        (errors.LinkLost("x"), 4),
        (errors.JobFailed("x"), 1),
    ],
)
def test_exit_codes_tell_the_kind_of_error(scripted, capsys, error, code):
    scripted.answers = {"whoami": error}
    assert main(["whoami"]) == code
    assert capsys.readouterr().err.startswith("dcde: x")
    assert main(["whoami", "--json"]) == code
    assert json.loads(capsys.readouterr().out)["error"]["code"] == error.code


def test_watch_tells_each_change_and_whether_it_succeeded(scripted, capsys):
    seen = iter(
        [
            run("running", [step("import", "queued", why="The queue is long.")]),
            run("failed", [step("import", "failed", problems=["0 movies"])]),
        ]
    )
    scripted.answers = {"runs.show": lambda _: next(seen)}
    assert main(["watch", "r1"]) == 1
    out = capsys.readouterr().out
    assert "queued" in out and "failed" in out and "0 movies" in out


def test_a_place_without_a_site_and_a_pair_without_a_value_are_refused(scripted, capsys):
    assert main(["ls", "movies"]) == 2
    assert "bnl:movies" in capsys.readouterr().err
    assert main(["launch", "x", "--set", "voltage"]) == 2
    assert scripted.asked == []


def test_one_site_says_why_not(scripted, capsys):
    scripted.answers = {"sites.list": [SITE]}
    assert main(["sites", "bnl"]) == 0
    assert "Accept the policy." in capsys.readouterr().out
    assert main(["sites", "nowhere"]) == 2


def test_without_a_runner_the_command_says_how_to_get_one(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("DCDE_RUNTIME_DIR", str(tmp_path))
    assert main(["whoami"]) == 4
    assert "JupyterLab" in capsys.readouterr().err
