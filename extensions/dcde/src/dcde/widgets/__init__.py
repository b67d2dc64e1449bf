"""Widgets for notebooks: a template's form, and a run as it goes on."""

from dcde.widgets.launch_form import LaunchForm
from dcde.widgets.run_view import RunView

__all__ = ["LaunchForm", "RunView"]
