"""The order of steps, and the three ways in which a set of steps is no graph."""

from __future__ import annotations

from collections.abc import Iterable


def ordered(needs: Iterable[tuple[str, Iterable[str]]]) -> list[str]:
    """Return the ids so that each comes after everything it needs; otherwise the order given is kept.

    Raises ValueError that names the duplicate id, the unknown step, or the whole cycle.
    """
    wanted: dict[str, list[str]] = {}
    for name, before in needs:
        if name in wanted:
            raise ValueError(f"two steps are called {name!r}")
        wanted[name] = list(dict.fromkeys(before))
    for name, before in wanted.items():
        for other in before:
            if other not in wanted:
                raise ValueError(f"step {name!r} needs {other!r}, but there is no such step")
    done: dict[str, None] = {}
    while len(done) < len(wanted):
        ready = [name for name, before in wanted.items() if name not in done and all(b in done for b in before)]
        if not ready:
            raise ValueError("steps need each other in a circle: " + " -> ".join(_cycle(wanted, done)))
        done[ready[0]] = None
    return list(done)


def _cycle(wanted: dict[str, list[str]], done: dict[str, None]) -> list[str]:
    """Return one cycle among the steps that never became ready, its first step repeated at the end."""
    step = next(name for name in wanted if name not in done)
    path: list[str] = []
    while step not in path:
        path.append(step)
        step = next(before for before in wanted[step] if before not in done)
    return [*path[path.index(step) :], step]
