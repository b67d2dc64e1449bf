"""The certificate authorities' keys: one ed25519 key for each site, so that a site can drop its own."""

from __future__ import annotations

import os
from pathlib import Path

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from dcde_models.documents import Name
from pydantic import TypeAdapter

from dcde_hub.errors import SecretRefused, Unknown
from dcde_hub.secretfile import read_secret, write_secret

_SITE: TypeAdapter[str] = TypeAdapter(Name)


class SiteKeys:
    """The keys in one 0700 folder, each in a 0600 file `<site>.key`.

    Args:
        folder: The folder.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def get(self, site: str) -> Ed25519PrivateKey:
        """Return the key of a site.

        Raises:
            Unknown: There is no key for this site.
            SecretRefused: The key's file is no ed25519 key or is readable by others.
        """
        path = self._folder / f"{_SITE.validate_python(site)}.key"
        if not path.exists():
            raise Unknown("There is no certificate authority for this site.", where=site)
        key = serialization.load_ssh_private_key(read_secret(path).encode("ascii"), password=None)
        if not isinstance(key, Ed25519PrivateKey):
            raise SecretRefused("This is no ed25519 key.", where=str(path))
        return key

    def ensure(self, site: str, owner: tuple[int, int] | None = None) -> str:
        """Make the key of a site if there is none, and return its public half as OpenSSH writes it.

        Args:
            site: The site.
            owner: The uid and gid that shall own a new key; by default the caller.
        """
        path = self._folder / f"{_SITE.validate_python(site)}.key"
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if owner:
            os.chown(self._folder, *owner)
        if not path.exists():
            text = Ed25519PrivateKey.generate().private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.OpenSSH, serialization.NoEncryption()
            )
            write_secret(path, text.decode("ascii").rstrip("\n"), owner)
        public = self.get(site).public_key()
        line = public.public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH)
        return f"{line.decode('ascii')} dcde-user-ca@{site}"
