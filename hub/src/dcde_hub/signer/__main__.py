"""`python -m dcde_hub.signer init|run`: make the keys once, then sign."""

from __future__ import annotations

import argparse
import asyncio
import pwd
import signal
import sys
from pathlib import Path

from dcde_models.logs import set_up_logs

from dcde_hub.signer.keys import SiteKeys
from dcde_hub.signer.server import Signer


def main(argv: list[str] | None = None) -> int:
    """Run the command line, and return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m dcde_hub.signer", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    init = commands.add_parser("init", help="make missing keys, and publish their public halves for the sites")
    init.add_argument("--keys", type=Path, required=True, metavar="DIR")
    init.add_argument("--onboarding", type=Path, required=True, metavar="DIR", help="gets SITE/user_ca.pub")
    init.add_argument("--owner", metavar="ACCOUNT", help="the signer's account, when run as root")
    init.add_argument("sites", nargs="+", metavar="SITE")
    run = commands.add_parser("run", help="sign, until told to end")
    run.add_argument("--keys", type=Path, required=True, metavar="DIR")
    run.add_argument("--socket", type=Path, required=True)
    run.add_argument("--broker", required=True, metavar="ACCOUNT", help="the account that may ask")
    options = parser.parse_args(argv)
    set_up_logs()
    if options.command == "init":
        make_keys(options.keys, options.onboarding, options.sites, options.owner)
    else:
        asyncio.run(_run(options))
    return 0


def make_keys(keys: Path, onboarding: Path, sites: list[str], owner: str | None) -> None:
    """Make the missing keys, and write each public half to `<onboarding>/<site>/user_ca.pub` for the site.

    Args:
        keys: The folder of the keys.
        onboarding: The folder from which sites are given what they need.
        sites: The sites.
        owner: The account that shall own the keys; None means the caller.
    """
    account = pwd.getpwnam(owner) if owner else None
    for site in sites:
        line = SiteKeys(keys).ensure(site, (account.pw_uid, account.pw_gid) if account else None)
        folder = onboarding / site
        folder.mkdir(mode=0o755, parents=True, exist_ok=True)
        (folder / "user_ca.pub").write_text(line + "\n", encoding="ascii")


async def _run(options: argparse.Namespace) -> None:
    ended = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, ended.set)
    signer = Signer(SiteKeys(options.keys), frozenset({pwd.getpwnam(options.broker).pw_uid}))
    async with await signer.listen(options.socket):
        await ended.wait()


if __name__ == "__main__":
    sys.exit(main())
