"""What a notebook calls: sites, files, templates and runs, without addresses, UUIDs, absolute paths or account names.

Everything here asks the person's runner; nothing computes or connects by itself. Objects show themselves as tables and
pictures in a notebook and as plain text elsewhere.
"""

from __future__ import annotations

import base64
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from dcde import show, tables
from dcde.client import SyncClient
from dcde.errors import JobCancelled, JobFailed, UnknownName

FINISHED = frozenset({"succeeded", "failed", "cancelled"})
"""The states from which a run does not go on by itself."""


def whoami() -> show.Card:
    """Return who you are: your DCDE id, name, institution, groups, accepted policies and trainings."""
    return show.Card("You", _call("whoami"))


def sites() -> show.Table:
    """Return the sites, with their state, queue and what you may do there."""
    return tables.sites(_call("sites.list"))


def ls(place: str) -> show.Table:
    """Return what lies in a folder at a site, such as `ls("bnl:movies")`; `ls("bnl:")` is your own top folder there.

    Raises:
        UnknownName: There is no such site.
        NotFound: There is no such folder.
        PathRefused: The path leaves your folder.
    """
    site, _, path = place.partition(":")
    return tables.folder(_call("files.list", site=site, path=path))


def copy(source: str, target: str, *, wait: bool = True) -> dict[str, Any]:
    """Copy a file or folder from one site to another, such as `copy("bnl:movies", "ornl:movies")`.

    Args:
        source: What to copy, as `site:path`.
        target: Where to, as `site:path`; a path that ends with `/` is a folder to copy into.
        wait: Whether to return only when it is done.

    Returns:
        The transfer: its id, state, and the bytes and files done and in all.

    Raises:
        MovementError: The copy failed; the message says why and what to do.
    """
    transfer: dict[str, Any] = _call("files.copy", source=source, target=target)
    while wait and transfer["state"] in {"waiting", "moving"}:
        time.sleep(0.5)
        transfer = next(t for t in _call("transfers.list") if t["id"] == transfer["id"])
    if transfer["state"] == "failed":
        raise show.error_of(transfer["error"])
    return transfer


def projects() -> show.Table:
    """Return your projects: the sites that hold a part of each, its files and bytes."""
    return tables.projects(_call("projects.list"))


def templates() -> show.Table:
    """Return the templates that can be launched."""
    return tables.templates(_call("templates.list"))


def template(name: str) -> dict[str, Any]:
    """Return a template: the JSON Schema of its form and its steps."""
    answer: dict[str, Any] = _call("templates.show", name=name)
    return answer


def launch(
    template: str,
    parameters: Mapping[str, Any] | None = None,
    *,
    sites: Mapping[str, str] | None = None,
    project: str | None = None,
    allocation: str | None = None,
) -> Run:
    """Start a run of a template and return it at once.

    Args:
        template: The name of the template, such as `first-look`.
        parameters: What to set differently from the form's defaults.
        sites: Where steps shall run: step -> site, or `auto`; each step has a default.
        project: The project to work in; by default a new one.
        allocation: What the sites' schedulers shall charge.

    Raises:
        InvalidParameter: A value is out of range; the message names the field and what is allowed.
        NotAllowed: You may not do this at a site; the message says what is missing.
    """
    wish = {"project": project, "allocation": allocation}
    given = {name: value for name, value in wish.items() if value is not None}
    answer = _call(
        "runs.launch", template=template, parameters=dict(parameters or {}), sites=dict(sites or {}), **given
    )
    return Run(answer)


def runs() -> show.Table:
    """Return your runs, the newest first."""
    return tables.runs(_call("runs.list"))


def run(id: str) -> Run:
    """Return the run of that id, such as `run("r1")`, whoever of your notebooks, panels or commands started it."""
    return Run(_call("runs.show", run=id))


