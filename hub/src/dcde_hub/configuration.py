"""What every DCDE hub has in common in its jupyterhub_config.py; a deployment adds its addresses, secrets and spawner.

from dcde_hub.configuration import apply
apply(c, broker_token=..., keeper_token=...)
"""

from __future__ import annotations

from typing import Any

from dcde_hub import pages
from dcde_hub.authenticator import DcdeAuthenticator
from dcde_hub.keeper.hubapi import SCOPES as KEEPER_SCOPES
from dcde_hub.requestlog import log_request

PERSON_SCOPES = {"access:services!service=broker", "access:services!service=keeper"}
"""What a person has beyond JupyterHub's own; only the token of the person's server makes use of it."""

SERVER_SCOPES = ["users:activity!user", "access:servers!server", *sorted(PERSON_SCOPES)]
"""All that the token in a person's server is good for: a subset of what the person has."""

LAB_ARGUMENTS = [
    "--KernelManager.transport=ipc",
    "--LabApp.news_url=None",
    "--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate",
    "--LabApp.extension_manager=readonly",
]
"""Kernels on sockets that only the person can reach, and a Lab that asks the internet nothing."""


def apply(c: Any, *, broker_token: str, keeper_token: str) -> None:
    """Configure what must hold in every DCDE hub.

    Args:
        c: The configuration object of jupyterhub_config.py.
        broker_token: The broker's token at the hub.
        keeper_token: The keeper's token at the hub.
    """
    c.JupyterHub.authenticator_class = DcdeAuthenticator
    c.JupyterHub.template_paths = [str(pages.TEMPLATES)]
    c.JupyterHub.cleanup_servers = False  # people's servers outlive a restart of the hub
    c.JupyterHub.allow_named_servers = False
    c.JupyterHub.logging_config = {"formatters": {"console": {"class": "dcde_models.logs.JsonFormatter"}}}
    c.JupyterHub.tornado_settings = {"log_function": log_request}
    c.JupyterHub.services = [
        {"name": "broker", "api_token": broker_token, "display": False},
        {"name": "keeper", "api_token": keeper_token, "display": False},
    ]
    c.JupyterHub.load_roles = [{"name": "keeper", "services": ["keeper"], "scopes": KEEPER_SCOPES}]
    c.JupyterHub.extra_user_scopes = PERSON_SCOPES
    c.DcdeAuthenticator.auth_refresh_age = 10
    c.Spawner.server_token_scopes = SERVER_SCOPES
    c.Spawner.poll_interval = 5  # asking whether a process lives costs nothing; the keeper waits for the answer
    c.Spawner.default_url = "/lab"
    c.Spawner.args = LAB_ARGUMENTS
