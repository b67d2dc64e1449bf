"""docs/reference/benchmarks.md, written from the result files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from benchmarks import ROOT
from benchmarks.measure import RESULTS

PAGE = ROOT / "docs/reference/benchmarks.md"

HEAD = """\
# Benchmarks

`make bench` writes this page from `benchmarks/results/*.json`, where every turn stands with the machine, its load and
the commit. Our turns alternate with those of the peer in one run, and the figures are medians. Seconds from machines or
moments that differ must not be compared; ratios may be, with care: a busy machine makes both sides slower, but not
always alike.
"""


def write() -> Path:
    """Write the page and return its path."""
    results = [json.loads(path.read_text(encoding="utf-8")) for path in sorted(RESULTS.glob("*.json"))]
    PAGE.write_text("\n".join([HEAD, *(_section(result) for result in results)]), encoding="utf-8")
    return PAGE


def _section(result: dict[str, Any]) -> str:
    machine, load = result["machine"], result["load"]
    lines = [
        f"## {result['name']}",
        "",
        result["what"],
        "",
        f"Peer: {result['peer']}",
        "",
        "| | ours | peer | ratio |",
        "|---|---|---|---|",
        *(_row(figure) for figure in result["figures"]),
        "",
        *(f"- {note}" for note in result["notes"]),
        f"- Turns: {len(result['turns'])}; {result['date'][:16].replace('T', ' ')} UTC, commit {result['commit']}; "
        f"{machine['cores']} cores {machine['processor']}, {machine['memory_gb']:g} GB, {machine['system']}.",
        f"- Load average {load['before'][0]:g} before and {load['after'][0]:g} after; other work used "
        f"{load['busy_share_of_other_work_before']:.0%} of the processors just before, and all work together "
        f"{load['busy_share']:.0%} during the run.",
        "",
    ]
    return "\n".join(lines)


def _row(figure: dict[str, Any]) -> str:
    unit = f" {figure['unit']}" if figure["unit"] else ""
    peer = f"{figure['peer']:,g}{unit} ({figure['peer_name']})" if figure["peer"] is not None else ""
    ratio = f"{figure['ratio']:.3g}" if figure["ratio"] is not None else ""
    return f"| {figure['title']} | {figure['ours']:,g}{unit} | {peer} | {ratio} |"
