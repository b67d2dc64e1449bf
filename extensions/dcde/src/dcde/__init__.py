"""DCDE: compute and data at several laboratories, as one.

    import dcde
    run = dcde.launch("first-look")
    run.wait()
    run.picture("classes")

Importing this package is light: Parsl, globus-sdk and asyncssh load when first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dcde.api import copy, launch, ls, projects, run, runs, sites, template, templates, whoami
    from dcde.functions.apps import app, map

__version__ = "0.1.0"

_FUNCTIONS = ("app", "map")

__all__ = [
    "app",
    "copy",
    "launch",
    "ls",
    "map",
    "projects",
    "run",
    "runs",
    "sites",
    "template",
    "templates",
    "whoami",
]


def __getattr__(name: str) -> Any:
    if name in __all__:
        return getattr(import_module("dcde.functions.apps" if name in _FUNCTIONS else "dcde.api"), name)
    raise AttributeError(f"module 'dcde' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
