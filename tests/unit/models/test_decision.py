import datetime

import pytest
from dcde_models import CapabilityDocument, Need, Person, decide
from dcde_models.capabilities import REFEDS_MFA

TODAY = datetime.date(2026, 6, 1)
AUP = "https://dcde.example/aup/2"

DOCUMENT = CapabilityDocument.from_yaml(
    f"""
    site: anl-lcrc
    version: 3
    issued: 2026-05-01
    groups:
      cryoem:
        actions: [submit, transfer.read]
        partitions: [batch]
        allocations: [dcde]
        max_walltime_minutes: 60
        max_nodes: 1
        policies: ["{AUP}"]
        trainings: [cyber-2026]
      guests:
        actions: [transfer.read]
        assurance: {REFEDS_MFA}
        policies: ["{AUP}"]
        trainings: [cyber-2026, visit]
    where:
      cyber-2026: https://training.example/cyber
      group: https://registry.example/groups
    """
)


def person(**changes):
    values = {
        "dcde_id": "dcde1000001",
        "name": "David Rivers",
        "groups": ["cryoem"],
        "policies": {AUP: "2026-01-15"},
        "trainings": {"cyber-2026": "2026-12-31"},
    }
    return Person.model_validate(values | changes)


def ask(who, need=None, account="drivers"):
    return decide(who, DOCUMENT, need or Need("submit"), account=account, today=TODAY)


def test_a_member_with_everything_may():
    decision = ask(person())
    assert decision.allowed
    assert decision.group == "cryoem"
    assert decision.remedy == ""


@pytest.mark.parametrize(
    ("changes", "kind", "named"),
    [
        ({"status": "suspended"}, "status", "suspended"),
        ({"groups": []}, "group", "https://registry.example/groups"),
        ({"policies": {}}, "policy", AUP),
        ({"trainings": {}}, "training", "https://training.example/cyber"),
        ({"trainings": {"cyber-2026": "2026-05-31"}}, "training", "cyber-2026"),
    ],
)
def test_what_is_missing_in_the_registry_is_named(changes, kind, named):
    decision = ask(person(**changes))
    assert not decision.allowed
    assert [m.kind for m in decision.missing] == [kind]
    assert named in f"{decision.reason} {decision.remedy}"
    assert decision.remedy
    assert decision.remedy not in decision.reason


@pytest.mark.parametrize(
    ("need", "kind"),
    [
        (Need("submit", partition="debug"), "partition"),
        (Need("submit", allocation="other"), "allocation"),
        (Need("submit", walltime_minutes=61), "walltime"),
        (Need("submit", nodes=2), "nodes"),
        (Need("transfer.write"), "group"),
    ],
)
def test_what_the_groups_do_not_grant_is_named(need, kind):
    assert [m.kind for m in ask(person(), need).missing] == [kind]


def test_no_account_is_a_reason():
    assert [m.kind for m in ask(person(), account=None).missing] == ["account"]


def test_training_is_valid_on_its_last_day():
    assert ask(person(trainings={"cyber-2026": str(TODAY)})).allowed


def test_the_group_with_the_shortest_way_speaks():
    decision = ask(person(groups=["guests", "cryoem"], trainings={}), Need("transfer.read"))
    assert [m.kind for m in decision.missing] == ["training"]


def test_second_factor_counts_only_when_the_login_had_it():
    full = {"groups": ["guests"], "trainings": {"cyber-2026": "2027-01-01", "visit": "2027-01-01"}}
    assert [m.kind for m in ask(person(**full), Need("transfer.read")).missing] == ["assurance"]
    assert ask(person(**full, acr=REFEDS_MFA), Need("transfer.read")).allowed
