"""Interactive functions at real sites: right results, several sites, cuts, deaths, and what is refused."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest

from .conftest import Room


def until(there: Callable[[], bool], seconds: float = 40) -> bool:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if there():
            return True
        time.sleep(0.3)
    return there()


def test_two_hundred_calls_are_right(functions_room: Room) -> None:
    kernel = functions_room.kernel("right", "anl")
    said = kernel.said()
    print(said)
    assert said["host"].startswith("n"), "it ran on a compute node"
    kernel.close()
    assert not functions_room.interchanges("anl-lcrc"), "a kernel that ends leaves nothing"
    assert until(lambda: not functions_room.jobs("anl-lcrc"))


def test_two_sites_at_once(functions_room: Room) -> None:
    kernel = functions_room.kernel("both", "anl", "bnl")
    said = kernel.said()
    print(said)
    kernel.close()


def test_other_versions_are_refused_with_what_is_needed(functions_room: Room) -> None:
    kernel = functions_room.kernel("refused", "ornl")
    for _ in range(2):
        error = kernel.said()["error"]
        print(error)
        assert (error["code"], error["where"], error["retry"]) == ("VersionsDiffer", "ornl-cades", False)
        assert "no parsl" in error["message"]
        assert "parsl 20" in error["message"]
        assert "help@ornl-cades" in error["remedy"]
    kernel.close()


@pytest.mark.long
def test_what_goes_wrong_in_a_function_is_told(functions_room: Room) -> None:
    kernel = functions_room.kernel("wrong", "anl")
    said = kernel.said()
    assert said["type"] == "ZeroDivisionError"
    assert "in inner" in said["text"]
    assert "This happened in" in said["text"]
    said = kernel.said()
    assert (said["type"], said["retry"]) == ("FunctionLost", True)
    assert "its worker died" in said["text"]
    said = kernel.said()
    assert said["type"] == "FunctionsError"
    assert "only_there" in said["text"]
    assert kernel.said()["type"] == "InvalidParameter"
    assert kernel.said() == {"after": "right"}
    kernel.close()


@pytest.mark.long
def test_a_silent_cut_loses_no_call(functions_room: Room) -> None:
    kernel = functions_room.kernel("cut", "anl")
    assert kernel.said() == {"ready": True}
    assert kernel.process.stdin is not None
    kernel.process.stdin.write("45\n")
    kernel.process.stdin.flush()
    time.sleep(5)
    functions_room.world.cut("anl-lcrc")
    time.sleep(30)
    functions_room.world.mend("anl-lcrc")
    said = kernel.said()
    print(said)
    assert (said["left"], said["wrong"]) == (0, 0)
    assert said["calls"] > 100
    kernel.close()


@pytest.mark.long
@pytest.mark.parametrize("what", ["interchange", "workers", "agent", "runner"])
def test_what_dies_is_replaced_and_its_calls_are_run_again(functions_room: Room, what: str) -> None:
    kernel = functions_room.kernel("lost", "anl")
    assert kernel.said() == {"under_way": True}
    world = functions_room.world
    if what == "interchange":
        (pid,) = functions_room.interchanges("anl-lcrc")
        world.run("anl-lcrc", "login", ["/usr/bin/kill", "-9", str(pid)])
    elif what == "workers":
        world.run("anl-lcrc", "login", ["/usr/bin/scancel", "-u", "drivers"])
    elif what == "agent":
        world.run("anl-lcrc", "login", ["/usr/bin/pkill", "-9", "-u", "drivers", "-f", "agent-.*pyz serve"])
    else:
        functions_room.kill_runner()
        functions_room.start()
    kernel.go_on()
    said = kernel.said()
    print(what, said)
    assert said["right"]
    assert kernel.said() == {"next": 81}
    kernel.close()
    assert until(lambda: not functions_room.interchanges("anl-lcrc"))
    assert until(lambda: not functions_room.jobs("anl-lcrc"))


@pytest.mark.long
def test_workers_are_released_when_idle(functions_room: Room) -> None:
    kernel = functions_room.kernel("idle", "anl")
    assert kernel.said() == {"done": 1}
    assert functions_room.jobs("anl-lcrc")
    assert until(lambda: not functions_room.jobs("anl-lcrc"))
    assert functions_room.interchanges("anl-lcrc")
    kernel.go_on()
    assert kernel.said() == {"done": 2}
    assert until(lambda: not functions_room.interchanges("anl-lcrc"))
    kernel.go_on()
    kernel.close()


@pytest.mark.long
def test_a_killed_kernel_leaves_nothing(functions_room: Room) -> None:
    kernel = functions_room.kernel("lost", "anl")
    assert kernel.said() == {"under_way": True}
    functions_room.kill("-9", "kernel_calls.py lost")
    kernel.process.wait(timeout=20)
    assert until(lambda: not functions_room.interchanges("anl-lcrc"))
    assert until(lambda: not functions_room.jobs("anl-lcrc"))


@pytest.mark.long
def test_nobody_attached_ends_it_after_the_lease(functions_room: Room) -> None:
    kernel = functions_room.kernel("lost", "anl")
    assert kernel.said() == {"under_way": True}
    assert functions_room.interchanges("anl-lcrc")
    functions_room.kill_runner()
    assert until(lambda: not functions_room.interchanges("anl-lcrc"), 45)
    assert until(lambda: not functions_room.jobs("anl-lcrc"), 45)
    functions_room.kill("-9", "kernel_calls.py lost")
    kernel.process.wait(timeout=20)
