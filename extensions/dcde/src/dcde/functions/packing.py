"""Functions and arguments as bytes, in the form that Parsl's workers take, and their results back again."""

from __future__ import annotations

import pickle
import platform
from collections.abc import Callable
from typing import Any

import dill  # type: ignore[import-untyped]
from parsl.app.errors import RemoteExceptionWrapper
from parsl.serialize import deserialize, serialize
from parsl.serialize.concretes import DillCallableSerializer
from parsl.serialize.facade import pack_buffers
from parsl.version import VERSION

from dcde.errors import FunctionsError, InvalidParameter

NO_WARNING = 1 << 62


def versions() -> dict[str, str]:
    """Return the versions that must be the same at the site."""
    return {"python": platform.python_version(), "parsl": VERSION, "dill": dill.__version__}


def pack(function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> bytes:
    """Return a call as bytes. The function takes along those globals of the notebook that it names, and no others.

    Raises:
        InvalidParameter: The function or an argument cannot be packed, such as an open file.
    """
    try:
        code = DillCallableSerializer.identifier + b"\n" + dill.dumps(function, recurse=True)
        return pack_buffers([code, serialize(args, NO_WARNING), serialize(kwargs, NO_WARNING)])
    except Exception as error:  # Anything may go wrong in the packing of a person's objects.
        raise InvalidParameter(
            f"the call cannot be packed for the site: {type(error).__name__}: {error}",
            where=function.__qualname__,
            remedy="Pass plain data, and open files and connections inside the function.",
        ) from error


def read(message: bytes) -> tuple[int, Any, BaseException | None]:
    """Return the number of a call with its result or its exception, from a message of the interchange.

    This unpickles what the person's own workers sent, in the person's own kernel and nowhere else.
    """
    said = pickle.loads(message)  # noqa: S301  see above
    number = int(said["task_id"])
    try:
        if "result" in said:
            return number, deserialize(said["result"]), None
        raised = deserialize(said["exception"])
    except Exception as error:
        unreadable = FunctionsError(
            f"what the function returned cannot be read here: {type(error).__name__}: {error}",
            remedy="Return plain data, or objects of packages that are installed on both sides.",
        )
        return number, None, unreadable
    if isinstance(raised, RemoteExceptionWrapper):
        return number, None, raised.get_exception()
    return number, None, raised if isinstance(raised, BaseException) else FunctionsError(repr(raised))
