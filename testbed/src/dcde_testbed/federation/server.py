"""Runs one part of the federation: `python -m dcde_testbed.federation.server institutions|proxy SETTINGS_FILE`.

One gunicorn worker with threads: the proxy keeps its codes and tokens in memory, and so there can be only one.
"""

from __future__ import annotations

# mypy: allow-subclassing-any
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

from gunicorn.app.base import BaseApplication  # type: ignore[import-not-found,import-untyped,unused-ignore]

from dcde_testbed.federation import logs
from dcde_testbed.federation.settings import Settings
from dcde_testbed.federation.web import Application


class Program(BaseApplication):
    """A gunicorn that is configured by arguments and not by files, environment or command line."""

    def __init__(self, load: Callable[[], Application], options: dict[str, Any]):
        self._load = load
        self._options = options
        super().__init__()

    def load_config(self) -> None:
        """Take over the options."""
        for name, value in self._options.items():
            self.cfg.set(name, value)

    def load(self) -> Application:
        """Build the application, in the worker."""
        return self._load()


def _options(addresses: list[str]) -> dict[str, Any]:
    return {
        "bind": addresses,
        "workers": 1,
        "worker_class": "gthread",
        "threads": 8,
        "timeout": 60,
        "graceful_timeout": 3,
        "keepalive": 5,
        "limit_request_line": 8190,  # bytes; a signed request by redirect is about 2 kB
        "logconfig_dict": logs.configuration(),
        "accesslog": None,  # request lines carry codes and SAML messages
        "forwarded_allow_ips": "",  # the door hands requests on as they are: such headers come from strangers
        "control_socket_disable": True,
        "umask": 0o077,
    }


def main(arguments: list[str]) -> None:
    """Serve until a signal ends it; exits 2 on wrong usage and gunicorn's 3 when the application does not load."""
    if len(arguments) != 2 or arguments[0] not in ("institutions", "proxy"):
        print("usage: python -m dcde_testbed.federation.server institutions|proxy SETTINGS_FILE", file=sys.stderr)
        raise SystemExit(2)
    part, settings_file = arguments
    logs.configure()
    warnings.filterwarnings(
        "ignore", module="saml2"
    )  # it imports ciphers that nobody here uses and that are deprecated
    settings = Settings.from_json(Path(settings_file).read_text(encoding="utf-8"))

    def load() -> Application:
        if part == "proxy":
            from dcde_testbed.federation import proxy

            return proxy.application(settings)
        from dcde_testbed.federation import institutions

        return institutions.application(settings)

    names = ["proxy"] if part == "proxy" else [name for name in settings.loopback if name != "proxy"]
    Program(load, _options([f"127.0.0.1:{settings.loopback[name]}" for name in names])).run()


if __name__ == "__main__":
    main(sys.argv[1:])
