"""What the runner makes of a wish for workers: blocks that fit the site, batch scripts, versions compared."""

from __future__ import annotations

import shlex
import socket
from types import SimpleNamespace

import pytest
from dcde.agent.functions import is_mine
from dcde.errors import InvalidParameter, UnknownName, VersionsDiffer
from dcde.runner.arguments import FunctionsStart, checked
from dcde.runner.functions import check_versions, fitted
from dcde.runner.workers import Block, Interchange, batch_script
from dcde_models.sites import SiteDescriptor

SITE = SiteDescriptor.model_validate(
    {
        "name": "test-site",
        "title": "Test site",
        "contact": "help@test.example",
        "ssh": {"hosts": ["login.test.example"], "host_keys": ["ssh-ed25519 AAAA"]},
        "scheduler": {
            "nodes": 4,
            "partitions": [
                {"name": "batch", "max_walltime_minutes": 90, "cores_per_node": 8, "memory_mb_per_node": 16000},
                {"name": "debug", "max_walltime_minutes": 10, "cores_per_node": 2, "memory_mb_per_node": 4000},
            ],
        },
        "storage": {"root": "/data"},
    }
)
KNOWLEDGE = SimpleNamespace(allocations=lambda site: ["dcde", "other"])


def wish(**more):
    given = {"site": "test-site", "ports": [55001, 55002, 55003], "certificates": {}, "versions": {}}
    return checked(FunctionsStart, given | more, "functions.start")


@pytest.mark.parametrize(
    ("more", "workers", "memory_mb", "minutes", "blocks"),
    [
        ({}, 8, 16000, 60, 1),
        ({"cores": 3}, 2, 12000, 60, 1),
        ({"workers": 2}, 2, 4000, 60, 1),
        ({"workers": 20, "minutes": 5}, 8, 16000, 5, 3),
        ({"partition": "debug"}, 2, 4000, 10, 1),
    ],
)
def test_blocks_fit_a_node(more, workers, memory_mb, minutes, blocks):
    block, most = fitted(wish(**more), SITE, KNOWLEDGE)
    assert (block.workers, block.memory_mb, block.minutes, most) == (workers, memory_mb, minutes, blocks)
    assert block.options()["account"] == "dcde"
    assert block.options()["cores"] == workers * more.get("cores", 1)


@pytest.mark.parametrize(
    ("more", "error", "where"),
    [
        ({"cores": 9}, InvalidParameter, "cores"),
        ({"minutes": 91}, InvalidParameter, "minutes"),
        ({"partition": "nope"}, UnknownName, "partition"),
    ],
)
def test_what_does_not_fit_is_refused(more, error, where):
    with pytest.raises(error) as found:
        fitted(wish(**more), SITE, KNOWLEDGE)
    assert found.value.where == where
    assert found.value.remedy


@pytest.mark.parametrize("ports", [[1, 2, 3], [55000, 55001], [55000, 55001, 70000], ["a", "b", "c"]])
def test_ports_are_checked(ports):
    with pytest.raises(InvalidParameter):
        wish(ports=ports)


def test_a_batch_script_is_words_and_no_shell():
    block = Block(workers=2, cores=4, memory_mb=1000, minutes=5, partition="batch", allocation=None)
    script = batch_script(block, Interchange("10.0.0.1", "/home/a b;c/.dcde", "/opt/py thon", 30), 54001, "b1")
    last = shlex.split(script.splitlines()[-1])
    assert last[:4] == ["exec", "/opt/py thon", "-m", "parsl.executors.high_throughput.process_worker_pool"]
    assert "/home/a b;c/.dcde/certificates" in last
    assert "--port=54001" in last
    assert "PARSL_CORES=8 OMP_NUM_THREADS=4" in script
    assert "account" not in block.options()


def test_versions_must_be_equal_but_for_the_last_of_python():
    ours = {"python": "3.11.2", "parsl": "2026.10.26", "dill": "0.4.1"}
    check_versions(SITE, ours, ours | {"python": "3.11.9", "zmq": "27"})
    for other in ({"python": "3.12.2"}, {"parsl": "2026.10.19"}, {"dill": "0.4.0"}, {"parsl": None}):
        with pytest.raises(VersionsDiffer) as found:
            check_versions(SITE, ours, ours | other)
        assert "Python 3.11, parsl 2026.10.26, dill 0.4.1" in found.value.message
        assert "help@test.example" in found.value.remedy
        assert not found.value.retry
    with pytest.raises(VersionsDiffer, match="no parsl, no dill"):
        check_versions(SITE, ours, {"python": "3.11.2", "parsl": None, "dill": None})


@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_INET6])
def test_the_owner_of_a_connection_is_known(family):
    with socket.create_server(("127.0.0.1", 0)) as server, socket.socket(family) as client:
        port = server.getsockname()[1]
        client.connect(("127.0.0.1" if family == socket.AF_INET else "::ffff:127.0.0.1", port))
        taken, peer = server.accept()
        taken.close()
        assert is_mine(peer[1], port)
        assert not is_mine(port, 1), "no such connection"
