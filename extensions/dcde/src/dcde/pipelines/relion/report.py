#!/usr/bin/env python3
"""Judge a RELION job by what it left behind, and draw its pictures. Runs at the site: standard library and numpy.

Usage: report.py SPEC_JSON RECORD_DIR [--progress], in the project folder. SPEC_JSON names a file
`{"checks": [...], "pictures": [...], "stderr": "stderr", "job_dir": "Class2D/job006"}`. Writes RECORD_DIR/report.json
`{"ok", "problems", "rows", "metrics", "pictures", "fraction", "notes"}` and RECORD_DIR/pictures/*.png. `--progress` is
for a job that is running: nothing is judged, only the fraction done and the newest class averages are given.

RELION's exit codes are no proof: a CTF estimation in which every micrograph failed ends with 0, and an unknown option
is only a warning. So tables must have their rows and finite numbers, and such warnings are failures. What stands in
the files is not trusted: names must be plain (RELION hands them to shells), paths stay in the project, broken images
make no picture.

Formats: STAR as RELION 3.1 writes it (one row a line, no quotes); MRC2014 (www.ccpem.ac.uk/mrc_format/mrc2014.php).
"""

from __future__ import annotations

import glob
import json
import math
import os
import re
import struct
import sys
import zlib
from array import array
from typing import Any

import numpy as np

SAFE_PART = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._+@:-]{0,250}\Z")
NAME_COLUMNS = {
    "rlnMicrographMovieName", "rlnMicrographName", "rlnImageName", "rlnCtfImage", "rlnCtfPowerSpectrum",
    "rlnMicrographMetadata", "rlnReferenceImage",
}  # fmt: skip
UNKNOWN_OPTION = re.compile(r"Option (\S+)\s+is not a valid RELION argument")
HINTS = {
    "Import": "Check the pattern of the movies, and that their names hold letters, digits and . _ + - only.",
    "MotionCorr": "Are all movies whole, and has the gain reference their size?",
    "CtfFind": "Is CTFFIND there at this site, and are pixel size and voltage right?",
    "AutoPick": "Lower the picking threshold, or check particle diameter and pixel size.",
    "Extract": "Were particles picked, and does the box fit into the micrographs?",
    "Class2D": "See the end of the log.",
}
# RELION leaves out a table that would have no rows, and crashes after picking when nothing at all was picked.
EMPTY = {"CtfFind": "no CTF could be fitted to any micrograph", "AutoPick": "no particles were picked"}
MOST_NAMES, MOST_PIXELS, PICTURE_SIDE = 20_000, 400_000_000, 768


class Unusable(Exception):
    """A file that is missing, broken or not allowed; the message names it."""


def inside(path: str) -> str:
    """Return `path` if it is relative and stays below the project folder, also through links."""
    real = os.path.realpath(path)
    if os.path.isabs(path) or os.path.commonpath([real, os.getcwd()]) != os.getcwd():
        raise Unusable(f"{path[:200]} is not in the project folder")
    return path


# --- STAR
# ------------------------------------------------------------------------------------------------------------------


class Table:
    """One table: numbers by column (NaN where there is none), names by column (the first 20 000), and how many rows."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.rows = 0
        self.columns: list[str] = []
        self.numbers: dict[str, array[float]] = {}
        self.names: dict[str, list[str]] = {}
        self.unsafe = ""

    def column(self, name: str) -> np.ndarray:
        """Return a column's numbers; empty when there is no such column."""
        return np.array(self.numbers.get(name, ()), float)

    def add(self, values: list[str]) -> None:
        """Enter one row."""
        for column, value in zip(self.columns, values):  # noqa: B905  (the site's Python may be 3.9)
            if column in NAME_COLUMNS:
                if not self.unsafe and not all(map(SAFE_PART.match, value.split("/"))):
                    self.unsafe = value
                if self.rows < MOST_NAMES:
                    self.names[column].append(value)
            else:
                try:
                    self.numbers[column].append(float(value))
                except ValueError:
                    self.numbers[column].append(math.nan)
        self.rows += 1

    def head(self, column: str) -> None:
        """Enter a column."""
        self.columns.append(column)
        if column in NAME_COLUMNS:
            self.names[column] = []
        else:
            self.numbers[column] = array("d")


