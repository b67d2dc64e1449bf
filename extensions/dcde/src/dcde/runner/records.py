"""What a job left in its record at the site: its logs, read on demand, and its pictures, copied once."""

from __future__ import annotations

import base64
import logging
import re
from pathlib import Path
from typing import Any

from dcde.errors import DcdeError, FileTrouble, NotFound
from dcde.link.link import Link
from dcde.runner.png import LARGEST, cleaned
from dcde.runner.state import private_folder, write_private

log = logging.getLogger(__name__)

_MOST_AT_ONCE = 256 * 1024
_NAME = re.compile(r"[a-z][a-z0-9_]{0,39}\Z")
_MOST_PICTURES = 32


def record_folder(key: str) -> str:
    """Return the folder of an attempt's record, below the root `records`."""
    return f"jobs/{key}"


async def read_log(link: Link, key: str, stream: str, offset: int) -> dict[str, Any]:
    """Return text of a job's stdout or stderr from byte `offset` on, and the offset to go on from.

    A character that is not yet whole is left for the next time; a log that is not there yet is empty.
    """
    try:
        answer = await link.call(
            "tail", path=f"{record_folder(key)}/{stream}", root="records", offset=offset, limit=_MOST_AT_ONCE
        )
    except NotFound:
        return {"text": "", "offset": offset}
    data = base64.b64decode(answer["data_base64"])
    whole = _whole_characters(data)
    return {"text": data[:whole].decode("utf-8", "replace"), "offset": offset + whole}


async def last_lines(link: Link, key: str, count: int = 12) -> list[str]:
    """Return the last lines of a job's stderr, or of its stdout when that is empty; nothing when none can be read."""
    for stream in ("stderr", "stdout"):
        try:
            answer = await link.call(
                "tail", path=f"{record_folder(key)}/{stream}", root="records", offset=-8192, limit=8192, timeout=20
            )
        except DcdeError:
            continue
        lines = base64.b64decode(answer["data_base64"]).decode("utf-8", "replace").splitlines()
        if kept := [line for line in lines if line.strip()][-count:]:
            return kept
    return []


class PictureStore:
    """Pictures as they are kept beside the ledger.

    Args:
        folder: A private folder of the runner.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    async def fetch(self, link: Link, key: str, run: str, step: str, listed: list[Any]) -> list[dict[str, str]]:
        """Copy the pictures that a report lists from the record of a job; return name and title of those that are good.

        Raises:
            LinkLost: The site does not answer now.
        """
        kept = []
        for entry in listed[:_MOST_PICTURES]:
            name, title, file = _entry(entry)
            if not name:
                continue
            try:
                data = await _read(link, f"{record_folder(key)}/{file}")
                self._keep(run, step, name, cleaned(data))
            except (FileTrouble, NotFound) as error:
                log.warning("the picture %s is left out: %s", name, error)
                continue
            kept.append({"name": name, "title": title})
        return kept

    def _keep(self, run: str, step: str, name: str, data: bytes) -> None:
        folder = private_folder(private_folder(private_folder(self._folder) / run) / step)
        write_private(folder / f"{name}.png", data)

    def picture(self, run: str, step: str, name: str) -> bytes:
        """Return a picture; raises NotFound when there is none of that name."""
        try:
            return (self._folder / run / step / f"{name}.png").read_bytes()
        except OSError as error:
            raise NotFound("there is no such picture", where=f"{run}/{step}/{name}") from error


def _entry(entry: Any) -> tuple[str, str, str]:
    """Return name, title and file of a picture as a report lists it; an empty name when it is no usable entry."""
    if not isinstance(entry, dict):
        return "", "", ""
    name, file = str(entry.get("name", "")), str(entry.get("file", ""))
    if not _NAME.match(name) or not re.fullmatch(r"pictures/[A-Za-z0-9_.-]+", file):
        return "", "", ""
    return name, str(entry.get("title", name))[:120], file


async def _read(link: Link, path: str) -> bytes:
    data = bytearray()
    async for part in link.read(path, root="records", length=LARGEST + 1):
        data += part
    return bytes(data)


def _whole_characters(data: bytes) -> int:
    """Return how many bytes of `data` are whole UTF-8 characters, an unfinished one at the end left out."""
    for back in range(1, min(4, len(data)) + 1):
        byte = data[-back]
        if byte & 0b1100_0000 == 0b1000_0000:
            continue
        length = 1 if byte < 0x80 else 2 if byte >> 5 == 0b110 else 3 if byte >> 4 == 0b1110 else 4
        return len(data) - back if length > back and byte >= 0xC0 else len(data)
    return len(data)
