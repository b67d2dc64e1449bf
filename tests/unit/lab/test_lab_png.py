"""Pictures from a site are re-encoded, and everything that is no picture is refused."""

import struct
import zlib

import pytest
from dcde_lab.png import SIGNATURE, NotAPicture, clean_png


def chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def picture(
    *,
    width: int = 4,
    height: int = 3,
    depth: int = 8,
    colour: int = 2,
    interlace: int = 0,
    pixels: bytes | None = None,
    extra: bytes = b"",
) -> bytes:
    pixels = (b"\0" + bytes(range(width * 3))) * height if pixels is None else pixels
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, interlace)
    return SIGNATURE + chunk(b"IHDR", header) + extra + chunk(b"IDAT", zlib.compress(pixels)) + chunk(b"IEND", b"")


def pixels_of(data: bytes) -> bytes:
    at = data.index(b"IDAT")
    (length,) = struct.unpack(">I", data[at - 4 : at])
    return zlib.decompress(data[at + 4 : at + 4 + length])


def test_pixels_stay_and_everything_else_goes():
    text = chunk(b"tEXt", b"Comment\0<script>alert(1)</script>")
    cleaned = clean_png(picture(extra=text) + b"<html>after the end</html>")
    assert cleaned.startswith(SIGNATURE)
    assert b"script" not in cleaned and b"html" not in cleaned
    assert pixels_of(cleaned) == pixels_of(picture())
    assert clean_png(cleaned) == cleaned


def test_palette_is_kept():
    palette = chunk(b"PLTE", bytes([0, 0, 0, 255, 255, 255]))
    assert palette in clean_png(picture(depth=1, colour=3, pixels=b"\0\xa0" * 3, extra=palette))


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"", "no PNG"),
        (b"<svg onload='alert(1)'/>", "no PNG"),
        (SIGNATURE + b"<html>", "damaged"),
        (picture()[:-20], "damaged"),
        (picture().replace(b"IDAT", b"IDAX"), "damaged"),
        (picture(pixels=b"\0" * 10), "damaged"),
        (picture(pixels=b"\0" * 10_000), "damaged"),
        (picture(pixels=b"\x09" * 39), "damaged"),
        (picture(interlace=1), "of a kind"),
        (picture(depth=3), "of a kind"),
        (picture(width=0, pixels=b""), "empty or larger"),
        (picture(width=100_000, height=100_000, pixels=b""), "empty or larger"),
    ],
)
def test_anything_else_is_refused(data: bytes, says: str):
    with pytest.raises(NotAPicture, match=says):
        clean_png(data)


def test_a_packed_bomb_is_not_unpacked():
    bomb = picture(pixels=b"\0" * 50_000_000)
    with pytest.raises(NotAPicture, match="damaged"):
        clean_png(bomb)
