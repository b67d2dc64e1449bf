"""The person's own files become project files: by links at their own site, without a byte being copied."""

from __future__ import annotations

import functools
import re
from dataclasses import dataclass
from typing import Any

from dcde.data.transfer import PARALLEL, FileLink, in_parallel
from dcde.errors import AlreadyExists, InvalidParameter, NotFound
from dcde.pipelines.model import RawFiles

SAFE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,200}\Z")
"""Names that applications may see: RELION hands file names to shells of its own."""


@dataclass(frozen=True)
class RawLink:
    """A project file that is a link to a file of the person; size and time are those of the file."""

    path: str
    size: int
    mtime_ns: int


async def link_raw(link: FileLink, project: str, raw: RawFiles) -> list[RawLink]:
    """Make the files that `raw` names appear in the project at their site, and return them. To repeat it is no error.

    Raises:
        NotFound: No file fits the pattern.
        InvalidParameter: A file's name holds characters that applications must not see, or two have the same name.
        AlreadyExists: The project has another file of that name.
    """
    found = (await link.call("glob", patterns=[raw.pattern], timeout=120))["files"]
    if not found:
        raise NotFound(
            f"no file fits {raw.pattern!r}",
            where=raw.site,
            remedy="The path begins at your own folder there; * stands for any part of a name.",
        )
    names = [file["path"].rpartition("/")[2] for file in found]
    _check(names, raw)
    folder = f"projects/{project}/{raw.target}"
    await link.call("mkdir", path=folder, parents=True)
    work = [functools.partial(_link, link, f"{folder}/{name}", file) for name, file in zip(names, found, strict=True)]
    await in_parallel(work, PARALLEL)
    return [
        RawLink(f"{raw.target}/{name}", file["size"], file["mtime_ns"]) for name, file in zip(names, found, strict=True)
    ]


async def _link(link: FileLink, path: str, file: dict[str, Any]) -> None:
    try:
        await link.call("link", path=path, target=file["path"])
    except AlreadyExists as error:
        remedy = "Begin a new project for these files."
        raise AlreadyExists("the project has another file of that name", where=path, remedy=remedy) from error


def _check(names: list[str], raw: RawFiles) -> None:
    unsafe = sorted(name for name in names if not SAFE_NAME.match(name))
    if unsafe:
        shown = ", ".join(repr(name)[:80] for name in unsafe[:3])
        raise InvalidParameter(
            f"{len(unsafe)} file names hold characters that are not allowed: {shown}",
            where=f"{raw.site}:{raw.pattern}",
            remedy="Rename them: letters, digits and . _ + - are allowed, and a letter or digit comes first.",
        )
    twice = sorted({name for name in names if names.count(name) > 1}) if len(set(names)) < len(names) else []
    if twice:
        raise InvalidParameter(
            f"files in different folders have the same name: {', '.join(twice[:3])}",
            where=f"{raw.site}:{raw.pattern}",
            remedy="Choose files of one folder.",
        )
