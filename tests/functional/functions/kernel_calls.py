"""What a notebook's kernel does, in a process of its own: kernel_calls.py SCENARIO [SITE...].

Each scenario prints JSON lines; where it waits for the test it reads a line.
"""

from __future__ import annotations

import json
import statistics
import sys
import time
import traceback
from concurrent.futures import wait
from typing import Any

import dcde
from dcde.errors import DcdeError

FACTOR = 3


def say(**words: Any) -> None:
    print(json.dumps(words), flush=True)


def tripled(x):
    return FACTOR * x


def right(site: str) -> None:
    """200 calls, with what the notebook has: a helper, a global, a module; then some figures."""

    @dcde.app(site=site)
    def f(x):
        import socket

        return [tripled(x), json.dumps(x), socket.gethostname()]

    began = time.monotonic()
    first = f(0).result(100)
    first_s = time.monotonic() - began
    results = dcde.map(f, range(200), progress=False)
    assert [r[0] for r in results] == [3 * x for x in range(200)]

    @dcde.app(site=site)
    def echo(x):
        return x

    times = []
    for x in range(100):
        began = time.monotonic()
        assert echo(x).result(30) == x
        times.append(time.monotonic() - began)
    began = time.monotonic()
    assert dcde.map(echo, range(1000), progress=False) == list(range(1000))
    rate = 1000 / (time.monotonic() - began)
    block = b"\7" * 20_000_000
    began = time.monotonic()
    assert echo(block).result(100) == block
    say(
        host=first[2],
        first_s=round(first_s, 2),
        p50_ms=round(statistics.median(times) * 1000, 2),
        rate=round(rate),
        big_s=round(time.monotonic() - began, 2),
        hosts=sorted({r[2] for r in results}),
    )


def both(*sites: str) -> None:
    """Two sites at once, and a call at one that takes a future of the other."""

    def host(x):
        import socket
        import time

        time.sleep(0.01)
        return x, socket.gethostname()

    apps = [dcde.app(site=site)(host) for site in sites]
    futures = [[app(x) for x in range(100)] for app in apps]
    results = [[future.result(100) for future in part] for part in futures]
    assert all([x for x, _ in part] == list(range(100)) for part in results)

    @dcde.app(site=sites[1])
    def after(pair):
        return pair[0] + 1

    assert after(apps[0](41)).result(60) == 42
    say(hosts=[sorted({h for _, h in part}) for part in results])


def cut(site: str) -> None:
    """Calls at ten a second for 50 s, with 20 kB each way."""

    @dcde.app(site=site)
    def echo(x, data):
        return x, data

    assert echo(0, b"").result(100) == (0, b"")
    say(ready=True)
    data = bytes(20_000)
    futures = []
    end = time.monotonic() + float(sys.stdin.readline())
    while time.monotonic() < end:
        futures.append(echo(len(futures), data))
        time.sleep(0.1)
    sent = time.monotonic()
    done, left = wait(futures, 90)
    wrong = [n for n, future in enumerate(futures) if not future.done() or future.result() != (n, data)]
    say(calls=len(futures), done=len(done), left=len(left), wrong=len(wrong), after_s=round(time.monotonic() - sent, 1))


def lost(site: str) -> None:
    """Calls that are under way when something dies; each must come back right."""

    @dcde.app(site=site)
    def slow(x):
        import time

        time.sleep(0.5)
        return x * x

    assert slow(2).result(100) == 4
    futures = [slow(x) for x in range(20)]
    futures[0].result(60)
    say(under_way=True)
    sys.stdin.readline()
    began = time.monotonic()
    answers = [future.result(100) for future in futures]
    say(right=answers == [x * x for x in range(20)], seconds=round(time.monotonic() - began, 1))
    say(next=slow(9).result(60))


def refused(site: str) -> None:
    @dcde.app(site=site)
    def f(x):
        return x

    for _ in range(2):
        error = f(1).exception(100)
        assert isinstance(error, DcdeError)
        say(error=error.to_json())


def wrong(site: str) -> None:
    """What goes wrong in a function is told as it was, and nothing else is disturbed."""

    @dcde.app(site=site)
    def divide(x):
        def inner(y):
            return 1 / y

        return inner(x)

    error = divide(0).exception(100)
    say(type=type(error).__name__, text="".join(traceback.format_exception(error)))

    @dcde.app(site=site)
    def dies():
        import os

        os._exit(3)

    error = dies().exception(100)
    say(type=type(error).__name__, text=str(error), retry=error.retry)

    @dcde.app(site=site)
    def strange():
        import sys
        import types

        module = types.ModuleType("only_there")
        sys.modules["only_there"] = module
        exec("class Thing:\n    pass", module.__dict__)  # noqa: S102  what a function of a person may do
        return module.Thing()

    error = strange().exception(100)
    say(type=type(error).__name__, text=str(error))
    try:
        divide(x for x in ())
    except DcdeError as found:
        say(type=type(found).__name__, text=str(found))
    assert divide(2).result(60) == 0.5
    say(after="right")


def idle(site: str) -> None:
    """Workers are released when there is nothing to do, and come back."""
    from dcde.client import SyncClient
    from dcde.functions.pool import Pool, PoolTimes

    pool = Pool({"site": site}, SyncClient(), PoolTimes(idle=2, rest=15))

    def f(x):
        return x + 1

    assert pool.call(f, (1,), {}).result(100) == 2
    say(done=1)
    sys.stdin.readline()
    assert pool.call(f, (2,), {}).result(100) == 3
    say(done=2)
    sys.stdin.readline()
    pool.close()


if __name__ == "__main__":
    scenario = {f.__name__: f for f in (right, both, cut, lost, refused, wrong, idle)}[sys.argv[1]]
    scenario(*sys.argv[2:])
