"""What a notebook calls: `app` makes a function run at a site, `map` runs it over many items."""

from __future__ import annotations

import concurrent.futures
import functools
import sys
import time
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from dcde.errors import InvalidParameter

if TYPE_CHECKING:
    from dcde.functions.pool import Pool

SHOW_S = 0.5
"""Seconds between two states of the progress line."""


class App:
    """A function whose calls run at a site; each call returns a future at once.

    A call may take futures of other calls as arguments: it waits for them and gets their results.
    """

    def __init__(self, function: Callable[..., Any], wish: dict[str, Any]) -> None:
        functools.update_wrapper(self, function)
        self.function = function
        self._wish = wish

    def __call__(self, *args: Any, **kwargs: Any) -> concurrent.futures.Future[Any]:
        return self.pool().call(self.function, args, kwargs)

    def pool(self) -> Pool:
        """Return the workers that run it, which all functions with the same wishes share."""
        from dcde.functions.pool import pool_for  # Parsl loads here.

        return pool_for(self._wish)

    def __repr__(self) -> str:
        return f"<function {self.function.__qualname__} at {self._wish['site']}>"

    def __reduce__(self) -> tuple[Any, ...]:
        # A function that names this one takes the plain function along: there is no dcde where it runs.
        return getattr, (functools.partial(self.function), "func")


def app(
    site: str,
    *,
    cores: int = 1,
    workers: int | None = None,
    minutes: int | None = None,
    allocation: str | None = None,
    partition: str | None = None,
) -> Callable[[Callable[..., Any]], App]:
    """Return a decorator that makes a function run at a site; a call then returns a future at once.

    The function goes to the site with what it names in the notebook: other functions, imported modules, values. What it
    imports must be installed there. Workers are started at the first call and released when there is nothing to do.

    Args:
        site: The site, by name or alias.
        cores: The cores of one call.
        workers: So many calls may run at once; by default as many as one node can hold.
        minutes: The longest a batch job with workers may last; calls that it cuts off are run once more.
        allocation: What the site's scheduler shall charge.
        partition: The partition (queue) of the scheduler.
    """
    if not isinstance(site, str):
        raise InvalidParameter("`app` needs a site", where="site", remedy='Write @dcde.app(site="...").')
    wish = {
        "site": site,
        "cores": cores,
        "workers": workers,
        "minutes": minutes,
        "allocation": allocation,
        "partition": partition,
    }

    def decorate(function: Callable[..., Any]) -> App:
        return App(function, {name: value for name, value in wish.items() if value is not None})

    return decorate


def map(function: App, items: Iterable[Any], *, progress: bool = True) -> list[Any]:
    """Run a function over items at its site and return the results in order, showing how far it is.

    Args:
        function: A function made by `app`.
        items: One argument for each call.
        progress: Whether to show a line with the calls done.

    Raises:
        Exception: What a call raised, of the first item whose call did; the calls not yet begun are given up.
    """
    if not isinstance(function, App):
        raise InvalidParameter(
            "`map` needs a function that runs at a site", where="function", remedy="Put @dcde.app(site=...) above it."
        )
    futures = [function(item) for item in items]
    line = _Line(function, len(futures)) if progress and futures else None
    try:
        waiting = set(futures)
        while waiting:
            done, waiting = concurrent.futures.wait(waiting, SHOW_S, concurrent.futures.FIRST_EXCEPTION)
            if line:
                line.show(sum(future.done() for future in futures))
            if any(future.exception() for future in done):
                break
        return [future.result() for future in futures if not waiting or (future.done() and future.exception())]
    finally:
        for future in futures:
            future.cancel()
        if line:
            line.end()


class _Line:
    """A line of progress on the standard error, written over itself."""

    def __init__(self, function: App, total: int) -> None:
        self._function = function
        self._total = total
        self._width = 0
        self._began = time.monotonic()

    def show(self, done: int) -> None:
        text = f"{self._function.function.__qualname__}: {done} of {self._total}"
        if done < self._total:
            text += f"  {self._function.pool().note}"
        else:
            text += f"  {time.monotonic() - self._began:.1f} s"
        sys.stderr.write("\r" + text.ljust(self._width))
        sys.stderr.flush()
        self._width = len(text)

    def end(self) -> None:
        sys.stderr.write("\n")
