"""Where a step runs, and the sentence that says why."""

import pytest
from dcde.errors import InvalidParameter, NotAllowed
from dcde.pipelines.model import StepPlan
from dcde.placement import Candidate, partition_for, place_auto, place_wished
from dcde_models import Decision, SiteDescriptor

from .conftest import descriptor

YES = Decision(True, "You may.")
NO = Decision(False, "You may not run jobs at anl-lcrc: You are in none of the groups that may do this (x).")


def step(**resources):
    return StepPlan(
        id="pick",
        title="Pick",
        job_type="relion.autopick",
        job_dir="AutoPick/job001",
        default_site="ornl-cades",
        commands=[["true"]],
        outputs=["AutoPick/job001"],
        resources=resources,
    )


def queue(idle=0, pending=0):
    return {"nodes_idle": idle, "nodes_total": 2, "pending": pending}


def candidate(name, *, decision=YES, trouble=None, missing=0, jobs=None, **changes):
    return Candidate(SiteDescriptor.model_validate(descriptor(name, **changes)), decision, trouble, missing, jobs)


def test_a_wished_site_is_taken_or_waited_for():
    assert place_wished(candidate("bnl-sdcc"), None, step()).site == "bnl-sdcc"
    waiting = place_wished(candidate("bnl-sdcc", trouble="It is away."), None, step())
    assert waiting.site is None
    assert waiting.reason == "Waits for BNL-SDCC, where it is to run: It is away."
    with pytest.raises(NotAllowed, match="none of the groups"):
        place_wished(candidate("anl-lcrc", decision=NO), None, step())


@pytest.mark.parametrize(
    ("resources", "words"),
    [
        ({"cores": 3}, "gives 2 cores a node; the step asks for 3"),
        ({"memory_mb": 5000}, "4000 MB"),
        ({"walltime_minutes": 500}, "120 minutes"),
        ({"gpus": 1}, "0 GPUs"),
        ({"nodes": 3}, "has 2 nodes"),
    ],
)
def test_what_a_site_can_never_give_is_refused(resources, words):
    with pytest.raises(InvalidParameter, match=words):
        place_wished(candidate("bnl-sdcc"), None, step(**resources))


def test_a_site_without_the_application_is_refused():
    with pytest.raises(InvalidParameter, match="has no relion"):
        place_wished(candidate("bnl-sdcc", applications={}), None, step())
    with pytest.raises(InvalidParameter, match="has no partition 'gold'"):
        partition_for(candidate("bnl-sdcc").site, "gold")
    assert partition_for(candidate("bnl-sdcc").site, "batch").name == "batch"


def test_auto_goes_where_the_data_is_unless_the_queue_is_long():
    data_here = candidate("bnl-sdcc", missing=0, jobs=queue(idle=0, pending=1))
    idle_far = candidate("ornl-cades", missing=30_000_000_000, jobs=queue(idle=2))
    idle_near = candidate("anl-lcrc", missing=30_000_000, jobs=queue(idle=1))
    assert place_auto([data_here, idle_far], None, step()).site == "bnl-sdcc"
    chosen = place_auto([data_here, idle_far, idle_near], None, step())
    assert chosen.site == "anl-lcrc"
    assert chosen.reason == (
        "Runs at ANL-LCRC, chosen among 3: 30.0 MB have to be brought there, and 1 of 2 nodes are idle."
    )


def test_auto_prefers_the_templates_site_when_all_are_equal():
    equal = [candidate(name, jobs=queue(idle=1)) for name in ("bnl-sdcc", "ornl-cades", "anl-lcrc")]
    assert place_auto(equal, None, step()).site == "ornl-cades"
    assert "its queue is not known" in place_auto([candidate("bnl-sdcc")], None, step()).reason


def test_auto_passes_over_what_is_away_and_waits_when_all_are():
    away = candidate("ornl-cades", trouble="ORNL is away.", jobs=queue(idle=2))
    assert place_auto([away, candidate("bnl-sdcc", jobs=queue(pending=9))], None, step()).site == "bnl-sdcc"
    waiting = place_auto([away], None, step())
    assert waiting.site is None
    assert "ORNL is away" in waiting.reason


def test_auto_says_what_is_missing_everywhere():
    nowhere = [candidate("anl-lcrc", decision=NO), candidate("bnl-sdcc", applications={})]
    with pytest.raises(NotAllowed) as caught:
        place_auto(nowhere, None, step())
    assert "none of the groups" in caught.value.remedy
    assert "BNL-SDCC has no relion" in caught.value.remedy
    with pytest.raises(NotAllowed, match="no site") as caught:
        place_auto([candidate("bnl-sdcc")], "gold", step())
    assert "gold" in caught.value.remedy
