"""The signer's socket: one line of JSON in, one out, and only for the account of the broker."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import socket
import struct
from pathlib import Path

from dcde_models.logs import request_id

from dcde_hub.errors import Forbidden, HubError, SignerRefused
from dcde_hub.signer.certificates import parse_ask, sign
from dcde_hub.signer.keys import SiteKeys

log = logging.getLogger("dcde.signer")
audit = logging.getLogger("dcde.signer.audit")

LINE = 4096
"""The longest request, in bytes."""

PATIENCE = 5.0
"""Seconds within which a request must have arrived."""


class Signer:
    """Answers on a unix socket.

    Args:
        keys: The certificate authorities' keys.
        allowed_uids: The accounts that may ask.
    """

    def __init__(self, keys: SiteKeys, allowed_uids: frozenset[int]) -> None:
        self._keys = keys
        self._allowed = allowed_uids

    async def listen(self, path: Path) -> asyncio.Server:
        """Listen at `path`, in place of whatever an earlier signer left there."""
        return await asyncio.start_unix_server(self._serve, sock=_socket_at(path), limit=LINE)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            # Read first: closing on unread bytes would take the answer away from the one who asks.
            line = await asyncio.wait_for(reader.readline(), PATIENCE)
            self._check_peer(writer)
            answer = self._answer(line)
        except HubError as error:
            log.warning("refused: %s", error)
            answer = {"error": error.to_json()}
        except (TimeoutError, ValueError, ConnectionError) as error:
            log.warning("no usable request: %r", error)
            answer = {"error": SignerRefused("The request did not arrive whole.").to_json()}
        except Exception:
            log.exception("the request failed")
            answer = {"error": HubError("The signer failed.").to_json()}
        with contextlib.suppress(ConnectionError):
            writer.write(json.dumps(answer).encode() + b"\n")
            await writer.drain()
        writer.close()

    def _check_peer(self, writer: asyncio.StreamWriter) -> None:
        peer: socket.socket = writer.get_extra_info("socket")
        _, uid, _ = struct.unpack("3i", peer.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
        if uid not in self._allowed:
            raise Forbidden(f"The account with uid {uid} may not ask the signer.")

    def _answer(self, line: bytes) -> dict[str, object]:
        ask = parse_ask(line)
        request_id.set(ask.request)
        signed = sign(ask, self._keys.get(ask.site))
        audit.info(
            "signed serial %d for %s, key %s, until %d",
            *(signed.serial, signed.principal, signed.fingerprint, signed.valid_before),
            extra={"person": ask.dcde_id, "site": ask.site},
        )
        return {
            "certificate": signed.certificate,
            "principal": signed.principal,
            "serial": signed.serial,
            "valid_before": signed.valid_before,
        }


def _socket_at(path: Path) -> socket.socket:
    path.unlink(missing_ok=True)
    bound = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    bound.bind(str(path))
    path.chmod(0o666)  # who asks is checked by the uid that the kernel names
    return bound
