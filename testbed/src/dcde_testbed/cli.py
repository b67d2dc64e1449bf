"""The command: `dcde-testbed check|up|down|status|logs|in|node|link|service`."""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dcde_testbed import outside
from dcde_testbed.guest import Guest, GuestError, load
from dcde_testbed.layout import DEFAULT_PORT, LayoutError, sites_with
from dcde_testbed.outside import Options, WorldError


def parser() -> argparse.ArgumentParser:
    """The options of the command."""
    top = argparse.ArgumentParser(
        prog="dcde-testbed", description="Institutions, a proxy and three sites behind firewalls, on this machine."
    )
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument(
        "--state",
        type=Path,
        default=Path(os.environ.get("DCDE_STATE", "build/world")),
        metavar="DIR",
        help="what lasts, a 0700 folder (default: $DCDE_STATE or build/world)",
    )
    actions = top.add_subparsers(dest="action", required=True)

    actions.add_parser("check", help="say what this machine lacks for a world, and start nothing")
    up = actions.add_parser("up", parents=[common], help="start the world; returns when everything answers")
    up.add_argument(
        "--port", type=int, default=DEFAULT_PORT, help="front door, the same inside and outside (default %(default)s)"
    )
    up.add_argument(
        "--env",
        type=Path,
        default=Path(os.environ.get("DCDE_ENV", "build/env")),
        metavar="DIR",
        help="built environments (default: $DCDE_ENV or build/env)",
    )
    up.add_argument("--guest", type=Path, metavar="FILE", help="the product under test, as YAML")
    up.add_argument(
        "--site-option",
        action="append",
        default=[],
        metavar="SITE.NAME=VALUE",
        help="for example anl-lcrc.storage_mb=64",
    )
    up.add_argument(
        "--sample-data", metavar="DIR|none", help="movies to lay into the first person's storage (default: made once)"
    )
    up.add_argument(
        "--listen", default="127.0.0.1", metavar="ADDRESS", help="address of the front door (default %(default)s)"
    )
    up.add_argument("--expose", action="store_true", help="allow a --listen address that other machines reach")
    up.add_argument("--foreground", action="store_true", help="stay; ctrl-C takes everything down")

    actions.add_parser("down", parents=[common], help="end the world in order; STATE stays")
    actions.add_parser("status", parents=[common], help="what runs; exit status 3 when the world is down")
    logs = actions.add_parser("logs", parents=[common], help="list the logs, or show one")
    logs.add_argument("name", nargs="?", help="for example hub or bnl-sdcc/login.slurmctld")
    logs.add_argument("-f", "--follow", action="store_true")
    enter = actions.add_parser("in", parents=[common], help="run a command in hub, SITE or SITE/MACHINE")
    enter.add_argument("--user", help="as this account, in its home (default: that room's root)")
    enter.add_argument("where")
    enter.add_argument("command", nargs=argparse.REMAINDER)
    node = actions.add_parser("node", parents=[common], help="let a machine of a site die, or start it")
    node.add_argument("machine", metavar="SITE/MACHINE")
    node.add_argument("do", choices=["stop", "start"])
    link = actions.add_parser(
        "link", parents=[common], help="cut a site off the wide area network, silently, or mend it"
    )
    link.add_argument("site")
    link.add_argument("do", choices=["cut", "mend"])
    service = actions.add_parser("service", parents=[common], help="act on one service")
    service.add_argument("name")
    service.add_argument("do", choices=["stop", "start", "kill", "crash"], help="crash: it dies and is started again")
    return top


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit status. Errors are said in one sentence on standard error."""
    options = parser().parse_args(arguments)
    if options.action == "check":
        return _check()
    options.state = options.state.resolve()
    actions = {
        "up": _up,
        "down": _down,
        "status": _status,
        "logs": _logs,
        "in": _in,
        "node": _node,
        "link": _link,
        "service": _service,
    }
    try:
        return actions[options.action](options)
    except (WorldError, GuestError, LayoutError) as error:
        print(f"dcde-testbed: {error}", file=sys.stderr)
        return 1


def tell(message: dict[str, Any]) -> None:
    """Print one report of the world that is starting."""
    if "warning" in message:
        print(f"  warning: {message['warning']}", flush=True)
    elif "stage" in message:
        print(f"  {message['seconds']:7.2f} s  {message['stage']}", flush=True)
    elif message.get("ready"):
        print(f"  {message['seconds']:7.2f} s  in all", flush=True)


def _check() -> int:
    try:
        outside.check_machine()
    except WorldError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


def _up(options: argparse.Namespace) -> int:
    guest = load(options.guest) if options.guest else Guest()
    sites = sites_with(options.site_option)
    if options.sample_data == "none":
        data = None
    elif options.sample_data:
        data = Path(options.sample_data).resolve()
        if not (data / "movies").is_dir():
            raise WorldError(f"--sample-data {data}: there is no folder movies in it")
    else:
        data = outside.sample_data(options.state, options.env.resolve(), tell)
    print(f"The world in {options.state}:", flush=True)
    try:
        outside.up(
            Options(options.state, options.port, options.env, guest, sites, data, options.listen, options.expose), tell
        )
    except KeyboardInterrupt:
        print("\ninterrupted; everything was ended", file=sys.stderr)
        return 130
    if guest.routes:
        print(
            f"Open https://{next(iter(guest.routes))}:{options.port}/ (its authority: {options.state}/door/ca.crt)",
            flush=True,
        )
    return _stay(options.state) if options.foreground else 0


def _stay(state: Path) -> int:
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.default_int_handler)
    try:
        print("Press ctrl-C to end it.", flush=True)
        outside.wait_until_down(state)
    except KeyboardInterrupt:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # a second ctrl-C must not leave half of it running
        outside.down(state)
        print("\nThe world is down.", flush=True)
        return 0
    outside.down(state)
    print("The world ended by itself; see its logs.", file=sys.stderr)
    return 1


def _down(options: argparse.Namespace) -> int:
    was_up = outside.down(options.state)
    print("The world is down." if was_up else "No world was up.")
    return 0


def _status(options: argparse.Namespace) -> int:
    if not outside.is_up(options.state):
        print("down")
        return 3
    status = outside.ask(options.state, op="status")
    print(f"{'up' if status['ready'] else 'starting'}, port {status['port']}, world {status['world']}")
    for service in status["services"]:
        again = f", started {service['starts']} times" if service["starts"] > 1 else ""
        print(f"  {service['name']:24} {service['state']}{again}")
    for site, link in status["links"].items():
        print(f"  link to {site:16} {link}")
    return 0


def _logs(options: argparse.Namespace) -> int:
    logs = options.state / "inside" / "logs"
    if options.name is None:
        names = ["world", *sorted(str(path.relative_to(logs).with_suffix("")) for path in logs.rglob("*.log"))]
        print("\n".join(names))
        return 0
    path = options.state / "world.log" if options.name == "world" else (logs / f"{options.name}.log").resolve()
    if not path.exists() or not path.is_relative_to(options.state):
        raise WorldError(f"there is no log {options.name}; `dcde-testbed logs` lists them")
    return subprocess.run(["tail", "-n", "200", *(["-F"] if options.follow else []), str(path)]).returncode


def _in(options: argparse.Namespace) -> int:
    argv = options.command[1:] if options.command[:1] == ["--"] else options.command
    outside.replace_process(outside.entering(options.state, options.where, argv or ["bash", "-l"], options.user))
    return 0


def _node(options: argparse.Namespace) -> int:
    site, _, machine = options.machine.partition("/")
    print(_said(outside.ask(options.state, op="node", site=site, machine=machine, do=options.do)))
    return 0


def _link(options: argparse.Namespace) -> int:
    answer = outside.ask(options.state, op="link", site=options.site, do=options.do)
    print(f"link to {answer['site']}: {'cut' if answer['link'] == 'cut' else 'up'}")
    return 0


def _service(options: argparse.Namespace) -> int:
    print(_said(outside.ask(options.state, op="service", name=options.name, do=options.do)))
    return 0


def _said(answer: dict[str, Any]) -> str:
    return f"{answer['name']}: {answer['state']}"