def read_star(path: str) -> dict[str, Table]:
    """Return the tables of a STAR file by name, read line by line; Unusable when a row does not fit its table."""
    tables: dict[str, Table] = {}
    table, loop = Table(""), False
    try:
        with open(inside(path), encoding="utf-8", errors="replace") as file:
            for number, line in enumerate(file, 1):
                words = line.split()
                if not words or words[0].startswith("#"):
                    continue
                if words[0].startswith("data_"):
                    table, loop = Table(words[0][5:]), False
                    tables[table.name] = table
                elif words[0] == "loop_":
                    loop = True
                elif words[0].startswith("_") and not table.rows and loop:
                    table.head(words[0][1:])
                elif words[0].startswith("_") and not loop:
                    table.head(words[0][1:])
                    _pair(table, words)
                elif len(words) != len(table.columns) or not loop:
                    raise Unusable(
                        f"{path}, line {number}: the row has {len(words)} values for {len(table.columns)} columns"
                    )
                else:
                    table.add(words)
    except OSError as error:
        raise Unusable(
            f"{path} is not there" if isinstance(error, FileNotFoundError) else f"{path}: {error.strerror}"
        ) from error
    return tables


def _pair(table: Table, words: list[str]) -> None:
    """Enter a single value: RELION writes tables of one row as `_name value`."""
    column, value = words[0][1:], " ".join(words[1:])
    if column in NAME_COLUMNS:
        table.names[column].append(value)
    else:
        try:
            table.numbers[column].append(float(value))
        except ValueError:
            table.numbers[column].append(math.nan)


def wanted(tables: dict[str, Table], name: str) -> Table | None:
    """Return the table of that name, else (for counting only) the last one."""
    return tables.get(name) or (list(tables.values())[-1] if tables else None)


# --- checks
# ------------------------------------------------------------------------------------------------------------------


