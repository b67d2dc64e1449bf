"""How the broker asks the signer."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

from dcde_hub.errors import HubError, SignerRefused, SignerUnavailable

DEADLINE = 5.0
"""Seconds within which the signer must have answered."""


async def ask_signer(path: Path, *, request: str, site: str, dcde_id: str, public_key: str) -> dict[str, Any]:
    """Return the signer's answer: `certificate`, `principal`, `serial` and `valid_before`.

    Raises:
        SignerUnavailable: No answer; trying again can help.
        SignerRefused: It does not sign this.
    """
    question = {"request": request, "site": site, "dcde_id": dcde_id, "public_key": public_key}
    try:
        line = await asyncio.wait_for(_exchange(path, json.dumps(question).encode() + b"\n"), DEADLINE)
        answer = json.loads(line)
    except (OSError, TimeoutError, ValueError) as error:
        raise SignerUnavailable("The signer does not answer.", remedy="Try again in a moment.") from error
    if problem := answer.get("error"):
        kind = SignerRefused if problem["code"] != "HubError" else HubError
        raise kind(problem["message"], where=problem["where"] or site, remedy=problem["remedy"])
    return dict(answer)


async def _exchange(path: Path, line: bytes) -> bytes:
    reader, writer = await asyncio.open_unix_connection(path)
    try:
        writer.write(line)
        await writer.drain()
        return await reader.readline()
    finally:
        writer.close()
