"""The workers at one site as a notebook has them: calls that wait, calls under way, and what keeps them going.

One thread keeps the pool. It has the runner start an interchange when there are calls, watches it, and starts another
when it has ended: calls that were under way are sent once more, and fail when that is lost too. While the link is down
or the runner away, calls wait.
"""

from __future__ import annotations

import atexit
import itertools
import logging
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any

from parsl.executors.high_throughput.errors import ManagerLost, WorkerLost

from dcde.client import SyncClient
from dcde.errors import DcdeError, FunctionLost, RunnerUnreachable, UnknownName, error_from_json
from dcde.functions.packing import pack, read, versions
from dcde.functions.pipes import Pipes

log = logging.getLogger(__name__)

TRIES = 2
"""So often a call is sent before its loss is an error."""
START_LIMIT_S = 180.0
STOP_LIMIT_S = 10.0


@dataclass(frozen=True)
class PoolTimes:
    """How long a pool waits, in seconds.

    Attributes:
        look: Between two looks at the interchange while there are calls.
        idle: Without a call for so long, the workers are released.
        rest: Without a call for so long, the interchange is ended too.
        pause: Between two attempts to start an interchange.
    """

    look: float = 0.5
    idle: float = 60.0
    rest: float = 600.0
    pause: float = 2.0


@dataclass
class Call:
    """One call, from its making to its result."""

    name: str
    packed: bytes
    future: Future[Any]
    tries: int = 0