class Judge:
    """Goes through the checks of a step and gathers problems, row counts and metrics."""

    def __init__(self, spec: dict[str, Any], record: str) -> None:
        self.spec, self.record = spec, record
        self.kind = str(spec.get("job_dir", "")).split("/")[0]
        self.problems: list[str] = []
        self.rows: dict[str, int] = {}
        self.metrics: dict[str, dict[str, Any]] = {}

    def run(self) -> None:
        """Judge: options first, since a program that ignored one did something else."""
        options, said = self._words()
        self.problems += [
            f"RELION does not know the option {option[:60]} and went on without it" for option in options[:10]
        ]
        for check in self.spec.get("checks", []):
            try:
                self._check(check)
            except (Unusable, KeyError, ValueError) as error:
                problem = f"{error}. {HINTS.get(self.kind, '')}".strip()
                if problem not in self.problems:
                    self.problems.append(problem)
        if self.problems and said:
            self.problems.append(f"RELION said: {said}")

    def _words(self) -> tuple[list[str], str]:
        """Return the options that RELION did not know, and the first error it reported, out of its standard error."""
        options, said, follows = set(), "", False
        path = os.path.join(self.record, str(self.spec.get("stderr", "stderr")))
        if os.path.exists(path):
            with open(path, encoding="utf-8", errors="replace") as file:
                for line in file:
                    options.update(UNKNOWN_OPTION.findall(line))
                    if follows and not said:
                        said = "".join(letter for letter in line.strip() if letter.isprintable())[:300]
                    follows = line.strip() == "ERROR:"
        return sorted(options), said

    def _check(self, check: dict[str, Any]) -> None:
        star, name = check["star"], check.get("table", "")
        if self.kind == "AutoPick":
            self._metric("picks", 0, "", "Picks")
        paths = sorted(glob.glob(star)) if glob.has_magic(star) else [star]
        if not paths:
            raise Unusable(EMPTY.get(self.kind, f"there is no {star}"))
        least = self._least(check.get("min_rows", 1))
        total = 0
        for path in paths:
            tables = read_star(path)
            if name not in tables:
                if glob.has_magic(star) and not tables:
                    continue  # one of many: relion_autopick leaves an empty file for a micrograph without picks
                if self.kind in EMPTY:
                    raise Unusable(EMPTY[self.kind])
                raise Unusable(f"{path} has no table {name or '(without name)'}")
            total += tables[name].rows
            self._inspect(path, tables[name], check.get("finite", []))
            self._whole(tables[name].names.get("rlnMicrographMovieName", []))
            if len(paths) == 1:
                self._measure(tables, tables[name])
        self.rows[star] = total
        if self.kind == "AutoPick":
            self._metric("picks", total, "", "Picks")
            self._metric("picks_per_micrograph", round(total / len(paths), 1), "", "Picks a micrograph")
        if not total and self.kind in EMPTY:
            raise Unusable(EMPTY[self.kind])
        if total < least:
            raise Unusable(f"{star} has {total} rows, at least {least} were expected")

    def _least(self, rule: object) -> int:
        found = re.match(r"rows\((.+)\)\Z", str(rule))
        if not found:
            return int(str(rule))
        table = wanted(read_star(found[1]), "")
        return max(1, table.rows if table else 0)

    def _inspect(self, path: str, table: Table, finite: list[str]) -> None:
        if table.unsafe:
            raise Unusable(
                f"{path} names a file {table.unsafe[:80]!r}; only letters, digits and . _ + - are allowed in file names"
            )
        for column in finite:
            if table.rows and column not in table.numbers:
                raise Unusable(f"{path} has no column {column}")
            wrong = int((~np.isfinite(table.column(column))).sum()) if table.rows else 0
            if wrong:
                raise Unusable(f"{path}: {wrong} of {table.rows} values of {column} are no finite numbers")

    def _whole(self, movies: list[str]) -> None:
        """Look at the length of every movie: RELION 3.1 sums what it finds of a movie that was cut off."""
        broken = []
        for movie in movies:
            if movie.lower().endswith((".mrc", ".mrcs")):
                try:
                    mrc_layout(movie)  # may be a link to the person's own folder, so that it is not held to the project
                except Unusable as error:
                    broken.append(str(error))
        if broken:
            more = f" (and {len(broken) - 1} more)" if len(broken) > 1 else ""
            raise Unusable(f"{broken[0]}{more}; was it copied to the end?")

    def _metric(self, name: str, value: object, unit: str, title: str) -> None:
        self.metrics[name] = {"value": value, "unit": unit, "title": title}

    def _measure(self, tables: dict[str, Table], table: Table) -> None:
        """Take the numbers that tell whether the step went well from the columns that are there."""
        if not table.rows:
            return
        if table.name == "movies":
            self._metric("movies", table.rows, "", "Movies")
        if table.name == "micrographs":
            self._metric("micrographs", table.rows, "", "Micrographs")
        pixel = _mean(tables["optics"].column("rlnMicrographOriginalPixelSize")) if "optics" in tables else None
        motion = _mean(table.column("rlnAccumMotionTotal"))
        if motion is not None and pixel:
            # RELION's own motion correction gives it in pixels of the movie (seen with 3.1.3), not in Å.
            self._metric("motion_total", round(motion * pixel, 1), "Å", "Motion over a movie, mean")
        u, v = _mean(table.column("rlnDefocusU")), _mean(table.column("rlnDefocusV"))
        if table.name == "micrographs" and u is not None and v is not None:
            self._metric("defocus_mean", round((u + v) / 2e4, 2), "µm", "Defocus, mean")
            reached = table.column("rlnCtfMaxResolution")
            if reached.size:
                self._metric("ctf_resolution", round(float(np.median(reached)), 1), "Å", "CTF fits up to, median")
        if table.name == "particles":
            self._metric("particles", table.rows, "", "Particles")
        if table.name == "model_classes":
            self._classes(table)

    def _classes(self, table: Table) -> None:
        share, resolution = table.column("rlnClassDistribution"), table.column("rlnEstimatedResolution")
        self._metric("classes", table.rows, "", "Classes")
        self._metric(
            "class_sizes", ", ".join(f"{100 * x:.0f}" for x in sorted(share, reverse=True)[:20]), "%", "Class sizes"
        )
        filled = resolution[np.isfinite(resolution) & (share >= 0.02)] if resolution.size else resolution
        if filled.size:
            self._metric("class_resolution", round(float(filled.min()), 1), "Å", "Best class resolution")


def _mean(values: np.ndarray) -> float | None:
    return float(values.mean()) if values.size and np.isfinite(values).all() else None


# --- images
# ------------------------------------------------------------------------------------------------------------------

MRC_TYPES = {0: "i1", 1: "i2", 2: "f4", 6: "u2", 12: "f2"}


