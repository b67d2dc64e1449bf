"""The one-shot that makes the federation's keys and signed metadata: `python -m dcde_testbed.federation.publish`.

It runs as the federation's account and reads `{"settings": <Settings as JSON text>, "client_secret": "..."}` from
standard input. Keys are made once; metadata again only when the settings have changed. `settings.json` is written
last, so that an interrupted run is repeated.
"""

from __future__ import annotations

import datetime
import json
import os
import secrets
import sys
from pathlib import Path

from dcde_testbed.federation.settings import CLIENT_ID, Settings

KEY_BITS = 2048
VALID = datetime.timedelta(days=3650)  # trust comes from the metadata; the date in the certificate is not looked at


def publish(settings: Settings, client_secret: str) -> bool:
    """Make what is missing; returns whether anything was written. Raises OSError and pysaml2's errors."""
    complete = settings.settings_file
    wanted = settings.to_json()
    _write(settings.clients_file, _clients(settings, client_secret))
    if complete.exists() and complete.read_text(encoding="utf-8") == wanted:
        return False
    complete.unlink(missing_ok=True)
    for folder in (settings.folder / "keys", settings.folder / "tmp"):
        folder.mkdir(mode=0o700, exist_ok=True)
    if not settings.state_key_file.exists():
        _write(settings.state_key_file, secrets.token_hex(32))
    for name in ("operator", "oidc", "proxy", *(institution.key for institution in settings.institutions)):
        if not settings.certificate_file(name).exists():
            _make_key(settings, name)
    from dcde_testbed.federation.metadata import signed_metadata  # half a second; usually not needed

    _write(settings.metadata_file, signed_metadata(settings))
    _write(complete, wanted)
    return True


def _write(path: Path, text: str) -> None:
    draft = path.with_name(f".{path.name}.new")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(text)
    draft.rename(path)


def _clients(settings: Settings, client_secret: str) -> str:
    """Return pyop's client database: a dictionary of OpenID Connect client metadata."""
    hub = {
        "client_id": CLIENT_ID,
        "client_secret": client_secret,
        "client_name": "DCDE Hub",
        "subject_type": "public",
        "redirect_uris": [settings.callback_url],
        "response_types": ["code"],
        "token_endpoint_auth_method": "client_secret_post",
    }
    return json.dumps({CLIENT_ID: hub})


def _make_key(settings: Settings, name: str) -> None:
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import rsa
    from cryptography.x509.oid import NameOID

    key = rsa.generate_private_key(public_exponent=65537, key_size=KEY_BITS)
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"{name} of the sample federation")])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + VALID)
        .sign(key, hashes.SHA256())
    )
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.TraditionalOpenSSL, serialization.NoEncryption()
    )
    _write(settings.key_file(name), private.decode())
    _write(settings.certificate_file(name), certificate.public_bytes(serialization.Encoding.PEM).decode())


def main() -> None:
    """Read the input, publish, and leave nothing but an exit status."""
    document = json.load(sys.stdin)
    publish(Settings.from_json(document["settings"]), document["client_secret"])


if __name__ == "__main__":
    main()