class Pool:
    """Runs calls with one set of wishes at one site.

    Args:
        wish: What `functions.start` takes: site, cores and so on.
        client: The way to the runner.
        times: How long it waits.
    """

    def __init__(self, wish: dict[str, Any], client: SyncClient, times: PoolTimes | None = None) -> None:
        self._wish = wish
        self._client = client
        self._times = times or PoolTimes()
        self._lock = threading.Lock()
        self._calls: dict[int, Call] = {}
        self._numbers = itertools.count(1)
        self._pipes: Pipes | None = None
        self._wake = threading.Event()
        self._closed = False
        self._last_work = time.monotonic()
        self._broken: BaseException | None = None
        self.title = str(wish["site"])
        self.note = ""
        self._thread = threading.Thread(target=self._keep, name=f"dcde functions at {self.title}", daemon=True)
        self._thread.start()

    def call(self, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Future[Any]:
        """Return the future of a call at once; futures among its arguments are waited for first.

        Raises:
            InvalidParameter: The function or an argument cannot be packed.
        """
        future: Future[Any] = Future()
        needed = [value for value in (*args, *kwargs.values()) if isinstance(value, Future)]
        if not needed:
            self._add(Call(function.__qualname__, pack(function, args, kwargs), future))
            return future
        left = itertools.count(len(needed) - 1, -1)

        def one_done(_: Future[Any]) -> None:
            if next(left) == 0:
                self._call_with_results(function, args, kwargs, future)

        for value in needed:
            value.add_done_callback(one_done)
        return future

    def _call_with_results(
        self, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any], future: Future[Any]
    ) -> None:
        try:
            full = tuple(_value(arg) for arg in args)
            named = {name: _value(arg) for name, arg in kwargs.items()}
            packed = pack(function, full, named)
        except BaseException as error:  # Also a cancelled future: whatever it was, the call has it.
            if future.set_running_or_notify_cancel():
                future.set_exception(error)
            return
        self._add(Call(function.__qualname__, packed, future))

    def close(self) -> None:
        """End the interchange and its workers. Calls under way are given up."""
        self._closed = True
        self._wake.set()
        self._thread.join(STOP_LIMIT_S)

    def _add(self, call: Call) -> None:
        with self._lock:
            number = next(self._numbers)
            self._calls[number] = call
            self._last_work = time.monotonic()
            if self._pipes:
                self._send(number, call)
        self._wake.set()

    def _send(self, number: int, call: Call) -> None:
        """Send a call that nobody has cancelled; with the lock held."""
        assert self._pipes is not None  # noqa: S101  both callers have looked
        if call.tries == 0 and not call.future.set_running_or_notify_cancel():
            del self._calls[number]
            return
        call.tries += 1
        self._pipes.send(number, call.packed)

    def _keep(self) -> None:
        while not self._closed:
            self._wake.wait()
            self._wake.clear()
            if not self._calls or self._closed:
                continue
            try:
                self._serve()
            except DcdeError as error:
                self._not_started(error)
            except Exception as error:
                log.exception("the functions at %s met an unforeseen error", self.title)
                self._fail_all(error)

    def _not_started(self, error: DcdeError) -> None:
        """Wait and try again where that can help; otherwise the calls that wait fail with the reason."""
        if not error.retry:
            self._fail_all(error)
            return
        self.note = str(error)
        self._wake.set()
        time.sleep(self._times.pause)

    def _fail_all(self, error: BaseException) -> None:
        with self._lock:
            calls, self._calls = tuple(self._calls.values()), {}
        for call in calls:
            if call.tries or call.future.set_running_or_notify_cancel():
                call.future.set_exception(error)

    def _serve(self) -> None:
        """Start an interchange and see to it until it has ended or there is nothing to do any more."""
        pipes = Pipes(self._take)
        try:
            self._broken = None
            wish = self._wish | {"ports": pipes.ports, "certificates": pipes.certificates, "versions": versions()}
            self.note = "the interchange is being started"
            began = self._client.call("functions.start", timeout=START_LIMIT_S, **wish)
            self.title = str(began["title"])
            try:
                self._open(pipes)
                self._look_after(pipes, began)
            finally:
                with self._lock:
                    self._pipes = None
                self._stop(str(began["id"]))
        finally:
            pipes.close()
            self._send_again()

    def _open(self, pipes: Pipes) -> None:
        """Let the calls go, those that wait and those to come; the pipes hold them until the interchange is there."""
        with self._lock:
            self._pipes = pipes
            for number, call in tuple(self._calls.items()):
                self._send(number, call)

    def _look_after(self, pipes: Pipes, began: dict[str, Any]) -> None:
        blocks, port = 0, None
        while not self._closed:
            port = port or pipes.worker_port()
            blocks = self._blocks(began, blocks)
            idle = time.monotonic() - self._last_work
            if (not self._calls and idle >= self._times.rest) or self._broken:
                return
            try:
                answer = self._client.call("functions.status", id=began["id"], blocks=blocks, worker_port=port)
            except RunnerUnreachable as error:
                self.note = str(error)
                time.sleep(self._times.look)
                continue
            except UnknownName:
                return  # Another runner has taken the place of the one that had it.
            if answer["state"] == "ended":
                log.warning("functions at %s: %s", self.title, answer["error"].get("message"))
                return
            if answer["trouble"]:
                self._fail_all(error_from_json(answer["trouble"]))
                blocks = 0
            self.note = _note(self.title, answer)
            self._wake.wait(self._times.look if port else 0.01)
            if self._calls and port:
                # New calls wake this thread; one look in a while is enough for any number of them.
                time.sleep(min(self._times.look, 0.1))
            self._wake.clear()

    def _blocks(self, began: dict[str, Any], now: int) -> int:
        """Return how many blocks of workers are wanted: more with more calls, none after a time without any."""
        if not self._calls:
            return 0 if time.monotonic() - self._last_work >= self._times.idle else now
        return max(now, min(int(began["blocks"]), -(-len(self._calls) // int(began["workers"]))))

    def _stop(self, id: str) -> None:
        try:
            self._client.call("functions.stop", timeout=STOP_LIMIT_S * 4, id=id)
        except DcdeError as error:
            log.info("functions at %s: %s", self.title, error)

    def _send_again(self) -> None:
        """After the end of an interchange: what was under way goes to the next one, or fails when it was lost twice."""
        lost = []
        with self._lock:
            for number, call in tuple(self._calls.items()):
                if call.tries >= TRIES:
                    lost.append(self._calls.pop(number))
            if self._calls:
                self._wake.set()
        for call in lost:
            call.future.set_exception(self._lost(call, "the interchange that had it has ended"))

    def _lost(self, call: Call, why: str) -> FunctionLost:
        return FunctionLost(
            f"the call of {call.name} was lost: {why}", where=self.title, remedy="Call it again; nothing came of it."
        )

    def _take(self, message: bytes) -> None:
        number, value, error = read(message)
        if number == -1:
            self._broken = error
            log.warning("the interchange at %s: %s", self.title, error)
            self._wake.set()
            return
        with self._lock:
            call = self._calls.get(number)
            if call is None:
                return
            if isinstance(error, ManagerLost) and call.tries < TRIES and self._pipes:
                self._send(number, call)
                return
            del self._calls[number]
            self._last_work = time.monotonic()
        if error is None:
            call.future.set_result(value)
            return
        if isinstance(error, ManagerLost):
            error = self._lost(call, "the batch job that ran it has ended")
        elif isinstance(error, WorkerLost):
            error = self._lost(call, "its worker died, perhaps for want of memory")
        else:
            error.add_note(f"This happened in {call.name} at {self.title}.")
        call.future.set_exception(error)


def _value(argument: Any) -> Any:
    return argument.result() if isinstance(argument, Future) else argument


def _note(title: str, answer: dict[str, Any]) -> str:
    """Return how the workers stand, in a few words for the progress line."""
    if answer["link"] != "up":
        return f"the connection to {title} is {answer['link']}; calls wait"
    states = [block["state"] for block in answer["blocks"]]
    if "running" in states:
        return f"workers at {title}"
    reason = next((block["reason"] for block in answer["blocks"] if block["reason"]), "")
    return f"workers wait in the queue of {title}{f' ({reason})' if reason else ''}"


_pools: dict[tuple[tuple[str, Any], ...], Pool] = {}
_pools_lock = threading.Lock()


def pool_for(wish: dict[str, Any]) -> Pool:
    """Return the kernel's pool with these wishes, made at the first call."""
    key = tuple(sorted(wish.items()))
    with _pools_lock:
        if not _pools:
            atexit.register(close_all)
        if key not in _pools:
            _pools[key] = Pool(dict(wish), SyncClient())
        return _pools[key]


def close_all() -> None:
    """End all pools of this kernel."""
    with _pools_lock:
        pools = tuple(_pools.values())
        _pools.clear()
    for pool in pools:
        pool.close()
