"""The session: one ordered byte stream in each direction that outlives the carriers it travels on.

Each end counts the bytes it has sent and received since the session began and keeps what the other has not yet
acknowledged. A new carrier starts with both ends naming what they have received; each then sends again from there.
What arrives twice is known by its offset and dropped, so nothing is lost and nothing is doubled.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import deque
from collections.abc import Callable

from .protocol import (
    ACK,
    BEAT,
    CHUNK,
    DATA,
    DATA_FRAME,
    OFFSET,
    SEND_LIMIT,
    Frames,
    ProtocolError,
    Writer,
    frame,
)

ACK_BYTES = 128 * 1024
"""So many bytes may be received before they are acknowledged without waiting for data going the other way."""
ACK_DELAY_S = 0.05


class SessionEnded(Exception):
    """The session is over; nothing can be sent on it any more."""


class Session:
    """One end of a session.

    Args:
        session_id: A random name given by the near end.
        on_bytes: Called with each new part of the stream from the other end, in order and exactly once. It must not
            block.
    """

    def __init__(self, session_id: str, on_bytes: Callable[[bytes], None]) -> None:
        self.id = session_id
        self.received = 0
        self.sent = 0
        self.resent = 0
        self.attached = False
        self._on_bytes = on_bytes
        self._unacked: deque[bytes] = deque()
        self._unsent: deque[bytes] = deque()
        self._unsent_size = 0
        self._acked = 0
        self._acked_to_peer = 0
        self._carrier: Writer | None = None
        self._turn = 0
        self._wake = asyncio.Event()
        self._room = asyncio.Event()
        self._room.set()
        self._ack_timer: asyncio.TimerHandle | None = None
        self._ended = False

    @property
    def pending(self) -> int:
        """How many bytes the other end has not acknowledged."""
        return self.sent - self._acked

    async def send(self, data: bytes) -> None:
        """Put bytes on the stream, waiting first while too many are not acknowledged. Raises SessionEnded."""
        while not self._room.is_set() and not self._ended:
            await self._room.wait()
        self.send_now(data)

    def send_now(self, data: bytes) -> None:
        """Put a few bytes on the stream without waiting for room: for credits, cancellations and the like."""
        if self._ended:
            raise SessionEnded
        for start in range(0, len(data), CHUNK):
            self._unsent.append(data[start : start + CHUNK])
        self.sent += len(data)
        self._unsent_size += len(data)
        if self.pending >= SEND_LIMIT:
            self._room.clear()
        self._wake.set()

    def end(self) -> None:
        """End the session: senders waiting for room get SessionEnded, a carrier in use is closed."""
        self._ended = True
        self._room.set()
        self._unacked.clear()
        self._unsent.clear()
        self._unsent_size = 0
        self.drop()

    def drop(self) -> None:
        """Close the carrier in use; the session waits for another."""
        self._turn += 1
        self.attached = False
        if self._carrier is not None:
            self._carrier.close()
            self._carrier = None

    async def run(self, frames: Frames, writer: Writer, *, peer_received: int, beat_s: float, silent_s: float) -> bool:
        """Carry the session over one carrier until that ends, is replaced, or falls silent; True when it fell silent.

        Args:
            frames: The reading half, from which the greeting has been taken.
            writer: The writing half.
            peer_received: How much of our stream the other end said it has.
            beat_s: How often we say that we are there, in seconds.
            silent_s: After this many seconds without one byte from the other end the carrier is given up.

        Raises:
            ProtocolError: The other end broke the protocol.
        """
        self.drop()
        turn = self._turn
        self._rewind(peer_received)
        self._carrier = writer
        self.attached = True
        beat = asyncio.ensure_future(self._beat(frames, writer, beat_s, silent_s))
        tasks = [beat, asyncio.ensure_future(self._pump(writer)), asyncio.ensure_future(self._read(frames, turn))]
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            if turn == self._turn:
                self.drop()
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        for task in done:
            error = None if task.cancelled() else task.exception()
            if error is not None and not isinstance(error, OSError):
                raise error
        return beat in done

    def _rewind(self, peer_received: int) -> None:
        """Make everything the other end lacks unsent again."""
        if peer_received < self._acked:
            raise ProtocolError(f"the other end wants byte {peer_received} again, which it had acknowledged")
        self._take_ack(peer_received)
        again = sum(map(len, self._unacked))
        self.resent += again
        self._unsent_size += again
        self._unsent.extendleft(reversed(self._unacked))
        self._unacked.clear()
        self._acked_to_peer = self.received
        if self._unsent:
            self._wake.set()

    def _take_ack(self, offset: int) -> None:
        if offset > self.sent - self._unsent_size:
            raise ProtocolError("bytes were acknowledged that were never sent")
        while self._unacked and self._acked + len(self._unacked[0]) <= offset:
            self._acked += len(self._unacked.popleft())
        if self.pending < SEND_LIMIT:
            self._room.set()

    async def _pump(self, writer: Writer) -> None:
        while True:
            if not self._unsent:
                self._wake.clear()
                await self._wake.wait()
                continue
            offset = self.sent - self._unsent_size
            parts = [self._unsent.popleft()]
            size = len(parts[0])
            while self._unsent and size + len(self._unsent[0]) <= CHUNK:
                parts.append(self._unsent.popleft())
                size += len(parts[-1])
            data = parts[0] if len(parts) == 1 else b"".join(parts)
            self._unsent_size -= size
            self._unacked.append(data)
            self._acked_to_peer = self.received
            writer.write(frame(DATA_FRAME, DATA.pack(offset, self.received) + data))
            await writer.drain()

    async def _beat(self, frames: Frames, writer: Writer, beat_s: float, silent_s: float) -> None:
        while (left := frames.heard_at + silent_s - time.monotonic()) > 0:
            writer.write(frame(BEAT))
            await asyncio.sleep(min(beat_s, left))

    async def _read(self, frames: Frames, turn: int) -> None:
        while turn == self._turn:
            found = await frames.next()
            if found is None or turn != self._turn:
                return
            kind, payload = found
            if kind == DATA_FRAME:
                self._take_data(payload)
            elif kind == ACK and len(payload) == OFFSET.size:
                self._take_ack(OFFSET.unpack(payload)[0])
            elif kind != BEAT:
                raise ProtocolError(f"a frame of kind {kind} and {len(payload)} bytes has no place here")

    def _take_data(self, payload: bytes) -> None:
        if len(payload) < DATA.size:
            raise ProtocolError("a data frame is too short")
        offset, acked = DATA.unpack_from(payload)
        self._take_ack(acked)
        skip = self.received - offset
        if skip < 0:
            raise ProtocolError(f"bytes are missing: {offset} came where {self.received} was due")
        data = payload[DATA.size + skip :]
        if data:
            self.received += len(data)
            self._on_bytes(data)
        self._ack_soon()

    def _ack_soon(self) -> None:
        if self.received - self._acked_to_peer >= ACK_BYTES:
            self._ack_now()
        elif self._ack_timer is None:
            self._ack_timer = asyncio.get_running_loop().call_later(ACK_DELAY_S, self._ack_now)

    def _ack_now(self) -> None:
        if self._ack_timer is not None:
            self._ack_timer.cancel()
            self._ack_timer = None
        if self._carrier is not None and self.received != self._acked_to_peer:
            self._acked_to_peer = self.received
            with contextlib.suppress(OSError):
                self._carrier.write(frame(ACK, OFFSET.pack(self.received)))
