"""`python -m dcde_demo.prepare`: writes the hub's configuration for the world it runs in. Run as the world's root.

What must last (keys, tokens) is made once in the state directory; the rest is written anew at each start of the world.
"""

from __future__ import annotations

import json
import os
import pwd
import sys
from pathlib import Path
from typing import Any

import yaml
from dcde_hub.secretfile import ensure_secret, write_secret
from dcde_hub.signer.__main__ import make_keys

from dcde_demo import places
from dcde_demo.sites import write_sites

HUB_CONFIGURATION = """\
# Written at each start of the world; the real thing is dcde_demo.hub.
from dcde_demo.hub import configure

configure(get_config())  # noqa: F821
"""


def main() -> int:
    """Write everything, and return the exit status."""
    os.umask(0o022)
    world = read_world(places.WORLD)
    _folders()
    _secrets()
    make_keys(places.SIGNER_KEYS, places.ONBOARDING, sorted(world["sites"]), "dcde-signer")
    write_sites(places.ETC / "sites", world["sites"])
    _service_files(world["registry"])
    (places.ETC / "jupyterhub_config.py").write_text(HUB_CONFIGURATION, encoding="ascii")
    return 0


def read_world(path: Path) -> dict[str, Any]:
    """Return what the testbed says about itself; SystemExit with a sentence when the hub cannot live there."""
    world: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    if not world.get("federation"):
        raise SystemExit(
            "This world has no federation, so nobody could log in: build its environment, and start again."
        )
    return world


def _folders() -> None:
    """Make the folders of hub, signer and keeper: each may enter its own and pass through the common one."""
    signer_run = places.SIGNER_SOCKET.parent
    for path, owner, mode in (
        (places.STATE, "root", 0o711),
        (places.STATE / "secrets", "root", 0o700),
        (places.SIGNER_KEYS, "dcde-signer", 0o700),
        (places.KEEPER_STATE, "dcde-keeper", 0o700),
        (places.LOGS / "servers", "root", 0o700),
        (signer_run.parent, "root", 0o755),
        (signer_run, "dcde-signer", 0o755),
        (places.ETC, "root", 0o755),
    ):
        path.mkdir(mode=mode, parents=True, exist_ok=True)
        account = pwd.getpwnam(owner)
        os.chown(path, account.pw_uid, account.pw_gid)
        path.chmod(mode)


def _secrets() -> None:
    """Make the secrets once, and give each service a copy of its own that nobody else can read."""
    kept = places.STATE / "secrets"
    copies = places.ETC / "secrets"
    copies.mkdir(mode=0o711, parents=True, exist_ok=True)
    ensure_secret(kept / "crypt_key")
    for service in ("proxy", "broker", "keeper"):
        account = pwd.getpwnam(f"dcde-{service}")
        write_secret(copies / service, ensure_secret(kept / service), (account.pw_uid, account.pw_gid))


def _service_files(registry: str) -> None:
    common = {"address": places.HUB_ADDRESS, "hub_api_url": places.HUB_API, "registry": registry}
    broker = common | {
        "port": places.BROKER_PORT,
        "token_file": str(places.ETC / "secrets" / "broker"),
        "sites": str(places.ETC / "sites"),
        "signer_socket": str(places.SIGNER_SOCKET),
    }
    keeper = common | {
        "port": places.KEEPER_PORT,
        "token_file": str(places.ETC / "secrets" / "keeper"),
        "database": str(places.KEEPER_STATE / "keeper.sqlite"),
    }
    for name, content in (("broker", broker), ("keeper", keeper)):
        (places.ETC / f"{name}.yaml").write_text(yaml.safe_dump(content, sort_keys=False), encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
