"""Re-encodes PNG pictures that come from a site, so that nothing but pixels reaches the browser.

Written after the PNG specification, third edition (W3C, 2025): https://www.w3.org/TR/png-3/
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator

SIGNATURE = b"\x89PNG\r\n\x1a\n"
LARGEST_SIDE = 8192
LARGEST_PIXELS = 128 * 1024 * 1024
"""Bytes of unpacked pixels."""

_KEPT = {b"PLTE", b"tRNS"}
_CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}  # by colour type
_DEPTHS = {0: {1, 2, 4, 8, 16}, 2: {8, 16}, 3: {1, 2, 4, 8}, 4: {8, 16}, 6: {8, 16}}


class NotAPicture(ValueError):
    """The bytes are no PNG picture that could be shown. Trying again does not help."""


def clean_png(data: bytes) -> bytes:
    """Return the picture in `data` as a new PNG file with its header, palette and pixels and nothing else.

    Raises:
        NotAPicture: it is no PNG, it is damaged, interlaced or too large.
    """
    if not data.startswith(SIGNATURE):
        raise NotAPicture("The file is no PNG picture.")
    header = b""
    kept: list[tuple[bytes, bytes]] = []
    packed: list[bytes] = []
    for kind, content in _chunks(data):
        if not header and kind != b"IHDR":
            raise NotAPicture("The picture does not begin with its header.")
        if kind == b"IHDR":
            header = content
        elif kind == b"IDAT":
            packed.append(content)
        elif kind in _KEPT and not packed:
            kept.append((kind, content))
    pixels = _unpack(b"".join(packed), _size(header))
    return b"".join(
        [
            SIGNATURE,
            _chunk(b"IHDR", header),
            *(_chunk(kind, content) for kind, content in kept),
            _chunk(b"IDAT", zlib.compress(pixels, 6)),
            _chunk(b"IEND", b""),
        ]
    )


def _chunks(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    at = len(SIGNATURE)
    while at + 12 <= len(data):
        (length,) = struct.unpack_from(">I", data, at)
        kind, content = data[at + 4 : at + 8], data[at + 8 : at + 8 + length]
        end = at + 8 + length
        if len(content) != length or data[end : end + 4] != struct.pack(">I", zlib.crc32(kind + content)):
            break
        if kind == b"IEND":
            return
        yield kind, content
        at = end + 4
    raise NotAPicture("The picture is damaged or not complete.")


def _size(header: bytes) -> tuple[int, int]:
    """Return the number of rows and the bytes of one row with its filter byte, after checking the header."""
    if len(header) != 13:
        raise NotAPicture("The picture has no proper header.")
    width, height, depth, colour, compression, filtering, interlace = struct.unpack(">IIBBBBB", header)
    if depth not in _DEPTHS.get(colour, set()) or (compression, filtering, interlace) != (0, 0, 0):
        raise NotAPicture("The picture is of a kind that is not shown.")
    row = 1 + (width * depth * _CHANNELS[colour] + 7) // 8
    if not 0 < width <= LARGEST_SIDE or not 0 < height <= LARGEST_SIDE or row * height > LARGEST_PIXELS:
        raise NotAPicture(f"The picture is empty or larger than {LARGEST_SIDE} pixels.")
    return height, row


def _unpack(packed: bytes, size: tuple[int, int]) -> bytes:
    rows, row = size
    unpacker = zlib.decompressobj()
    try:
        pixels = unpacker.decompress(packed, rows * row + 1)
    except zlib.error as error:
        raise NotAPicture("The picture is damaged.") from error
    if len(pixels) != rows * row or any(kind > 4 for kind in pixels[::row]):
        raise NotAPicture("The picture is damaged.")
    return pixels


def _chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
