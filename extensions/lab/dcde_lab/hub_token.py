"""Keeps the server's hub token out of what kernels and terminals inherit or could read."""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import MutableMapping
from typing import Any

TOKEN_NAMES = ("JUPYTERHUB_API_TOKEN", "JPY_API_TOKEN")
"""Where JupyterHub puts the token; the second is its old name, which the hub still sets."""

_PR_SET_DUMPABLE = 4  # linux/prctl.h


def take_token(serverapp: Any, environment: MutableMapping[str, str] | None = None) -> str:
    """Return the hub token and remove it from the environment of this process, and so from all that it starts.

    JupyterHub's own parts read the token from the environment when they first need it. Those that exist already are
    made to read it now, so that logins and activity reports go on working. Returns an empty text where there is no
    token.
    """
    environment = os.environ if environment is None else environment
    for owner in _owners(serverapp):
        hub_auth = getattr(owner, "hub_auth", None)
        if hub_auth is not None:
            _ = hub_auth.api_token  # a traitlets default: computed once, at the first look
    found = [environment.pop(name, "") for name in TOKEN_NAMES]
    return next((token for token in found if token), "")


def _owners(serverapp: Any) -> list[Any]:
    apps = [app for group in serverapp.extension_manager.extension_apps.values() for app in group]
    return [serverapp, serverapp.identity_provider, *apps]


def hide_process() -> bool:
    """Make `/proc/PID/environ` and the memory of this process unreadable for other processes of the same person.

    What a process was started with stays in `/proc/PID/environ` whatever is removed later. Processes started from
    here are not affected: the flag is reset when they execute their program. Returns whether the kernel agreed.
    """
    if not sys.platform.startswith("linux"):
        return False
    libc = ctypes.CDLL(None, use_errno=True)
    return bool(libc.prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0) == 0)
