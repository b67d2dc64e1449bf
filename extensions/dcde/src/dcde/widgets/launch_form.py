"""A template's form, made from its JSON Schema, with a site for each step and a button that launches."""

from __future__ import annotations

from typing import Any

import ipywidgets as w

from dcde import api
from dcde.client import SyncClient
from dcde.errors import DcdeError
from dcde.show import escape
from dcde.widgets.run_view import RunView

LABELS = {"description_width": "14em"}
WIDE = {"width": "34em"}


class LaunchForm(w.VBox):  # type: ignore[misc]
    """The form of a template.

    Args:
        template: The name of the template, such as `first-look`.

    Its `parameters` and `sites` are what the person has entered; `launch()` does what the button does.
    """

    def __init__(self, template: str) -> None:
        shown = SyncClient().call("templates.show", name=template)
        sites = SyncClient().call("sites.list")
        self.template = template
        self.run: api.Run | None = None
        self._fields = {name: field_of(name, schema) for name, schema in in_order(shown["schema"])}
        choices = [("auto", "auto"), *((s["title"], s["name"]) for s in sites)]
        self._sites = {s["id"]: site_of(s, choices) for s in shown["steps"]}
        self._said = w.HTML()
        self._view = w.VBox()
        button = w.Button(description="Launch", button_style="primary", tooltip=f"Launch {shown['title']}")
        button.on_click(lambda _: self.launch())
        super().__init__(
            [
                w.HTML(f"<h3>{escape(shown['title'])}</h3><p>{escape(shown['description'])}</p>"),
                *self._groups(shown["schema"]),
                w.HTML("<b>Sites</b>"),
                *self._sites.values(),
                button,
                self._said,
                self._view,
            ]
        )

    def _groups(self, schema: dict[str, Any]) -> list[w.Widget]:
        groups: dict[str, list[w.Widget]] = {}
        for name, part in in_order(schema):
            groups.setdefault(str(part.get("x-group", "")), []).append(self._fields[name])
        return [
            x for title, fields in groups.items() for x in (w.HTML(f"<b>{escape(title.capitalize())}</b>"), *fields)
        ]

    @property
    def parameters(self) -> dict[str, Any]:
        """What has been entered; fields left empty are not in it, so that their defaults count."""
        return {name: f.value for name, f in self._fields.items() if f.value not in ("", None)}

    @property
    def sites(self) -> dict[str, str]:
        """The site, or `auto`, chosen for each step."""
        return {step: f.value for step, f in self._sites.items()}

    def launch(self) -> api.Run | None:
        """Launch with what has been entered, and show the run below; an error is shown instead, and nothing is lost."""
        self._said.value = "Launching …"
        try:
            self.run = api.launch(self.template, self.parameters, sites=self.sites)
        except DcdeError as error:
            self._said.value = f'<p role="alert"><b>Not launched.</b> {escape(str(error))}</p>'
            return None
        self._said.value = f"<p>Run {escape(self.run.id)} has been launched.</p>"
        self._view.children = [RunView(self.run)]
        return self.run


def in_order(schema: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    """Return the fields of a form in the order in which they are shown."""
    return sorted(schema["properties"].items(), key=lambda item: item[1].get("x-order", 0))


def field_of(name: str, schema: dict[str, Any]) -> w.Widget:
    """Return the widget in which one value of the form is entered."""
    unit = f" ({schema['x-unit']})" if schema.get("x-unit") else ""
    common = {
        "description": schema.get("title", name) + unit,
        "tooltip": schema.get("description", ""),
        "style": LABELS,
        "layout": WIDE,
    }
    default = schema.get("default")
    if choices := schema.get("enum"):
        return w.Dropdown(options=choices, value=default if default in choices else choices[0], **common)
    kind = schema.get("type", "string")
    if kind == "boolean":
        return w.Checkbox(value=bool(default), **common)
    if kind in ("number", "integer"):
        plain, bounded = (w.FloatText, w.BoundedFloatText) if kind == "number" else (w.IntText, w.BoundedIntText)
        if "minimum" in schema and "maximum" in schema and default is not None:
            return bounded(value=default, min=schema["minimum"], max=schema["maximum"], **common)
        if default is not None:
            return plain(value=default, **common)
    return w.Text(value="" if default is None else str(default), **common)


def site_of(step: dict[str, Any], choices: list[tuple[str, str]]) -> w.Dropdown:
    """Return the widget in which the site of a step is chosen."""
    names = [value for _, value in choices]
    value = step["default_site"] if step["default_site"] in names else "auto"
    return w.Dropdown(description=step["title"], options=choices, value=value, style=LABELS, layout=WIDE)
