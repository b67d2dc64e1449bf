"""What each command does. Each takes the parsed arguments and returns an exit code."""

from __future__ import annotations

import argparse
import json
import sys
import time
from typing import Any

from dcde import show as look
from dcde import tables
from dcde.api import FINISHED
from dcde.client import SyncClient
from dcde.errors import InvalidParameter, UnknownName

PENDING = frozenset({"waiting", "moving"})


def whoami(args: argparse.Namespace) -> int:
    """Show the person."""
    me = _call("whoami")
    return _print(args, me, look.Card("You", me))


def sites(args: argparse.Namespace) -> int:
    """Show all sites, or one in full."""
    found = _call("sites.list")
    if args.site:
        return _one_site(args, found)
    return _print(args, found, tables.sites(found))


def _one_site(args: argparse.Namespace, found: list[dict[str, Any]]) -> int:
    site = next((s for s in found if args.site in (s["name"], *s["aliases"])), None)
    if site is None:
        names = ", ".join(s["name"] for s in found)
        raise UnknownName(f"There is no site {args.site!r}.", remedy=f"Sites are: {names}.")
    plain = {name: site[name] for name in ("name", "title", "state", "reason", "remedy", "account", "login_host")}
    plain["queue"] = look.queue(site["queue"])
    plain["free space"] = look.size((site["free"] or {}).get("available"))
    plain["applications"] = ", ".join(f"{n} {v}" for n, v in site["applications"].items())
    may = [
        {
            "you may": c["title"],
            "answer": "yes" if c["allowed"] else "no",
            "why": "" if c["allowed"] else c["remedy"] or c["reason"],
        }
        for c in site["capabilities"]
    ]
    return _print(args, site, look.Card("Site", plain), look.Table(may, empty="The site has not said what you may do."))


def ls(args: argparse.Namespace) -> int:
    """List a folder at a site."""
    site, path = _place(args.place)
    answer = _call("files.list", site=site, path=path)
    return _print(args, answer, tables.folder(answer))


def _place(text: str) -> tuple[str, str]:
    site, colon, path = text.partition(":")
    if not colon:
        raise InvalidParameter(f"{text!r} names no site.", remedy="Write site:path, such as bnl:movies.")
    return site, path


def cp(args: argparse.Namespace) -> int:
    """Copy between sites, with progress."""
    _place(args.source), _place(args.target)
    transfer = _call("files.copy", source=args.source, target=args.target)
    while not args.detach and transfer["state"] in PENDING:
        _progress(args, f"{look.size(transfer['bytes_done'])} of {look.size(transfer['bytes_total'])}")
        time.sleep(0.5)
        transfer = next(t for t in _call("transfers.list") if t["id"] == transfer["id"])
    _progress(args, "")
    if transfer["state"] == "failed":
        raise look.error_of(transfer["error"])
    said = f"{transfer['state']}: {transfer['files_done']} files, {look.size(transfer['bytes_done'])}"
    return _print(args, transfer, said)


def _progress(args: argparse.Namespace, text: str) -> None:
    if not args.json and sys.stderr.isatty():
        print(f"\r\033[K{text}", end="", file=sys.stderr, flush=True)


def projects(args: argparse.Namespace) -> int:
    """List projects, or show one with its files."""
    if args.project:
        one = _call("projects.show", name=args.project)
        return _print(args, one, tables.project_files(one))
    found = _call("projects.list")
    return _print(args, found, tables.projects(found))


def templates(args: argparse.Namespace) -> int:
    """List templates, or show the form of one."""
    if args.template:
        one = _call("templates.show", name=args.template)
        rows = [
            {"name": n, "default": p.get("default"), "unit": p.get("x-unit"), "what": p.get("title")}
            for n, p in one["schema"]["properties"].items()
        ]
        steps = [{"step": s["id"], "title": s["title"], "site": s["default_site"]} for s in one["steps"]]
        form = look.Table(rows, empty="It has no form.")
        return _print(args, one, one["title"], "", form, "", look.Table(steps, empty="It has no steps."))
    found = _call("templates.list")
    return _print(args, found, tables.templates(found))


