"""The `dcde` command: the same as in the panel and in notebooks, from a terminal."""

from dcde.cli.main import main

__all__ = ["main"]
