"""The model of a pipeline keeps to its alphabet and its order."""

import pytest
from dcde.pipelines.graph import ordered
from dcde.pipelines.model import RunPlan, StepPlan
from pydantic import ValidationError


def step(name, **more):
    given = {
        "id": name,
        "title": name,
        "job_type": "relion.test",
        "job_dir": f"Test/{name}",
        "commands": [["true"]],
        "outputs": [f"Test/{name}"],
    }
    return StepPlan.model_validate(given | more)


@pytest.mark.parametrize(
    "good",
    ["--i", "Movies/*.mrcs", "{program:ctffind}", "{record}/report.py", "{python}", "a,b=c:d@e%f+g-h", "two words", ""],
)
def test_arguments_that_are_good(good):
    assert step("a", commands=[[good]]).commands == [[good]]


@pytest.mark.parametrize(
    "bad", ["$(id)", "`id`", "a;b", "a|b", "a&b", "a>b", "'", '"', "\\", "\n", "{HOME}", "é", "a\x00"]
)
def test_arguments_that_no_shell_may_ever_see(bad):
    with pytest.raises(ValidationError):
        step("a", commands=[["relion_import", bad]])


@pytest.mark.parametrize("bad", ["/etc", "../x", "a/../../x", "-rf", "a b", "a;b", "", "a\n"])
def test_paths_that_leave_the_project_or_the_alphabet(bad):
    with pytest.raises(ValidationError):
        step("a", outputs=[bad])
    with pytest.raises(ValidationError):
        step("a", job_dir=bad)


def test_a_plan_is_frozen_and_refuses_what_it_does_not_know():
    with pytest.raises(ValidationError):
        step("a", colour="blue")
    with pytest.raises(ValidationError):
        step("a").title = "b"


@pytest.mark.parametrize(
    ("steps", "said"),
    [
        ([{"name": "a", "after": ["b"]}, {"name": "b", "inputs": [{"step": "a", "patterns": ["x"]}]}], "a -> b -> a"),
        ([{"name": "a", "after": ["c"]}], "no such step"),
        ([{"name": "a"}, {"name": "a"}], "two steps are called 'a'"),
        ([{"name": "a"}, {"name": "b", "job_dir": "Test/a/"}], "same job folder"),
    ],
)
def test_steps_that_are_no_graph(steps, said):
    with pytest.raises(ValidationError, match=said):
        RunPlan(template="t", version="1", steps=[step(**one) for one in steps])


def test_order():
    needs = [("d", ["b", "c"]), ("c", ["a"]), ("b", ["a"]), ("a", []), ("e", [])]
    assert ordered(needs) == ["a", "c", "b", "d", "e"]
