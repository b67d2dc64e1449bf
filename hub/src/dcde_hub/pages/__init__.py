"""The hub's pages: templates over JupyterHub's own, and one small style sheet that both themes share."""

from pathlib import Path

TEMPLATES = Path(__file__).parent / "templates"
"""The folder for `JupyterHub.template_paths`."""