class Picture:
    """A picture of a result; a notebook shows it as it is."""

    def __init__(self, title: str, png: bytes) -> None:
        self.title = title
        self.png = png

    def __repr__(self) -> str:
        return f"<Picture {self.title!r}, {show.size(len(self.png))}>"

    def _repr_png_(self) -> bytes:
        return self.png


class Run:
    """One execution of a template: its state, its steps and their pictures."""

    def __init__(self, data: dict[str, Any]) -> None:
        self._data = data

    @property
    def id(self) -> str:
        """The id of the run."""
        return str(self._data["id"])

    @property
    def state(self) -> str:
        """The state of the run when last looked at: waiting, running, succeeded, failed or cancelled."""
        return str(self._data["state"])

    @property
    def steps(self) -> Sequence[Mapping[str, Any]]:
        """The steps, when last looked at."""
        return tuple(self._data["steps"])

    def refresh(self) -> Run:
        """Look again, and return the run."""
        self._data = _call("runs.show", run=self.id)
        return self

    def wait(self, timeout: float | None = None, *, on_change: Callable[[Run], None] | None = None) -> Run:
        """Wait until the run has ended, and return it.

        Args:
            timeout: The longest time to wait in seconds; None waits for ever.
            on_change: Called with the run whenever something in it has changed.

        Raises:
            TimeoutError: The run goes on beyond the time; it is not disturbed.
            JobFailed: A step failed; the message says which and why.
            JobCancelled: The run was cancelled.
        """
        end = None if timeout is None else time.monotonic() + timeout
        for _ in self._changes():
            if on_change:
                on_change(self)
            if self.state in FINISHED:
                break
            if end is not None and time.monotonic() > end:
                raise TimeoutError(f"run {self.id} goes on beyond {timeout:g} s; it is not disturbed")
        if self.state == "failed":
            raise JobFailed(self._data["reason"] or "a step failed", where=self.id, remedy="See run.log(step).")
        if self.state == "cancelled":
            raise JobCancelled("the run was cancelled", where=self.id, remedy="run.resume() goes on with it.")
        return self

    def _changes(self) -> Iterator[None]:
        before = None
        while True:
            self.refresh()
            if self._data != before:
                before = self._data
                yield
            else:
                time.sleep(1)

    def picture(self, name: str | None = None) -> Picture:
        """Return a picture of a result; without a name the last one that has appeared.

        Raises:
            UnknownName: There is no picture of that name (yet); the message lists those that there are.
        """
        found = [(s["id"], p["name"]) for s in self.refresh().steps for p in s["pictures"]]
        wanted = [f for f in found if name in (None, f[1])]
        if not wanted:
            there = ", ".join(n for _, n in found) or "none yet"
            raise UnknownName(f"The run has no picture {name or ''}; there are: {there}.", where=self.id)
        step, picture = wanted[-1]
        answer = _call("runs.picture", run=self.id, step=step, name=picture)
        return Picture(answer["title"], base64.b64decode(answer["png_base64"]))

    def log(self, step: str, stream: str = "stdout") -> str:
        """Return what a step has written so far to `stdout` or `stderr`."""
        return str(_call("runs.log", run=self.id, step=step, stream=stream, offset=0)["text"])

    def cancel(self) -> Run:
        """Cancel the run with its jobs, and return it."""
        _call("runs.cancel", run=self.id)
        return self.refresh()

    def resume(self) -> Run:
        """Go on with a failed or cancelled run; what has succeeded is kept."""
        _call("runs.resume", run=self.id)
        return self.refresh()

    def table(self) -> show.Table:
        """Return the steps as a table."""
        return tables.steps(self._data)

    def __repr__(self) -> str:
        return f"Run {self.id}: {self._data['title']}, {self.state}\n{self.table()!r}"

    def _repr_html_(self) -> str:
        heading = f"Run {self.id}: {self._data['title']}, {self.state}"
        return f"<p><b>{show.escape(heading)}</b></p>{self.table()._repr_html_()}"


def _call(op: str, **args: Any) -> Any:
    return SyncClient().call(op, **args)
