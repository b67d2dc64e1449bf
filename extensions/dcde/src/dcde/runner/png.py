"""Pictures from a site are rewritten before anybody looks at them: only what makes the image is kept, and checked."""

from __future__ import annotations

import struct
import zlib

from dcde.errors import FileTrouble

LARGEST = 16 * 1024 * 1024
"""Bytes of the largest picture that is taken from a site."""

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_KEPT = frozenset({b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND"})
_LARGEST_SIDE = 20000


def cleaned(data: bytes) -> bytes:
    """Return a PNG with the chunks that make the image and no others (PNG specification, chapter 5).

    Raises:
        FileTrouble: It is no PNG, it is damaged, or it is larger than a browser should be made to unpack.
    """
    if len(data) > LARGEST or not data.startswith(_SIGNATURE):
        raise FileTrouble("the picture is no PNG, or it is too large")
    parts = [_SIGNATURE]
    position = len(_SIGNATURE)
    kinds: list[bytes] = []
    while position < len(data) and kinds[-1:] != [b"IEND"]:
        kind, body, position = _chunk(data, position)
        if not kinds and (kind != b"IHDR" or len(body) != 13 or max(struct.unpack(">II", body[:8])) > _LARGEST_SIDE):
            raise FileTrouble("the picture has no usable header")
        kinds.append(kind)
        if kind in _KEPT:
            parts.append(struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body)))
    if kinds[-1:] != [b"IEND"] or b"IDAT" not in kinds:
        raise FileTrouble("the picture ends too early")
    return b"".join(parts)


def _chunk(data: bytes, position: int) -> tuple[bytes, bytes, int]:
    """Return kind and body of the chunk at `position`, and where the next one begins."""
    if position + 12 > len(data):
        raise FileTrouble("the picture ends too early")
    (length,) = struct.unpack_from(">I", data, position)
    end = position + 12 + length
    if end > len(data):
        raise FileTrouble("the picture ends too early")
    kind, body = data[position + 4 : position + 8], data[position + 8 : position + 8 + length]
    if zlib.crc32(kind + body) != struct.unpack_from(">I", data, end - 4)[0]:
        raise FileTrouble("the picture is damaged")
    return kind, body, end