def mrc_layout(path: str) -> tuple[np.dtype, int, tuple[int, int, int]]:
    """Return type, beginning and shape (z, y, x) of the data of an MRC file; Unusable when the file is not whole."""
    try:
        with open(path, "rb") as file:
            header = file.read(1024)
            size = os.fstat(file.fileno()).st_size
    except OSError as error:
        raise Unusable(f"{path}: {error.strerror}") from error
    for order in "<>":
        if len(header) < 1024:
            break
        nx, ny, nz, mode = struct.unpack(order + "4i", header[:16])
        skip = 1024 + struct.unpack(order + "i", header[92:96])[0]
        if mode not in MRC_TYPES or min(nx, ny, nz) < 1 or skip < 1024:
            continue
        kind = np.dtype(order + MRC_TYPES[mode])
        if nx * ny <= MOST_PIXELS and skip + nx * ny * nz * kind.itemsize <= size:
            return kind, skip, (nz, ny, nx)
    raise Unusable(f"{path} is no whole MRC file")


def open_mrc(path: str) -> np.ndarray:
    """Return the sections of an MRC file as an array (z, y, x) that is read from disk only where it is used."""
    kind, skip, shape = mrc_layout(inside(path))
    return np.memmap(path, kind, "r", skip, shape)


def reduced(section: np.ndarray, side: int = PICTURE_SIDE) -> tuple[np.ndarray, int]:
    """Return the section binned until it fits into `side` pixels, and the binning; reads some rows at a time."""
    factor = max(1, math.ceil(max(section.shape) / side))
    ny, nx = section.shape[0] // factor, section.shape[1] // factor
    image = np.empty((ny, nx))
    for row in range(ny):
        block = section[row * factor : (row + 1) * factor, : nx * factor].astype(float)
        image[row] = np.nan_to_num(block.reshape(factor, nx, factor).mean(axis=(0, 2)), posinf=0, neginf=0)
    return image, factor


def smooth(image: np.ndarray, sigma: float) -> np.ndarray:
    """Return the image blurred by a Gaussian of `sigma` pixels."""
    fy, fx = np.fft.fftfreq(image.shape[0])[:, None], np.fft.rfftfreq(image.shape[1])[None]
    blurred: np.ndarray = np.fft.irfft2(
        np.fft.rfft2(image) * np.exp(-2 * np.pi**2 * sigma**2 * (fx**2 + fy**2)), image.shape
    )
    return blurred


def grey(image: np.ndarray, low: float = 1, high: float = 99) -> np.ndarray:
    """Return bytes: the two percentiles become black and white."""
    image = np.nan_to_num(image, posinf=0, neginf=0)
    dark, bright = np.percentile(image, [low, high])
    if bright - dark <= 1e-12 * max(1.0, abs(bright)):
        return np.full(image.shape, 128, np.uint8)
    scaled: np.ndarray = np.clip((image - dark) / (bright - dark) * 255, 0, 255).astype(np.uint8)
    return scaled


def png(pixels: np.ndarray) -> bytes:
    """Return grey (y, x) or colour (y, x, 3) bytes as a PNG file."""
    colour = pixels.ndim == 3
    height, width = pixels.shape[:2]
    lines = pixels.reshape(height, -1)
    raw = np.zeros((height, lines.shape[1] + 1), np.uint8)  # each line begins with its filter: none
    raw[:, 1:] = lines

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2 if colour else 0, 0, 0, 0)
    body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(raw.tobytes(), 6)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


def circle(pixels: np.ndarray, x: float, y: float, radius: float, colour: tuple[int, int, int]) -> None:
    """Draw a circle one and a half pixels wide."""
    if not all(map(math.isfinite, (x, y, radius))):
        return
    reach = math.ceil(radius) + 2
    top, left = max(0, int(y) - reach), max(0, int(x) - reach)
    window = pixels[top : int(y) + reach + 1, left : int(x) + reach + 1]
    if min(window.shape[:2]) > 0:
        yy, xx = np.ogrid[top : top + window.shape[0], left : left + window.shape[1]]
        window[np.abs(np.hypot(yy - y, xx - x) - radius) < 0.75] = colour


FONT = {  # five rows of three pixels, each row a number from 0 to 7
    "0": (7, 5, 5, 5, 7), "1": (2, 6, 2, 2, 7), "2": (7, 1, 7, 4, 7), "3": (7, 1, 7, 1, 7), "4": (5, 5, 7, 1, 1),
    "5": (7, 4, 7, 1, 7), "6": (7, 4, 7, 5, 7), "7": (7, 1, 2, 2, 2), "8": (7, 5, 7, 5, 7), "9": (7, 5, 7, 1, 7),
    "%": (5, 1, 2, 4, 5),
}  # fmt: skip


