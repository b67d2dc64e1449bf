"""The command line: its grammar, and what becomes of errors.

Exit codes: 0 done; 1 it failed; 2 the command line or a value in it is wrong; 3 not allowed; 4 try again later
(a site, the runner or the broker is away); 130 interrupted.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence

from dcde import __version__
from dcde.cli import commands
from dcde.errors import DcdeError, NotAllowed, UsageError

EPILOG = "Sites are named as in `dcde sites`; a place at a site is written site:path, such as bnl:movies."


def parser() -> argparse.ArgumentParser:
    """Return the parser of the whole command line."""
    top = argparse.ArgumentParser(
        prog="dcde", description="Compute and data at several laboratories, as one.", epilog=EPILOG
    )
    top.add_argument("--version", action="version", version=f"dcde {__version__}")
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--json", action="store_true", help="print JSON, for programs")
    sub = top.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def add(name: str, does: str) -> argparse.ArgumentParser:
        found = sub.add_parser(name, help=does, description=does[0].upper() + does[1:] + ".", parents=[common])
        found.set_defaults(run=getattr(commands, name))
        return found

    add("whoami", "show who you are: id, groups, policies, trainings")
    one = add("sites", "show the sites, their state and what you may do there")
    one.add_argument("site", nargs="?", help="show one site in full")
    ls = add("ls", "list a folder at a site")
    ls.add_argument("place", help="site:path, such as bnl:movies")
    cp = add("cp", "copy a file or folder from one site to another")
    cp.add_argument("source", help="site:path")
    cp.add_argument("target", help="site:path; ends with / to copy into a folder")
    cp.add_argument("--detach", action="store_true", help="do not wait until it is done")
    add("projects", "list your projects").add_argument("project", nargs="?", help="show one project in full")
    add("templates", "list the templates").add_argument("template", nargs="?", help="show the form of one template")
    launch = add("launch", "start a run of a template")
    launch.add_argument("template")
    launch.add_argument(
        "--set", action="append", default=[], metavar="NAME=VALUE", dest="parameters", help="a value of the form"
    )
    launch.add_argument(
        "--site", action="append", default=[], metavar="STEP=SITE", dest="sites", help="where a step shall run, or auto"
    )
    launch.add_argument("--project", help="the project to work in; by default a new one")
    launch.add_argument("--allocation", help="what the schedulers shall charge")
    launch.add_argument("--watch", action="store_true", help="follow the run until it ends")
    add("runs", "list your runs")
    for name, does in (
        ("show", "show a run and its steps"),
        ("watch", "follow a run until it ends"),
        ("cancel", "cancel a run with its jobs"),
        ("resume", "go on with a failed or cancelled run"),
    ):
        add(name, does).add_argument("run_id", metavar="RUN")
    logs = add("logs", "print what a step has written")
    logs.add_argument("run_id", metavar="RUN")
    logs.add_argument("step")
    logs.add_argument("--stderr", action="store_true", help="its errors rather than its output")
    logs.add_argument("--follow", action="store_true", help="go on until the step ends")
    return top


def main(argv: Sequence[str] | None = None) -> int:
    """Carry out a command line and return the exit code."""
    args = parser().parse_args(argv)
    try:
        code: int = args.run(args)
        sys.stdout.flush()
        return code
    except DcdeError as error:
        if args.json:
            print(json.dumps({"error": error.to_json()}))
        else:
            print(f"dcde: {error}", file=sys.stderr)
            if error.retry:
                print("dcde: Trying again can help.", file=sys.stderr)
        return exit_code(error)
    except KeyboardInterrupt:
        print("dcde: stopped looking; what was started goes on.", file=sys.stderr)
        return 130
    except BrokenPipeError:
        # The reader, such as `head`, has gone; python would complain once more when it flushes.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


def exit_code(error: DcdeError) -> int:
    """Return the exit code of an error, see the head of this module."""
    if isinstance(error, UsageError):
        return 2
    if isinstance(error, NotAllowed):
        return 3
    return 4 if error.retry else 1
