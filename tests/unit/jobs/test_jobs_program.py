"""`job.py` executed for real: as a subprocess in a record folder, as the batch job would start it."""

import json
import os
import pwd
import signal
import subprocess
import sys
import time
from pathlib import Path

import dcde.jobs
import pytest

SOURCE = Path(dcde.jobs.__file__).parent / "job.py"
HOSTILE = "$(touch pwned) `touch pwned` \"; touch pwned; <img onerror=x> ' é"

REPORT = """
import json, os, sys
spec, record = json.load(open(sys.argv[1])), sys.argv[2]
assert os.path.isdir("Movies"), "cwd must be the project folder"
if spec.get("crash"):
    sys.exit("report fell over")
progress = "--progress" in sys.argv
problems = [] if progress else spec["problems"]
answer = {"ok": not problems, "problems": problems, "fraction": 0.5 if progress else 1, "pictures": []}
with open(os.path.join(record, "report.json.new"), "w") as file:
    json.dump(answer, file)
os.replace(os.path.join(record, "report.json.new"), os.path.join(record, "report.json"))
sys.exit(1 if problems else 0)
"""


class Site:
    """A storage root and a record folder, as a site has them, and the ways to start a job there."""

    def __init__(self, folder):
        self.root = folder / "storage"
        self.project = self.root / pwd.getpwuid(os.getuid()).pw_name / "projects" / "demo"
        (self.project / "Movies").mkdir(parents=True)
        self.record = folder / "home" / ".dcde" / "jobs" / "demo-r1-import-a1"
        self.record.mkdir(parents=True)

    def prepare(self, *commands, report=None, **more):
        job = {
            "key": self.record.name,
            "title": "Import",
            "project": "demo",
            "storage_root": str(self.root),
            "interpreter": sys.executable,
            "setup": [],
            "commands": [list(command) for command in commands],
            "environment": {},
            "walltime_minutes": 30,
            **more,
        }
        (self.record / "job.json").write_text(json.dumps(job))
        (self.record / "job.py").write_text(SOURCE.read_text())
        if report is not None:
            (self.record / "report.py").write_text(REPORT)
            (self.record / "spec.json").write_text(json.dumps(report))

    def start(self, job_id="41"):
        environment = {**os.environ, "SLURM_JOB_ID": job_id}
        argv = [sys.executable, "job.py"]
        return subprocess.Popen(argv, cwd=self.record, env=environment, stdout=subprocess.PIPE, text=True)

    def run(self, job_id="41"):
        process = self.start(job_id)
        out, _ = process.communicate(timeout=60)
        return process.returncode, out

    def result(self):
        return json.loads((self.record / "result.json").read_text())

    def starts(self):
        return (self.project / ".dcde" / "starts.log").read_text().splitlines()


def until(condition, what, seconds=20):
    """Wait for a condition; fail with `what` when it does not come."""
    end = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < end, f"{what} did not come"
        time.sleep(0.02)
    return found


@pytest.fixture
def site(tmp_path):
    """A fresh `Site`."""
    return Site(tmp_path)


def test_commands_run_in_order_in_the_project_folder(site):
    site.prepare(["mkdir", "-p", "Import/job001"], ["touch", "Import/job001/movies.star"], ["pwd"])
    code, out = site.run()
    result = site.result()
    assert code == 0
    assert result["ok"] is True
    assert result["exit_codes"] == [0, 0, 0]
    assert result["problems"] == []
    assert result["slurm_job_id"] == "41"
    assert result["started"] <= result["ended"]
    assert (site.project / "Import/job001/movies.star").exists()
    log = (site.record / "stdout").read_text()
    assert str(site.project) in log
    assert "+ mkdir -p Import/job001" in log
    key, job_id, host, epoch = site.starts()[0].split()
    assert (key, job_id, host, float(epoch)) == (site.record.name, "41", os.uname().nodename, float(epoch))
    assert "ended, ok" in out


def test_files_are_private(site):
    site.prepare(["true"])
    site.run()
    for name in ("result.json", "stdout", "stderr", "claim/owner.json"):
        assert (site.record / name).stat().st_mode & 0o777 == 0o600
    assert (site.record / "claim").stat().st_mode & 0o777 == 0o700


def test_second_start_touches_nothing(site):
    site.prepare(["true"])
    site.run("41")
    before = {path: path.stat().st_mtime_ns for path in (*site.record.rglob("*"), *site.project.rglob("*"))}
    code, out = site.run("42")
    assert code == 76
    assert "already started by job 41" in out
    after = {path: path.stat().st_mtime_ns for path in (*site.record.rglob("*"), *site.project.rglob("*"))}
    assert after == before
    assert len(site.starts()) == 1


def test_of_many_starts_at_once_one_works(site):
    site.prepare(["bash", "-c", "echo x >>count"])
    starts = [site.start(str(number)) for number in range(8)]
    codes = sorted(start.wait(timeout=60) for start in starts)
    for start in starts:
        start.stdout.close()
    assert codes == [0, *[76] * 7]
    assert (site.project / "count").read_text() == "x\n"
    assert len(site.starts()) == 1


def test_arguments_never_reach_a_shell_as_text(site):
    site.prepare(["printf", "%s", HOSTILE], ["touch", HOSTILE.replace("/", "")])
    code, _ = site.run()
    assert code == 0
    assert HOSTILE in (site.record / "stdout").read_text()
    assert (site.project / HOSTILE).exists()
    assert not list(site.project.rglob("pwned"))


