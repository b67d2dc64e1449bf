"""What may stand in a certificate."""

from __future__ import annotations

from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_ssh_public_identity
from cryptography.hazmat.primitives.serialization.ssh import SSHCertificate
from dcde_hub.errors import SignerRefused, Unknown
from dcde_hub.signer.certificates import Ask, parse_ask, sign
from dcde_hub.signer.keys import SiteKeys
from pydantic import ValidationError


def line(key: Ed25519PrivateKey | ec.EllipticCurvePrivateKey) -> str:
    return key.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode()


def ask(public_key: str, **change: str) -> Ask:
    return Ask(**{"request": "q0", "site": "bnl-sdcc", "dcde_id": "dcde1000001", "public_key": public_key} | change)


def test_a_certificate_holds_exactly_this() -> None:
    key, authority = Ed25519PrivateKey.generate(), Ed25519PrivateKey.generate()
    signed = sign(ask(line(key) + " a comment\n"), authority, now=1_000_000.9)
    certificate = load_ssh_public_identity(signed.certificate.encode())
    assert isinstance(certificate, SSHCertificate)
    certificate.verify_cert_signature()
    assert certificate.valid_principals == [b"dcde1000001@bnl-sdcc"]
    assert certificate.extensions == {b"permit-pty": b""} and certificate.critical_options == {}
    assert (certificate.valid_after, certificate.valid_before) == (1_000_000 - 60, 1_000_000 + 600)
    assert certificate.key_id == b"q0" and certificate.serial == signed.serial
    assert line(key) == certificate.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode()
    assert "comment" not in signed.certificate


def test_serials_differ() -> None:
    key, authority = Ed25519PrivateKey.generate(), Ed25519PrivateKey.generate()
    assert len({sign(ask(line(key)), authority).serial for _ in range(20)}) == 20


def test_other_keys_are_refused() -> None:
    authority = Ed25519PrivateKey.generate()
    ours = line(Ed25519PrivateKey.generate())
    certificate = sign(ask(ours), authority).certificate
    for text in (
        line(ec.generate_private_key(ec.SECP256R1())),
        certificate,
        ours + "\n" + ours,
        "command=x " + ours,
        ours[:-8],
    ):
        with pytest.raises(SignerRefused):
            sign(ask(text), authority)


@pytest.mark.parametrize(
    "change", [{"site": "../x"}, {"site": "a@b"}, {"dcde_id": "root"}, {"dcde_id": "dcde1000001,root"}, {"request": "a b"}, {"request": ""}]
)  # fmt: skip
def test_names_have_one_form(change: dict[str, str]) -> None:
    with pytest.raises(ValidationError):
        ask("", **change)


@pytest.mark.parametrize("text", [b"", b"{}", b"[]", b"\xff", b'{"request": "q0"}'])
def test_nonsense_is_refused(text: bytes) -> None:
    with pytest.raises(SignerRefused):
        parse_ask(text)


def test_each_site_has_its_key(tmp_path: Path) -> None:
    keys = SiteKeys(tmp_path / "keys")
    first = keys.ensure("bnl-sdcc")
    assert first == keys.ensure("bnl-sdcc") != keys.ensure("anl-lcrc")
    assert first.startswith("ssh-ed25519 ") and first.endswith(" dcde-user-ca@bnl-sdcc")
    assert {oct(p.stat().st_mode & 0o777) for p in (tmp_path / "keys").iterdir()} == {"0o600"}
    with pytest.raises(Unknown):
        keys.get("nowhere")