def launch(args: argparse.Namespace) -> int:
    """Start a run."""
    given = {name: value for name in ("project", "allocation") if (value := getattr(args, name)) is not None}
    parameters = {name: _value(text) for name, text in map(_pair, args.parameters)}
    run = _call(
        "runs.launch", template=args.template, parameters=parameters, sites=dict(map(_pair, args.sites)), **given
    )
    if args.watch:
        args.run_id = run["id"]
        return watch(args)
    return _print(
        args, run, f"Started run {run['id']} in project {run['project']}. Follow it with: dcde watch {run['id']}"
    )


def _pair(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals or not name:
        raise InvalidParameter(f"{text!r} is not NAME=VALUE.", remedy="Write it as in --set voltage=300.")
    return name, value


def _value(text: str) -> Any:
    """Return a value as the form means it: a number or boolean where it is one, otherwise the text itself."""
    try:
        value = json.loads(text)
    except ValueError:
        return text
    return value if isinstance(value, bool | int | float) else text


def runs(args: argparse.Namespace) -> int:
    """List runs."""
    found = _call("runs.list")
    return _print(args, found, tables.runs(found))


def show(args: argparse.Namespace) -> int:
    """Show a run with its steps."""
    run = _call("runs.show", run=args.run_id)
    return _print(args, run, *_run_text(run))


def _run_text(run: dict[str, Any]) -> tuple[Any, ...]:
    problems = [f"{s['id']}: {p}" for s in run["steps"] for p in s["problems"]]
    errors = [(s["id"], s.get("error") or {}) for s in run["steps"]]
    problems += [f"{step}: {error['remedy']}" for step, error in errors if error.get("remedy")]
    return (
        f"Run {run['id']}: {run['title']}, {run['state']}. {run['reason'] or ''}".rstrip(),
        tables.steps(run),
        *problems,
    )


def watch(args: argparse.Namespace) -> int:
    """Follow a run: a line for each change, and the whole at its end. The exit code tells whether it succeeded."""
    before: dict[str, Any] = {}
    while True:
        run = _call("runs.show", run=args.run_id)
        for step in run["steps"]:
            now = (step["state"], step["site"], step["why"] if step["state"] in {"waiting", "unknown"} else "")
            if before.get(step["id"]) != now and not args.json:
                print(
                    f"{time.strftime('%H:%M:%S')}  {step['id']:12s} {now[0]:10s} {now[1] or '':12s} {now[2]}".rstrip(),
                    flush=True,
                )
            before[step["id"]] = now
        if run["state"] in FINISHED:
            _print(args, run, *_run_text(run))
            return 0 if run["state"] == "succeeded" else 1
        time.sleep(1)


def logs(args: argparse.Namespace) -> int:
    """Print what a step has written, and go on while it runs when asked to."""
    offset, stream, text = 0, "stderr" if args.stderr else "stdout", ""
    while True:
        part = _call("runs.log", run=args.run_id, step=args.step, stream=stream, offset=offset)
        text, offset = text + part["text"], part["offset"]
        if not args.json:
            print("".join(c if c.isprintable() or c in "\n\t" else " " for c in part["text"]), end="", flush=True)
        if part["text"]:
            continue
        step = next(s for s in _call("runs.show", run=args.run_id)["steps"] if s["id"] == args.step)
        if not args.follow or step["state"] in FINISHED:
            break
        time.sleep(1)
    if args.json:
        print(json.dumps({"text": text, "offset": offset}))
    return 0


def cancel(args: argparse.Namespace) -> int:
    """Cancel a run."""
    run = _call("runs.cancel", run=args.run_id)
    return _print(args, run, f"Run {args.run_id} is being cancelled with its jobs.")


def resume(args: argparse.Namespace) -> int:
    """Go on with a run."""
    run = _call("runs.resume", run=args.run_id)
    return _print(args, run, f"Run {args.run_id} goes on; what has succeeded is kept.")


def _call(op: str, **arguments: Any) -> Any:
    return SyncClient().call(op, **arguments)


def _print(args: argparse.Namespace, data: Any, *texts: Any) -> int:
    if args.json:
        print(json.dumps(data, indent=2))
    else:
        for text in texts:
            print(text if isinstance(text, str) else repr(text))
    return 0
