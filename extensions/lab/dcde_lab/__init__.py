"""The side panel of DCDE Hub in JupyterLab, with the server extension that connects it to the person's runner."""

from __future__ import annotations

from typing import Any

__version__ = "0.1.0"


def _jupyter_labextension_paths() -> list[dict[str, str]]:
    """Tell JupyterLab where the built panel lies in this package."""
    return [{"src": "labextension", "dest": "@dcde/lab"}]


def _jupyter_server_extension_points() -> list[dict[str, Any]]:
    """Tell Jupyter Server which application to load."""
    from .extension import DcdeExtension

    return [{"module": "dcde_lab", "app": DcdeExtension}]
