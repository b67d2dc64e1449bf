"""Where things are inside the world."""

from __future__ import annotations

from pathlib import Path

WORLD = Path("/var/lib/dcde/world.json")
"""What the testbed says about itself."""

STATE = Path("/var/lib/dcde/hub")
"""What the hub keeps: database, cookie secret, keys and tokens, and the folders of signer and keeper."""

ONBOARDING = Path("/var/lib/dcde/onboarding")
"""What sites are given."""

LOGS = Path("/var/lib/dcde/logs")

ETC = Path("/etc/dcde/hub")
"""The configuration, written anew at each start of the world."""

SIGNER_KEYS = STATE / "signer"
SIGNER_SOCKET = Path("/run/dcde/signer/signer.sock")
KEEPER_STATE = STATE / "keeper"

HUB_ADDRESS = "10.79.0.1"
HUB_API = f"http://{HUB_ADDRESS}:8081/hub/api"
BROKER_PORT, KEEPER_PORT = 8082, 8083
PROXY_PORT, PROXY_API_PORT = 8000, 8001
