import dcde
import pytest
from dcde import errors

from tests.unit.faces.conftest import PNG, run, step


def test_the_names_of_the_library_are_listed():
    assert set(dcde.__all__) <= set(dir(dcde))
    with pytest.raises(AttributeError):
        _ = dcde.nothing


def test_a_run_is_launched_followed_and_shows_a_picture(scripted):
    states = iter(["running", "succeeded", "succeeded"])
    picture = {"name": "classes", "title": "Class averages"}
    scripted.answers = {
        "runs.launch": run("running", [step("class2d", "running")]),
        "runs.show": lambda _: run(next(states), [step("class2d", pictures=[picture])]),
        "runs.picture": {"png_base64": PNG, "title": "Class averages"},
    }
    found = dcde.launch("first-look", {"voltage": 200}, sites={"class2d": "auto"})
    assert found.state == "running"
    assert found.wait(timeout=30).state == "succeeded"
    assert found.picture().png.startswith(b"\x89PNG")
    assert scripted.asked[0][1] == {
        "template": "first-look",
        "parameters": {"voltage": 200},
        "sites": {"class2d": "auto"},
    }


def test_a_failed_run_raises_and_says_why(scripted):
    scripted.answers = {"runs.show": run("failed", [step("ctffind", "failed")], reason="ctffind found no rings.")}
    with pytest.raises(errors.JobFailed, match="ctffind found no rings"):
        dcde.run("r1").wait()


def test_waiting_ends_in_time_without_disturbing_the_run(scripted):
    scripted.answers = {"runs.show": run("running")}
    with pytest.raises(TimeoutError):
        dcde.run("r1").wait(timeout=0)
    assert {op for op, _ in scripted.asked} == {"runs.show"}


def test_a_picture_that_is_not_there_names_those_that_are(scripted):
    scripted.answers = {"runs.show": run(steps=[step("autopick", pictures=[{"name": "picks", "title": "Picks"}])])}
    with pytest.raises(errors.UnknownName, match="picks"):
        dcde.run("r1").picture("classes")


def test_the_runner_s_error_is_raised_as_it_is(scripted):
    refusal = errors.NotAllowed("You may not run jobs at anl-lcrc.", remedy="Accept the policy.")
    scripted.answers = {"runs.launch": refusal}
    with pytest.raises(errors.NotAllowed, match="Accept the policy"):
        dcde.launch("first-look")


def test_lists_show_themselves(scripted):
    scripted.answers = {
        "runs.list": [run()],
        "projects.list": [],
        "templates.list": [{"name": "first-look", "title": "First look", "description": "x", "version": 1}],
        "files.list": {"site": "bnl-sdcc", "path": "", "entries": [{"name": "movies", "type": "folder", "size": 0, "mtime": 1}], "truncated": True},
    }  # fmt: skip
    assert "r1" in repr(dcde.runs())
    assert "no projects yet" in repr(dcde.projects())
    assert len(dcde.templates()) == 1
    assert "movies/" in repr(dcde.ls("bnl:")) and "only the first" in repr(dcde.ls("bnl:"))
    assert scripted.asked[-1][1] == {"site": "bnl", "path": ""}


def test_a_copy_is_followed_to_its_end(scripted):
    going = {"id": "t1", "state": "moving", "error": None}
    scripted.answers = {"files.copy": going, "transfers.list": [going | {"state": "done"}]}
    assert dcde.copy("bnl:a", "ornl:b")["state"] == "done"
    failed = errors.DiskFull("No room at ornl-cades.", remedy="Remove files.").to_json()
    scripted.answers["transfers.list"] = [going | {"state": "failed", "error": failed}]
    with pytest.raises(errors.DiskFull, match="Remove files"):
        dcde.copy("bnl:a", "ornl:b")
