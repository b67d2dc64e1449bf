"""`python -m dcde_hub.keeper CONFIGURATION`: serve as the keeper that the YAML file describes."""

from __future__ import annotations

import argparse
import asyncio
import sys
from pathlib import Path

import aiohttp
from dcde_models.logs import set_up_logs

from dcde_hub.keeper.hubapi import HubApi
from dcde_hub.keeper.memory import Memory
from dcde_hub.keeper.rounds import Rounds
from dcde_hub.keeper.service import Keeper
from dcde_hub.registry import FileRegistry
from dcde_hub.secretfile import read_secret
from dcde_hub.settings import KeeperSettings
from dcde_hub.web import HubTokens, serve


def main(argv: list[str] | None = None) -> int:
    """Run the command line, and return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m dcde_hub.keeper", description=__doc__)
    parser.add_argument("configuration", type=Path)
    settings = KeeperSettings.from_file(parser.parse_args(argv).configuration)
    set_up_logs()
    asyncio.run(_run(settings))
    return 0


async def _run(settings: KeeperSettings) -> None:
    token = read_secret(settings.token_file)
    memory = Memory(settings.database)
    keeper = Keeper(HubTokens("keeper", settings.hub_api_url, token), memory)
    async with aiohttp.ClientSession() as session:
        registry = FileRegistry(settings.registry, settings.uid_range)
        rounds = Rounds(HubApi(session, settings.hub_api_url, token), registry, memory, settings)
        await serve(keeper.application(), settings.address, settings.port, rounds.run)


if __name__ == "__main__":
    sys.exit(main())
