"""The runner's answers as tables, the same in a notebook and in a terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from dcde.show import Table, elapsed, metrics, moment, queue, size

Answer = Mapping[str, Any]


def sites(found: Sequence[Answer]) -> Table:
    """Return the table of the sites: state, queue and what the person may do there."""
    rows = [
        {
            "site": s["name"],
            "state": s["state"],
            "account": s["account"],
            "queue": queue(s["queue"]),
            "may": ", ".join(c["title"] for c in s["capabilities"] if c["allowed"]) or "nothing yet",
            "why": s["reason"] if s["state"] != "up" else "",
        }
        for s in found
    ]
    return Table(rows, empty="You have no sites yet.")


def folder(answer: Answer) -> Table:
    """Return the table of what lies in a folder at a site."""
    rows = [
        {
            "name": e["name"] + ("/" if e["type"] == "folder" else ""),
            "size": size(e["size"]) if e["type"] == "file" else "",
            "changed": moment(e["mtime"]),
        }
        for e in answer["entries"]
    ]
    note = "There is more; only the first entries are shown." if answer["truncated"] else ""
    return Table(rows, empty="This folder is empty.", note=note)


def projects(found: Sequence[Answer]) -> Table:
    """Return the table of the projects."""
    rows = [
        {"project": p["name"], "sites": ", ".join(p["sites"]), "files": p["files"], "size": size(p["bytes"])}
        for p in found
    ]
    return Table(rows, empty="You have no projects yet. A launch makes one.")


def project_files(project: Answer) -> Table:
    """Return the table of a project's files; the sites whose copy is out of date are marked."""
    rows = [
        {"file": f["path"], "size": size(f["size"]), "from": f["origin"], "sites": _holders(f["replicas"])}
        for f in project["replicas"]
    ]
    return Table(rows, empty="The project has no files yet.")


def _holders(replicas: Sequence[Answer]) -> str:
    return ", ".join(r["site"] if r["state"] == "authoritative" else f"{r['site']} ({r['state']})" for r in replicas)


def templates(found: Sequence[Answer]) -> Table:
    """Return the table of the templates."""
    rows = [{"template": t["name"], "title": t["title"], "what it does": t["description"]} for t in found]
    return Table(rows, empty="No templates are installed.")


def runs(found: Sequence[Answer]) -> Table:
    """Return the table of the runs."""
    rows = [
        {
            "run": r["id"],
            "title": r["title"],
            "state": r["state"],
            "project": r["project"],
            "started": moment(r["created"]),
        }
        for r in found
    ]
    return Table(rows, empty="You have no runs yet. Start one of the template first-look.")


def steps(run: Answer) -> Table:
    """Return the table of a run's steps."""
    rows = [
        {
            "step": s["title"],
            "site": s["site"] or s["site_wish"],
            "state": s["state"],
            "time": elapsed(s),
            "result": metrics(s["metrics"]),
            "why": s["why"] if s["state"] not in {"succeeded", "running"} else "",
        }
        for s in run["steps"]
    ]
    return Table(rows, empty="The run has no steps.")