def write(pixels: np.ndarray, text: str, x: int, y: int) -> None:
    """Write digits and % in white on black into a grey picture."""
    glyphs = np.zeros((7, 4 * len(text) + 1), np.uint8)
    for place, letter in enumerate(text):
        for row, bits in enumerate(FONT[letter]):
            glyphs[row + 1, 4 * place + 1 : 4 * place + 4] = [bits >> 2 & 1, bits >> 1 & 1, bits & 1]
    glyphs = np.kron(glyphs * 255, np.ones((2, 2), np.uint8))
    window = pixels[y : y + glyphs.shape[0], x : x + glyphs.shape[1]]
    window[:] = glyphs[: window.shape[0], : window.shape[1]]


# --- pictures
# ----------------------------------------------------------------------------------------------------------------


def draw_micrograph(source: dict[str, Any]) -> np.ndarray:
    """Draw the first micrograph of a list."""
    image, _ = reduced(open_mrc(_names(source["star"], "micrographs", "rlnMicrographName")[0])[0])
    return grey(smooth(image, 1.5))


def draw_picks(source: dict[str, Any]) -> np.ndarray:
    """Draw the micrograph with the middle number of picks, with a circle of the particle's diameter at each pick."""
    tables = read_star(source["star"])
    pixel = _mean(tables["optics"].column("rlnMicrographPixelSize"))
    if not pixel or pixel <= 0:
        raise Unusable(f"{source['star']} has no pixel size")
    found = []
    for micrograph in tables["micrographs"].names["rlnMicrographName"]:
        # MotionCorr/job002/Movies/x.mrc -> AutoPick/job004/Movies/x_autopick.star, as relion_autopick names them
        inner = micrograph.split("/", 2)[-1]
        star = f"{source['picks']}/{os.path.splitext(inner)[0]}{source['suffix']}"
        if os.path.exists(star):
            picks = wanted(read_star(star), "")
            if picks is not None:
                found.append((picks.rows, micrograph, picks))
    if not found:
        raise Unusable(f"there are no picks in {source['picks']}")
    _, micrograph, picks = sorted(found, key=lambda entry: entry[0])[len(found) // 2]
    image, factor = reduced(open_mrc(micrograph)[0])
    radius = float(source["diameter"]) / pixel / factor / 2
    pixels = np.repeat(grey(smooth(image, max(1.0, radius / 10)))[..., None], 3, axis=2)
    positions = zip(picks.column("rlnCoordinateX")[:5000], picks.column("rlnCoordinateY")[:5000])  # noqa: B905
    for x, y in positions:
        circle(pixels, x / factor, y / factor, radius, (60, 220, 90))
    return pixels


def draw_power_spectrum(source: dict[str, Any]) -> np.ndarray:
    """Draw the diagnostic image of the micrograph whose fit goes furthest."""
    table = read_star(source["star"])["micrographs"]
    images, reached = table.names["rlnCtfImage"], table.column("rlnCtfMaxResolution")
    best = int(np.argmin(np.where(np.isfinite(reached), reached, np.inf))) if reached.size == len(images) else 0
    image, _ = reduced(open_mrc(images[best].split(":")[0])[0])
    return grey(image, 2, 98)


def draw_classes(source: dict[str, Any]) -> np.ndarray:
    """Draw the newest class averages, the largest class first, each with its share of the particles."""
    stacks = sorted(glob.glob(source["root"] + "_it[0-9][0-9][0-9]_classes.mrcs"))
    if not stacks:
        raise Unusable(f"there are no class averages in {source['root']} yet")
    stack = open_mrc(stacks[-1])[:100]
    share = np.full(len(stack), np.nan)
    model = read_star(stacks[-1].replace("_classes.mrcs", "_model.star")).get("model_classes")
    if model is not None and model.rows >= len(stack):
        share = model.column("rlnClassDistribution")[: len(stack)]
    order = np.argsort(-np.nan_to_num(share, nan=-1.0), kind="stable")
    tile = 2 * max(1, round(144 / stack.shape[1] / 2)) * stack.shape[1] if stack.shape[1] < 144 else PICTURE_SIDE // 5
    columns = min(len(stack), max(1, math.ceil(math.sqrt(1.5 * len(stack)))))
    lines = math.ceil(len(stack) / columns)
    pixels = np.full((lines * (tile + 4) + 4, columns * (tile + 4) + 4), 30, np.uint8)
    for place, number in enumerate(order):
        y, x = (4 + index * (tile + 4) for index in divmod(place, columns))
        pixels[y : y + tile, x : x + tile] = grey(resized(stack[number].astype(float), tile), 1, 99.7)
        if np.isfinite(share[number]):
            write(pixels, f"{100 * min(max(share[number], 0), 1):.0f}%", x, y)
    return pixels


def resized(image: np.ndarray, size: int) -> np.ndarray:
    """Return a square image in another size, smaller or larger, by way of its Fourier transform."""
    side = min(image.shape)
    spectrum = np.fft.fftshift(np.fft.fft2(np.nan_to_num(image[:side, :side], posinf=0, neginf=0)))
    keep = min(side, size) // 2
    middle = spectrum[side // 2 - keep : side // 2 + keep, side // 2 - keep : side // 2 + keep]
    out = np.zeros((size, size), complex)
    out[size // 2 - keep : size // 2 + keep, size // 2 - keep : size // 2 + keep] = middle
    return np.fft.ifft2(np.fft.ifftshift(out)).real


def _names(star: str, table: str, column: str) -> list[str]:
    names = read_star(star).get(table, Table("")).names.get(column, [])
    if not names:
        raise Unusable(f"{star} names no {column}")
    return names


DRAW = {
    "micrograph": draw_micrograph,
    "micrograph_picks": draw_picks,
    "power_spectrum": draw_power_spectrum,
    "class_montage": draw_classes,
}


def draw(spec: dict[str, Any], record: str, notes: list[str], *, only: str = "") -> list[dict[str, Any]]:
    """Draw the pictures of the step into the record; what cannot be drawn is noted and is no failure of the step."""
    done = []
    for picture in spec.get("pictures", []):
        name, kind = str(picture.get("name", "")), picture.get("kind")
        if (only and kind != only) or not re.match(r"[a-z][a-z0-9_]{0,39}\Z", name):
            continue
        try:
            save(os.path.join(record, "pictures", f"{name}.png"), png(DRAW[kind](picture["source"])))
            done.append({"name": name, "title": picture.get("title", name), "file": f"pictures/{name}.png"})
        except (Unusable, KeyError, IndexError, ValueError, OSError) as error:
            notes.append(f"no picture {name}: {error}")
    return done


def fraction(spec: dict[str, Any]) -> float | None:
    """Return how much is done, from the iterations or the files that are there; None when nothing tells."""
    for picture in spec.get("pictures", []):
        source = picture.get("source", {})
        if "root" in source:
            steps = sorted(glob.glob(source["root"] + "_it[0-9][0-9][0-9]_optimiser.star"))
            if steps:
                table = wanted(read_star(steps[-1]), "")
                total = table.column("rlnNumberOfIterations") if table else np.zeros(0)
                done = int(steps[-1][-len("000_optimiser.star") :][:3])
                return min(1.0, done / total[0]) if total.size and total[0] > 0 else None
        elif "done" in source and "of" in source:
            table = wanted(read_star(source["of"]), "")
            if table and table.rows:
                return min(1.0, len(glob.glob(source["done"])) / table.rows)
    return None


def save(path: str, data: bytes) -> None:
    """Write a file of the record under a temporary name, then give it its own, readable by its owner only."""
    os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
    fresh = f"{path}.new"
    with open(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
        file.write(data)
    os.replace(fresh, path)


def main(arguments: list[str]) -> int:
    """Write the report; the exit code is 0 when the job is right, 1 when it is not, 2 when the call is wrong."""
    progress = "--progress" in arguments
    plain = [argument for argument in arguments if argument != "--progress"]
    if len(plain) != 2:
        print("usage: report.py SPEC_JSON RECORD_DIR [--progress]", file=sys.stderr)
        return 2
    with open(plain[0], encoding="utf-8") as file:
        spec = json.load(file)
    record = os.path.abspath(plain[1])
    judge = Judge(spec, record)
    notes: list[str] = []
    done: float | None = 1.0
    if progress:
        try:
            done = fraction(spec)
        except (Unusable, ValueError):
            done = None
    else:
        judge.run()
    pictures = draw(spec, record, notes, only="class_montage" if progress else "")
    report = {
        "ok": not judge.problems,
        "problems": judge.problems,
        "rows": judge.rows,
        "metrics": judge.metrics,
        "pictures": pictures,
        "fraction": done,
        "notes": notes,
    }
    save(os.path.join(record, "report.json"), json.dumps(report, indent=1, allow_nan=False).encode())
    return 0 if report["ok"] else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