def test_setup_lines_of_the_site_and_the_environment_reach_the_application(site):
    script = 'echo "$MODULES $THREADS $0"'
    site.prepare(
        ["bash", "-c", script],
        ["cp", "{record}/job.json", "copy.json"],
        setup=["module() { export MODULES=$*; }", "module load relion/3.1.3"],
        environment={"THREADS": "2"},
    )
    code, _ = site.run()
    assert code == 0
    assert "load relion/3.1.3 2" in (site.record / "stdout").read_text()
    assert (site.project / "copy.json").exists()


def test_first_command_that_fails_is_the_last(site):
    site.prepare(["bash", "-c", "echo bad news >&2; exit 3"], ["touch", "after"], report={"problems": []})
    code, _ = site.run()
    result = site.result()
    assert code == 1
    assert result["exit_codes"] == [3]
    assert result["problems"] == ["Command 1 (bash) ended with exit code 3."]
    assert result["ok"] is False
    assert not (site.project / "after").exists()
    assert "bad news" in (site.record / "stderr").read_text()


def test_program_that_is_not_there(site):
    site.prepare(["relion_not_there"])
    site.run()
    assert site.result()["problems"] == ["Command 1 (relion_not_there) was not found at this site."]


def test_success_is_what_the_report_says(site):
    site.prepare(["true"], report={"problems": ["movies.star has no rows"]})
    code, _ = site.run()
    result = site.result()
    assert code == 1
    assert result["ok"] is False
    assert result["problems"] == ["movies.star has no rows"]
    assert result["report"]["fraction"] == 1


def test_report_of_an_earlier_look_is_not_taken_for_the_last(site):
    site.prepare(["true"], report={"problems": [], "crash": True})
    (site.record / "report.json").write_text('{"ok": true, "problems": []}')
    site.run()
    assert site.result()["ok"] is False


def test_report_that_falls_over_is_a_problem(site):
    site.prepare(["true"], report={"problems": [], "crash": True})
    site.run()
    assert site.result()["ok"] is False
    assert "report fell over" in site.result()["problems"][0]


def test_progress_is_there_while_the_application_runs(site):
    site.prepare(["bash", "-c", "until [ -e enough ]; do sleep 0.05; done"], report={"problems": []})
    process = site.start()
    until((site.record / "progress.json").exists, "progress.json")
    assert json.loads((site.record / "progress.json").read_text())["fraction"] == 0.5
    assert not (site.record / "report.json").exists()
    assert not (site.record / "result.json").exists()
    (site.project / "enough").touch()
    process.communicate(timeout=30)
    assert site.result()["ok"] is True


def test_project_folder_that_is_not_there(site):
    site.prepare(["true"], project="elsewhere")
    code, _ = site.run()
    assert code == 1
    assert "is not there" in site.result()["problems"][0]
    assert site.result()["exit_codes"] == []


def children_script(seconds):
    return (
        f"trap 'echo caught >>signals; exit 9' TERM; (echo $BASHPID >inner; exec sleep {seconds}) & echo up >up; wait"
    )


def test_sigterm_reaches_the_whole_application_and_is_noted(site):
    site.prepare(["bash", "-c", children_script(60)], ["touch", "after"])
    process = site.start()
    until((site.project / "up").exists, "the application")
    inner = int(until(lambda: (site.project / "inner").exists() and (site.project / "inner").read_text(), "its child"))
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=30)
    result = site.result()
    assert process.returncode == 1
    assert result["ended_by"] == "SIGTERM"
    assert result["ok"] is False
    assert result["problems"][0] == "The job was ended from outside (SIGTERM)."
    assert (site.project / "signals").read_text() == "caught\n"
    assert not (site.project / "after").exists()
    until(lambda: not Path(f"/proc/{inner}").exists(), "the end of the child")


def test_kill_takes_the_application_along_and_leaves_no_result(site):
    site.prepare(["bash", "-c", "echo $$ >pid; exec sleep 60"])
    process = site.start()
    pid = int(until(lambda: (site.project / "pid").exists() and (site.project / "pid").read_text(), "the application"))
    process.kill()
    process.communicate(timeout=30)
    assert not (site.record / "result.json").exists()
    until(lambda: not Path(f"/proc/{pid}").exists(), "the end of the application")
    code, _ = site.run("42")
    assert code == 76


@pytest.fixture
def small_disk(tmp_path):
    """Run a shell script with 1 MB of disk at `place`, in namespaces of its own; what is there is copied to it first."""

    def run(place, script):
        whole = f"cp -r {place} aside && mount -t tmpfs -o size=1m tmpfs {place} && cp -r aside/. {place} && {script}"
        argv = ["unshare", "--map-root-user", "--mount", "bash", "-c", whole]
        return subprocess.run(argv, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False)

    return run


FILL = 'import sys; f = open("big", "wb"); f.write(b"x" * 4_000_000)'


@pytest.mark.parametrize("full", ["storage", "records"])
def test_full_disk_leaves_a_clear_problem(site, small_disk, tmp_path, full):
    fill = FILL if full == "storage" else FILL.replace('"big"', '"{record}/big"')
    site.prepare([sys.executable, "-c", fill])
    target = site.root if full == "storage" else site.record.parent
    copy = tmp_path / "copy.json"
    if os.getuid():
        # In the namespace the account is called root, and looks for its project folder accordingly.
        (site.root / "root").symlink_to(site.project.parent.parent)
    script = f"cd {site.record} && {{ {sys.executable} job.py; cat result.json >{copy}; }}"
    done = small_disk(target, script)
    result = json.loads(copy.read_text())
    assert result["ok"] is False, done.stderr
    assert any("full" in problem or "No space left" in problem for problem in result["problems"]), result
