"""How things look: sizes, times, tables; as text in a terminal and as escaped HTML in a notebook."""

from __future__ import annotations

import datetime
import html
import time
from collections.abc import Mapping, Sequence
from typing import Any

from dcde.errors import DcdeError, error_from_json

escape = html.escape


def size(count: float | None) -> str:
    """Return a number of bytes in words: `0 B`, `1.2 kB`, `3.4 MB`; decimal units."""
    if count is None:
        return ""
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if abs(count) < 1000 or unit == "TB":
            break
        count /= 1000
    return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"


def span(seconds: float | None) -> str:
    """Return a length of time in words: `12 s`, `3 min 5 s`, `2 h 10 min`."""
    if seconds is None:
        return ""
    whole = max(0, round(seconds))
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def moment(epoch: float | None) -> str:
    """Return a point in time (seconds since 1970) in local time: `2026-01-15 14:03`."""
    return "" if epoch is None else datetime.datetime.fromtimestamp(epoch).strftime("%Y-%m-%d %H:%M")


def queue(data: Mapping[str, Any] | None) -> str:
    """Return the state of a queue in words."""
    if not data:
        return ""
    nodes = f"{data['nodes_idle']} of {data['nodes_total']} nodes idle"
    return f"{data['running']} running, {data['pending']} waiting, {nodes}"


def elapsed(step: Mapping[str, Any]) -> str:
    """Return for how long a step has been running or ran."""
    if not step.get("started"):
        return ""
    return span((step.get("ended") or time.time()) - step["started"])


def metrics(data: Mapping[str, Any] | None) -> str:
    """Return a step's metrics with their units, such as `picks 1234; resolution 12.3 Å`."""
    return "; ".join(
        f"{m.get('title', name)} {_number(m['value'])} {m.get('unit', '')}".rstrip() for name, m in (data or {}).items()
    )


def _number(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def error_of(data: Mapping[str, Any] | None) -> DcdeError:
    """Return the error that a transfer or step carries."""
    return error_from_json(data or {"message": "It failed without saying why."})


class Table:
    """Rows of named values. Shows itself as aligned text, and as an HTML table in a notebook.

    Columns in which no row has anything are left out.
    """

    def __init__(self, rows: Sequence[Mapping[str, Any]], *, empty: str, note: str = "") -> None:
        filled = {name for row in rows for name, value in row.items() if value not in ("", None)}
        self.rows = [{name: value for name, value in row.items() if name in filled} for row in rows]
        self.empty = empty
        self.note = note

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> Mapping[str, Any]:
        return self.rows[index]

    def __repr__(self) -> str:
        if not self.rows:
            return self.empty
        names = list(self.rows[0])
        cells = [[name.upper() for name in names], *([printable(row[n]) for n in names] for row in self.rows)]
        widths = [max(len(line[k]) for line in cells) for k in range(len(names))]
        lines = ["  ".join(c.ljust(w) for c, w in zip(line, widths, strict=True)).rstrip() for line in cells]
        return "\n".join([*lines, *([self.note] if self.note else [])])

    def _repr_html_(self) -> str:
        if not self.rows:
            return f"<p>{escape(self.empty)}</p>"
        head = "".join(f'<th scope="col" style="text-align:left">{escape(n)}</th>' for n in self.rows[0])
        body = "".join(
            "<tr>" + "".join(f'<td style="text-align:left">{escape(printable(v))}</td>' for v in row.values()) + "</tr>"
            for row in self.rows
        )
        note = f"<p>{escape(self.note)}</p>" if self.note else ""
        return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>{note}"


class Card:
    """Named values of one thing."""

    def __init__(self, title: str, data: Mapping[str, Any]) -> None:
        self.title = title
        self.data = dict(data)

    def __getitem__(self, name: str) -> Any:
        return self.data[name]

    def __repr__(self) -> str:
        width = max(map(len, self.data), default=0)
        return "\n".join(
            f"{name.ljust(width)}  {printable(_words(value))}".rstrip() for name, value in self.data.items()
        )

    def _repr_html_(self) -> str:
        return Table([{self.title: n, "": _words(v)} for n, v in self.data.items()], empty="")._repr_html_()


def _words(value: Any) -> Any:
    if isinstance(value, Mapping):
        return ", ".join(f"{k} ({v})" for k, v in value.items())
    return ", ".join(map(str, value)) if isinstance(value, list | tuple) else value


def printable(value: Any) -> str:
    """Return a value as text without control characters, so that a file's name cannot move a terminal's cursor."""
    text = "" if value is None else str(value)
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text)
