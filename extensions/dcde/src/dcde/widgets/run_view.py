"""A run as it goes on: a live table of its steps and the pictures of its results as they appear."""

from __future__ import annotations

import threading
from typing import Any

import ipywidgets as w

from dcde import api
from dcde.errors import DcdeError
from dcde.show import escape


class RunView(w.VBox):  # type: ignore[misc]
    """Shows a run and follows it in the background until it ends; it never disturbs the run.

    Args:
        run: The run, or its id.
    """

    def __init__(self, run: api.Run | str) -> None:
        self.run = api.run(run) if isinstance(run, str) else run
        self._table = w.HTML(self.run._repr_html_())
        self._pictures = w.HBox(layout={"flex_flow": "row wrap"})
        self._shown: dict[tuple[str, str], str] = {}
        super().__init__([self._table, self._pictures])
        self._thread = threading.Thread(target=self._follow, name=f"dcde-view-{self.run.id}", daemon=True)
        self._thread.start()

    def _follow(self) -> None:
        try:
            self.run.wait(on_change=self._show)
        except DcdeError as error:
            self._show(self.run)
            self._table.value += f'<p role="alert">{escape(str(error))}</p>'

    def _show(self, run: api.Run) -> None:
        self._table.value = run._repr_html_()
        for step in run.steps:
            for picture in step["pictures"]:
                self._show_picture(step, picture)

    def _show_picture(self, step: Any, picture: dict[str, str]) -> None:
        key, version = (step["id"], picture["name"]), f"{step['state']} {step['fraction']}"
        if self._shown.get(key) == version:
            return
        found = self.run.picture(picture["name"])
        image = w.Image(value=found.png, format="png", layout={"max_width": "24em"})
        caption = w.HTML(f"<figcaption>{escape(found.title)}</figcaption>")
        box = w.VBox([image, caption])
        others = [c for k, c in zip(self._shown, self._pictures.children, strict=False) if k != key]
        self._shown.pop(key, None)
        self._shown[key] = version
        self._pictures.children = [*others, box]

    def wait(self, timeout: float | None = None) -> None:
        """Wait until the view has shown the end of the run.

        Args:
            timeout: The longest time to wait in seconds; None waits for ever.
        """
        self._thread.join(timeout)
