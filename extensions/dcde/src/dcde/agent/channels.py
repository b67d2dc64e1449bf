"""Requests and byte streams side by side on one session.

Each request opens a channel, named by a number. On it may travel: news in JSON, stream data in both directions with a
credit for each, the end of the data, and at last one result or one error. A channel without credit waits without
holding up the others.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Any

from .protocol import (
    BYTES,
    CANCEL,
    CHUNK,
    CREDIT,
    END,
    ERROR,
    INFO,
    MAX_JSON,
    REQUEST,
    RESULT,
    STREAM_WINDOW,
    WINDOW,
    Messages,
    OpError,
    ProtocolError,
    dump,
    load,
    load_object,
    message,
)
from .session import Session, SessionEnded

log = logging.getLogger("dcde.agent")

MAX_CHANNELS = 512
"""So many requests may be open at once on one session."""

Handler = Callable[["Channel", str, "dict[str, Any]"], Awaitable[Any]]


class Channel:
    """One end of one request."""

    def __init__(self, owner: Channels, number: int) -> None:
        self.number = number
        self.result: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._owner = owner
        self._news: asyncio.Queue[Any] = asyncio.Queue()
        self._data: deque[bytes] = deque()
        self._changed = asyncio.Event()
        self._held = 0
        self._used = 0
        self._credit = STREAM_WINDOW
        self._credited = asyncio.Event()
        self._data_ended = False
        self._error: Exception | None = None

    @property
    def attached(self) -> bool:
        """Whether the session has a carrier now."""
        return self._owner.session.attached

    async def send(self, data: bytes) -> None:
        """Send stream data, waiting for credit and for room in the session."""
        for start in range(0, len(data), CHUNK):
            part = data[start : start + CHUNK]
            while self._credit < len(part):
                self._check()
                self._credited.clear()
                await self._credited.wait()
            self._check()
            self._credit -= len(part)
            await self._owner.send(BYTES, self.number, part)

    async def send_end(self) -> None:
        """Say that no more stream data follows."""
        self._check()
        await self._owner.send(END, self.number)

    async def send_news(self, value: Any) -> None:
        """Send one piece of news, any JSON value, ahead of the result."""
        await self._owner.send(INFO, self.number, dump(value))

    async def receive(self) -> bytes | None:
        """Return the next stream data, or None at its end. Raises the error with which the request failed."""
        while not self._data:
            if self._data_ended:
                return None
            self._check()
            self._changed.clear()
            await self._changed.wait()
        data = self._data.popleft()
        self._held -= len(data)
        self._used += len(data)
        if self._used >= STREAM_WINDOW // 4 and not self._data_ended:
            self._owner.send_now(WINDOW, self.number, CREDIT.pack(self._used))
            self._used = 0
        return data

    async def news(self) -> Any:
        """Return the next piece of news. Raises the error with which the request failed."""
        waiting = asyncio.ensure_future(self._news.get())
        try:
            await asyncio.wait([waiting, self.result], return_when=asyncio.FIRST_COMPLETED)
            if waiting.done():
                return waiting.result()
            self._check()
            raise ProtocolError("the request ended without the news it promised")
        finally:
            waiting.cancel()

    def _check(self) -> None:
        if self._error is not None:
            raise self._error

    def take(self, kind: int, payload: bytes) -> None:
        """Take a message of this channel that came from the other end."""
        if kind == BYTES:
            self._held += len(payload)
            if self._held > STREAM_WINDOW or self._data_ended:
                raise ProtocolError("more stream data came than there was credit for")
            self._data.append(payload)
            self._changed.set()
        elif kind == END:
            self._data_ended = True
            self._changed.set()
        elif kind == WINDOW:
            if len(payload) != CREDIT.size:
                raise ProtocolError("a credit has the wrong size")
            self._credit += CREDIT.unpack(payload)[0]
            self._credited.set()
        elif kind == INFO:
            if self._news.qsize() >= 64:
                raise ProtocolError("more news came than anybody reads")
            self._news.put_nowait(load(payload))
        else:
            raise ProtocolError(f"a message of the unknown kind {kind}")

    def finish(self, value: Any) -> None:
        """Note the result that came."""
        if not self.result.done():
            self.result.set_result(value)

    def fail(self, error: Exception) -> None:
        """Note that the request failed; everybody who waits on the channel gets the error."""
        self._error = error
        if not self.result.done():
            self.result.set_exception(error)
            self.result.exception()  # Marks it as seen: a stream reports the error through `receive` or `send`.
        self._changed.set()
        self._credited.set()


class Channels:
    """All requests on one session.

    Args:
        handler: Answers requests of the other end; without one they are refused.
    """

    def __init__(self, session_id: str, handler: Handler | None = None) -> None:
        self.session = Session(session_id, self._feed)
        self._handler = handler
        self._messages = Messages()
        self._open: dict[int, Channel] = {}
        self._tasks: dict[int, asyncio.Task[None]] = {}
        self._last = 0

    async def send(self, kind: int, number: int, payload: bytes = b"") -> None:
        """Put one message on the session, waiting for room. Raises SessionEnded."""
        await self.session.send(message(kind, number, payload))

    def send_now(self, kind: int, number: int, payload: bytes = b"") -> None:
        """Put one short message on the session without waiting for room."""
        self.session.send_now(message(kind, number, payload))

    async def request(self, op: str, args: dict[str, Any]) -> Channel:
        """Open a channel with a request; its `result` comes when the other end has answered."""
        self._last = self._last % 0x7FFFFFFF + 1
        channel = Channel(self, self._last)
        self._open[channel.number] = channel
        try:
            await self.send(REQUEST, channel.number, dump({"op": op, "args": args}))
        except BaseException:
            self._open.pop(channel.number, None)
            raise
        return channel

    def cancel(self, channel: Channel) -> None:
        """Give a request up: the other end is told, and what still comes of it is dropped."""
        if self._open.pop(channel.number, None) is not None:
            with contextlib.suppress(SessionEnded):
                self.send_now(CANCEL, channel.number)

    def give_up(self, error: Exception) -> None:
        """Give every open request up, while the session stays; each fails with `error`."""
        for channel in list(self._open.values()):
            self.cancel(channel)
            channel.fail(error)

    def end(self, error: Exception) -> None:
        """End the session; every open request fails with `error`, every answer in the making is given up."""
        self.session.end()
        for channel in list(self._open.values()):
            channel.fail(error)
        self._open.clear()
        for task in self._tasks.values():
            task.cancel()

    def _feed(self, data: bytes) -> None:
        for kind, number, payload in self._messages.feed(data):
            self._take(kind, number, payload)

    def _take(self, kind: int, number: int, payload: bytes) -> None:
        if kind == REQUEST:
            self._start(number, load_object(payload))
            return
        if kind == CANCEL:
            if number in self._tasks:
                self._tasks[number].cancel()
            return
        channel = self._open.get(number)
        if channel is None:
            return  # It was given up here while this was under way.
        if kind == RESULT:
            del self._open[number]
            channel.finish(load(payload))
        elif kind == ERROR:
            del self._open[number]
            channel.fail(read_error(load_object(payload)))
        else:
            channel.take(kind, payload)

    def _start(self, number: int, request: dict[str, Any]) -> None:
        op, args = request.get("op"), request.get("args", {})
        if self._handler is None or not isinstance(op, str) or not isinstance(args, dict):
            refusal = OpError("AgentError", "this end answers no such request")
            self.send_now(ERROR, number, dump(refusal.to_json()))
            return
        if number in self._tasks:
            raise ProtocolError(f"channel {number} was opened twice")
        if len(self._tasks) >= MAX_CHANNELS:
            refusal = OpError("AgentError", "too many requests are open at once", retry=True)
            self.send_now(ERROR, number, dump(refusal.to_json()))
            return
        channel = Channel(self, number)
        self._open[number] = channel
        task = asyncio.ensure_future(self._answer(self._handler, channel, op, args))
        self._tasks[number] = task
        task.add_done_callback(lambda _: self._tasks.pop(number, None))

    async def _answer(self, handler: Handler, channel: Channel, op: str, args: dict[str, Any]) -> None:
        try:
            try:
                answer = dump(await handler(channel, op, args))
                if len(answer) > MAX_JSON:
                    raise OpError("AgentError", "the answer is too long", where=op, remedy="Ask for less at once.")
                kind = RESULT
            except OpError as error:
                kind, answer = ERROR, dump(error.to_json())
            except SessionEnded:
                raise
            except Exception as error:
                # The asker must get an answer, whatever is wrong here.
                log.exception("the operation %s failed", op)
                failure = OpError("AgentError", f"{type(error).__name__}: {error}", where=op)
                kind, answer = ERROR, dump(failure.to_json())
            self._open.pop(channel.number, None)
            await self.send(kind, channel.number, answer)
        except SessionEnded:
            return
        finally:
            self._open.pop(channel.number, None)


def read_error(data: dict[str, Any]) -> OpError:
    """Return the error that came as JSON, with its texts cut to a bearable length."""
    return OpError(
        str(data.get("code", "AgentError"))[:80],
        str(data.get("message", ""))[:4000],
        where=str(data.get("where", ""))[:4000],
        remedy=str(data.get("remedy", ""))[:1000],
        retry=data.get("retry") is True,
    )
