"""`python -m dcde_hub.broker CONFIGURATION`: serve as the broker that the YAML file describes."""

from __future__ import annotations

import argparse
import asyncio
import sys
from pathlib import Path

from dcde_models.logs import set_up_logs

from dcde_hub.broker.service import Broker
from dcde_hub.broker.sites import SiteFolder
from dcde_hub.registry import FileRegistry
from dcde_hub.secretfile import read_secret
from dcde_hub.settings import BrokerSettings
from dcde_hub.web import HubTokens, serve


def main(argv: list[str] | None = None) -> int:
    """Run the command line, and return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m dcde_hub.broker", description=__doc__)
    parser.add_argument("configuration", type=Path)
    settings = BrokerSettings.from_file(parser.parse_args(argv).configuration)
    set_up_logs()
    tokens = HubTokens("broker", settings.hub_api_url, read_secret(settings.token_file))
    broker = Broker(
        tokens, FileRegistry(settings.registry, settings.uid_range), SiteFolder(settings.sites), settings.signer_socket
    )
    asyncio.run(serve(broker.application(), settings.address, settings.port))
    return 0


if __name__ == "__main__":
    sys.exit(main())
