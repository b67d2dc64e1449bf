"""What travels between a link and its agent: frames of the session layer, messages inside the stream, errors.

The page docs/reference/link-protocol.md describes the same in prose. Two layers:

- *frames* go over one carrier (the stdio of an ssh channel) and serve its session: greeting, data with its offset,
  acknowledgement, heartbeat;
- *messages* are cut out of the session's byte stream, which outlives carriers: requests, answers, stream data.

Every length is checked before memory is given to it, and structured content is JSON.
"""

from __future__ import annotations

import json
import struct
import time
from typing import Any, Protocol

VERSION = 1
"""The version of the protocol. Ends with different versions refuse each other with a clear text."""

FRAME = struct.Struct("!BI")
"""Head of a frame: kind, length of what follows."""
DATA = struct.Struct("!QQ")
"""Head inside a data frame: offset of its first byte in the stream, and the offset received so far (an ack)."""
OFFSET = struct.Struct("!Q")
MESSAGE = struct.Struct("!BII")
"""Head of a message: kind, channel, length of what follows."""
CREDIT = struct.Struct("!I")

HELLO, DATA_FRAME, ACK, BEAT, REFUSED = b"HDAPX"
REQUEST, INFO, BYTES, END, WINDOW, RESULT, ERROR, CANCEL = b"Ridew=!c"

CHUNK = 256 * 1024
"""The most stream data in one message, and the most session data in one frame."""
MAX_FRAME = CHUNK + DATA.size
MAX_HELLO = 64 * 1024
MAX_JSON = 8 * 1024 * 1024
"""The most JSON in one message."""
SEND_LIMIT = 4 * 1024 * 1024
"""A session that has this many bytes not yet acknowledged makes senders wait."""
STREAM_WINDOW = 2 * 1024 * 1024
"""The credit a stream starts with, in bytes for each direction."""


class ProtocolError(Exception):
    """The other end said something that the protocol does not allow; the carrier is dropped."""


class OpError(Exception):
    """An operation failed. It crosses the link and becomes an error of `dcde.errors` with the name `code`.

    Args:
        code: The name of the error's class at the near end.
        message: What failed, as a sentence.
        where: The file, job or host it concerns.
        remedy: What the person can do.
        retry: Whether the same request can succeed later.
    """

    def __init__(self, code: str, message: str, *, where: str = "", remedy: str = "", retry: bool = False) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.where = where
        self.remedy = remedy
        self.retry = retry

    def to_json(self) -> dict[str, Any]:
        """Return the error as it travels."""
        return {
            "code": self.code,
            "message": self.message,
            "where": self.where,
            "remedy": self.remedy,
            "retry": self.retry,
        }


class Reader(Protocol):
    """The reading half of a carrier: an asyncio or asyncssh stream."""

    async def read(self, n: int = -1) -> bytes:
        """Return up to `n` bytes, or nothing at the end."""


class Writer(Protocol):
    """The writing half of a carrier."""

    def write(self, data: bytes) -> None:
        """Take bytes to be sent."""

    async def drain(self) -> None:
        """Wait until more bytes may be written."""

    def close(self) -> None:
        """End the carrier."""


def dump(value: Any) -> bytes:
    """Return `value` as JSON in ASCII, so that file names with bytes that are no UTF-8 survive as lone surrogates."""
    return json.dumps(value, ensure_ascii=True, separators=(",", ":")).encode("ascii")


def load(data: bytes) -> Any:
    """Return the value of JSON text; text that is none, or nested beyond reason, is a ProtocolError."""
    try:
        return json.loads(data)
    except (ValueError, RecursionError) as error:
        raise ProtocolError(f"what came is no JSON: {error}") from error


def load_object(data: bytes) -> dict[str, Any]:
    """Return the JSON object in `data`; anything else is a ProtocolError."""
    value = load(data)
    if not isinstance(value, dict):
        raise ProtocolError("a JSON object was expected")
    return value


def frame(kind: int, payload: bytes = b"") -> bytes:
    """Return one frame of the session layer."""
    return FRAME.pack(kind, len(payload)) + payload


def message(kind: int, channel: int, payload: bytes = b"") -> bytes:
    """Return one message of the stream inside a session."""
    return MESSAGE.pack(kind, channel, len(payload)) + payload


class Frames:
    """Cuts the bytes of a carrier into frames, never holding more than one frame and one read."""

    def __init__(self, reader: Reader) -> None:
        self._reader = reader
        self._buffer = bytearray()
        self.heard_at = time.monotonic()
        """When the last bytes came. Whatever they are, the other end is alive."""

    async def _fill(self, size: int) -> bool:
        while len(self._buffer) < size:
            data = await self._reader.read(CHUNK)
            if not data:
                return False
            self.heard_at = time.monotonic()
            self._buffer += data
        return True

    async def next(self) -> tuple[int, bytes] | None:
        """Return kind and content of the next frame, or None when the carrier has ended."""
        if not await self._fill(FRAME.size):
            return None
        kind, length = FRAME.unpack_from(self._buffer)
        if length > MAX_FRAME:
            raise ProtocolError(f"a frame of {length} bytes is too long")
        size = FRAME.size + length
        if not await self._fill(size):
            return None
        payload = bytes(memoryview(self._buffer)[FRAME.size : size])
        del self._buffer[:size]
        return kind, payload

    async def hello(self) -> dict[str, Any] | None:
        """Return the greeting that must come first on a carrier, or None when the carrier ended before it."""
        found = await self.next()
        if found is None:
            return None
        kind, payload = found
        if kind == REFUSED:
            raise OpError("AgentError", str(load_object(payload).get("message", "refused")))
        if kind != HELLO or len(payload) > MAX_HELLO:
            raise ProtocolError("a greeting was expected")
        return load_object(payload)


class Messages:
    """Cuts the stream of a session into messages, never holding more than one message and one frame."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> list[tuple[int, int, bytes]]:
        """Take the next bytes of the stream and return the messages that are now whole: kind, channel, content."""
        self._buffer += data
        found: list[tuple[int, int, bytes]] = []
        start = 0
        view = memoryview(self._buffer)
        try:
            while len(self._buffer) - start >= MESSAGE.size:
                kind, channel, length = MESSAGE.unpack_from(self._buffer, start)
                if length > (CHUNK if kind == BYTES else MAX_JSON):
                    raise ProtocolError(f"a message of {length} bytes is too long")
                end = start + MESSAGE.size + length
                if end > len(self._buffer):
                    break
                found.append((kind, channel, bytes(view[start + MESSAGE.size : end])))
                start = end
        finally:
            view.release()
        del self._buffer[:start]
        return found
