"""The front door's certificate authority, good for `localhost` and nothing else, made with the openssl command.

The authority lasts (a person may have imported it into a browser); the door's certificate is made anew when names are
added.
"""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
from collections.abc import Iterable
from pathlib import Path

CA_DAYS, DOOR_DAYS = 825, 397
_SOON = 30 * 86400
_KEY = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes")
_CA_EXTENSIONS = (
    "basicConstraints=critical,CA:TRUE,pathlen:0",
    "keyUsage=critical,keyCertSign,cRLSign",
    "subjectKeyIdentifier=hash",
    "nameConstraints=critical,permitted;DNS:localhost,permitted;IP:127.0.0.1/255.255.255.255",
)


def ensure(folder: Path, names: Iterable[str]) -> None:
    """Have `ca.crt`, `ca.key`, `door.crt` (with the authority appended) and `door.key` in `folder`, good for `names`.

    Raises RuntimeError with what openssl said.
    """
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    wanted = sorted({"localhost", *names})
    if not _good(folder / "ca.crt"):
        extensions = [part for each in _CA_EXTENSIONS for part in ("-addext", each)]
        _openssl(
            "req",
            "-x509",
            *_KEY,
            "-days",
            str(CA_DAYS),
            "-subj",
            "/O=DCDE sample world/CN=DCDE sample CA (localhost only)",
            "-keyout",
            str(folder / "ca.key"),
            "-out",
            str(folder / "ca.crt"),
            *extensions,
        )
        (folder / "names.json").unlink(missing_ok=True)
    if not _good(folder / "door.crt") or _read_names(folder) != wanted:
        _issue(folder, wanted)
        (folder / "names.json").write_text(json.dumps(wanted))
    (folder / "ca.crt").chmod(0o644)


def _issue(folder: Path, names: list[str]) -> None:
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        request, extensions = Path(scratch, "door.csr"), Path(scratch, "extensions")
        alternatives = ",".join([*(f"DNS:{name}" for name in names), "IP:127.0.0.1"])
        extensions.write_text(
            f"subjectAltName={alternatives}\nextendedKeyUsage=serverAuth\nkeyUsage=critical,digitalSignature\n"
            "basicConstraints=critical,CA:FALSE\nsubjectKeyIdentifier=hash\nauthorityKeyIdentifier=keyid\n"
        )
        _openssl(
            "req",
            *_KEY,
            "-subj",
            "/O=DCDE sample world/CN=front door",
            "-keyout",
            str(folder / "door.key"),
            "-out",
            str(request),
        )
        _openssl(
            "x509",
            "-req",
            "-in",
            str(request),
            "-CA",
            str(folder / "ca.crt"),
            "-CAkey",
            str(folder / "ca.key"),
            "-days",
            str(DOOR_DAYS),
            "-set_serial",
            f"0x{os.urandom(16).hex()}",
            "-extfile",
            str(extensions),
            "-out",
            str(folder / "door.crt"),
        )
    with (folder / "door.crt").open("a") as file:
        file.write((folder / "ca.crt").read_text())


def _good(certificate: Path) -> bool:
    if not certificate.exists():
        return False
    shown = subprocess.run(
        ["openssl", "x509", "-in", str(certificate), "-noout", "-checkend", str(_SOON)], capture_output=True
    )
    return shown.returncode == 0


def _read_names(folder: Path) -> list[str] | None:
    try:
        return list(json.loads((folder / "names.json").read_text()))
    except (OSError, ValueError):
        return None


def _openssl(*arguments: str) -> None:
    done = subprocess.run(["openssl", *arguments], capture_output=True, text=True, umask=0o077)
    if done.returncode:
        raise RuntimeError(f"openssl {arguments[0]} failed: {done.stderr.strip()}")
