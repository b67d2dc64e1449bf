"""Making a certificate: what may stand in one is fixed here, whoever asks."""

from __future__ import annotations

import base64
import re
import time
from dataclasses import dataclass

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import (
    SSHCertificateBuilder,
    SSHCertificateType,
    load_ssh_public_key,
    ssh_key_fingerprint,
)
from dcde_models.documents import DcdeId, Name
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from dcde_hub.errors import SignerRefused

LIFETIME = 600
"""Seconds from now until a certificate ends."""

CLOCK_SKEW = 60
"""Seconds by which a site's clock may be behind."""


class Ask(BaseModel):
    """What the broker asks for."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    request: str = Field(pattern=r"^[A-Za-z0-9-]{1,64}$")
    site: Name
    dcde_id: DcdeId
    public_key: str = Field(max_length=1000)


@dataclass(frozen=True)
class Signed:
    """A certificate, and what an audit wants to know of it."""

    certificate: str
    principal: str
    serial: int
    valid_before: int
    fingerprint: str


def parse_ask(line: bytes) -> Ask:
    """Return the request in one line of JSON.

    Raises:
        SignerRefused: It is not one.
    """
    try:
        return Ask.model_validate_json(line)
    except ValidationError as error:
        fields = ", ".join(".".join(map(str, e["loc"])) for e in error.errors())
        raise SignerRefused(f"The request is not valid ({fields or 'no JSON'}).") from error


def sign(ask: Ask, authority: Ed25519PrivateKey, *, now: float | None = None) -> Signed:
    """Return a user certificate for `<dcde_id>@<site>`, good for ten minutes and for a terminal and nothing more.

    Args:
        ask: Who, where, and for which public key.
        authority: The key of the site's certificate authority.
        now: The time, seconds since the epoch; by default the clock's.

    Raises:
        SignerRefused: The public key is no ed25519 key.
    """
    public = _public_key(ask.public_key)
    seconds = int(time.time() if now is None else now)
    principal = f"{ask.dcde_id}@{ask.site}"
    serial = time.time_ns()
    certificate = (
        SSHCertificateBuilder()
        .public_key(public)
        .type(SSHCertificateType.USER)
        .serial(serial)
        .key_id(ask.request.encode("ascii"))
        .valid_principals([principal.encode("ascii")])
        .valid_after(seconds - CLOCK_SKEW)
        .valid_before(seconds + LIFETIME)
        .add_extension(b"permit-pty", b"")
        .sign(authority)
    )
    text = certificate.public_bytes().decode("ascii")
    return Signed(text, principal, serial, seconds + LIFETIME, _fingerprint(public))


def _public_key(text: str) -> Ed25519PublicKey:
    if not re.fullmatch(r"ssh-ed25519 [A-Za-z0-9+/]+={0,2}(?: [^\r\n]*)?\n?", text):
        raise SignerRefused("The public key is no ed25519 key of OpenSSH's form.", remedy="Send one ssh-ed25519 line.")
    try:
        key = load_ssh_public_key(text.encode())
    except (ValueError, UnsupportedAlgorithm) as error:
        raise SignerRefused("The public key cannot be read.", remedy="Send one ssh-ed25519 line.") from error
    if not isinstance(key, Ed25519PublicKey):
        raise SignerRefused("The public key is no ed25519 key.", remedy="Send one ssh-ed25519 line.")
    return key


def _fingerprint(key: Ed25519PublicKey) -> str:
    return "SHA256:" + base64.b64encode(ssh_key_fingerprint(key, SHA256())).decode("ascii").rstrip("=")
