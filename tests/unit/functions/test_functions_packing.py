"""Functions as bytes: what goes along to the site, and what is refused."""

from __future__ import annotations

import pickle
from concurrent.futures import Future

import dcde
import pytest
from dcde.errors import FunctionsError, InvalidParameter
from dcde.functions.apps import App
from dcde.functions.packing import pack, read, versions
from parsl.serialize import serialize
from parsl.serialize.facade import unpack_and_deserialize

NOTEBOOK = """
import json
import dcde
FACTOR = 3
SECRET = "not needed by any function"
def helper(x): return FACTOR * x
def tripled(x): return json.dumps(helper(x))
@dcde.app(site="anl")
def down(n): return 0 if n == 0 else 1 + down(n - 1)
"""


def notebook():
    space = {"__name__": "__main__"}
    exec(NOTEBOOK, space)  # noqa: S102  the test's own text
    return space


def test_a_function_takes_along_what_it_names_and_no_more():
    packed = pack(notebook()["tripled"], (4,), {})
    function, args, kwargs = unpack_and_deserialize(packed)
    assert (function(*args, **kwargs), kwargs) == ("12", {})
    assert b"not needed" not in packed


def test_a_function_that_names_itself_goes_without_our_decorator():
    packed = pack(notebook()["down"].function, (3,), {})
    assert b"dcde.functions" not in packed, "there is no dcde where it runs"
    function, args, _ = unpack_and_deserialize(packed)
    assert function(*args) == 3


def test_what_cannot_be_packed_is_named():
    with pytest.raises(InvalidParameter, match="cannot be packed") as found:
        pack(len, ((x for x in ()),), {})
    assert found.value.where == "len"


def test_messages_are_read_back():
    assert read(pickle.dumps({"task_id": 7, "type": "result", "result": serialize([1])})) == (7, [1], None)
    number, _, error = read(pickle.dumps({"task_id": 8, "type": "result", "result": b"02\nrubbish"}))
    assert number == 8
    assert isinstance(error, FunctionsError), "one that cannot be read fails its own call only"


def test_versions_are_all_there():
    assert set(versions()) == {"python", "parsl", "dill"}
    assert all(versions().values())


def test_app_needs_a_site_and_map_an_app():
    with pytest.raises(InvalidParameter, match="needs a site"):
        dcde.app(lambda x: x)
    with pytest.raises(InvalidParameter, match="runs at a site"):
        dcde.map(len, [[1]])


class Here(App):
    """Runs its calls at once, in this process."""

    def __call__(self, *args):
        future = Future()
        future.set_running_or_notify_cancel()
        try:
            future.set_result(self.function(*args))
        except Exception as error:
            future.set_exception(error)
        return future

    def pool(self):
        raise AssertionError("it is done at once")


def test_map_gives_results_in_order_and_shows_how_far_it_is(capsys):
    assert dcde.map(Here(abs, {"site": "x"}), range(-3, 1)) == [3, 2, 1, 0]
    assert "abs: 4 of 4" in capsys.readouterr().err
    assert dcde.map(Here(abs, {"site": "x"}), []) == []
    assert capsys.readouterr().err == ""


def test_map_raises_what_the_first_call_raised():
    with pytest.raises(ZeroDivisionError):
        dcde.map(Here(lambda x: 1 / x, {"site": "x"}), [1, 0, 2], progress=False)
