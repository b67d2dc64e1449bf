"""Pictures that look like those of the pipeline, drawn from nothing."""

from __future__ import annotations

import struct
import zlib

import numpy as np


def picture(name: str) -> bytes:
    """Return a PNG: `classes`, `power_spectrum`, and for any other name a micrograph, with circles for `picks`."""
    random = np.random.default_rng(7)
    if name == "classes":
        return encode(_classes(random))
    if name == "power_spectrum":
        y, x = np.mgrid[-128:128, -128:128]
        radius = np.hypot(x, y)
        rings = np.cos(radius**2 / 90) ** 2 * np.exp(-radius / 60)
        return encode(rings + 0.1 * random.random((256, 256)))
    field = random.normal(size=(384, 384))
    spots = [(int(a), int(b)) for a, b in random.integers(25, 359, size=(24, 2))]
    y, x = np.mgrid[:384, :384]
    for row, column in spots:
        field -= 1.2 * np.exp(-((y - row) ** 2 + (x - column) ** 2) / 150)
    grey = _scaled(field)
    rgb = np.dstack([grey] * 3)
    if name == "picks":
        for row, column in spots:
            distance = np.hypot(y - row, x - column)
            rgb[abs(distance - 18) < 1.0] = (80, 220, 120)
    return encode(rgb)


def _classes(random: np.random.Generator) -> np.ndarray:
    y, x = np.mgrid[-32:32, -32:32]
    rows = []
    for _ in range(2):
        tiles = []
        for _ in range(4):
            tile = 0.15 * random.normal(size=(64, 64))
            for _ in range(7):
                row, column = random.normal(scale=8, size=2)
                tile += np.exp(-((y - row) ** 2 + (x - column) ** 2) / 40)
            tiles.append(np.where(np.hypot(x, y) < 30, tile, 0))
        rows.append(np.hstack(tiles))
    return np.vstack(rows)


def _scaled(values: np.ndarray) -> np.ndarray:
    low, high = np.percentile(values, [0.5, 99.5])
    return (np.clip((values - low) / (high - low), 0, 1) * 255).astype(np.uint8)


def encode(values: np.ndarray) -> bytes:
    """Return a PNG of a 2-D array of numbers, or of an RGB array of bytes."""
    pixels = values if values.ndim == 3 else _scaled(values)
    height, width = pixels.shape[:2]
    rows = b"".join(b"\0" + row.tobytes() for row in pixels)
    header = struct.pack(">IIBBBBB", width, height, 8, 2 if pixels.ndim == 3 else 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
        for kind, content in [(b"IHDR", header), (b"IDAT", zlib.compress(rows)), (b"IEND", b"")]
    )
