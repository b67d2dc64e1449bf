"""The hub's configuration in the testbed's world; jupyterhub_config.py calls `configure`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from dcde_hub.configuration import apply
from dcde_hub.secretfile import read_secret
from dcde_hub.spawner import RoomSpawner

from dcde_demo import places
from dcde_demo.prepare import read_world
from dcde_demo.sites import AUP

PLACES = {
    "enrollment": "https://registry.dcde.example/enroll",
    "profile": "https://registry.dcde.example/me",
    "help": "mailto:support@dcde.example",
}
"""Where refusal pages send people. Names under .example: in the testbed nobody answers there."""

MEMORY_MB = 1500
SERVERS_STARTING = 4
SERVERS = 40


def configure(c: Any) -> None:
    """Configure the hub for the world that /var/lib/dcde/world.json describes."""
    world = read_world(places.WORLD)
    secrets = places.STATE / "secrets"
    apply(c, broker_token=read_secret(secrets / "broker"), keeper_token=read_secret(secrets / "keeper"))
    c.CryptKeeper.keys = [read_secret(secrets / "crypt_key")]
    _network(c, read_secret(secrets / "proxy"))
    _login(c, world)
    _servers(c, world)


def _network(c: Any, proxy_token: str) -> None:
    hub = c.JupyterHub
    hub.bind_url = f"http://127.0.0.1:{places.PROXY_PORT}"
    hub.hub_bind_url = f"http://{places.HUB_ADDRESS}:8081"
    hub.db_url = f"sqlite:///{places.STATE / 'hub.sqlite'}"
    hub.cookie_secret_file = str(places.STATE / "cookie_secret")
    hub.cookie_max_age_days = 1
    c.ConfigurableHTTPProxy.should_start = False  # the proxy outlives a restart of the hub, too
    c.ConfigurableHTTPProxy.api_url = f"http://127.0.0.1:{places.PROXY_API_PORT}"
    c.ConfigurableHTTPProxy.auth_token = proxy_token


def _login(c: Any, world: dict[str, Any]) -> None:
    federation = world["federation"]
    login = c.DcdeAuthenticator
    login.authorize_url = federation["authorize_url"]
    login.token_url = federation["token_url"]
    login.userdata_url = federation["userinfo_url"]
    login.client_id = federation["client_id"]
    login.client_secret = read_secret(Path(federation["client_secret_file"]))
    login.oauth_callback_url = federation["callback_url"]
    login.http_request_kwargs = {"ca_certs": federation["ca_file"]}
    login.login_service = "your institution"
    login.idps = {
        institution["entity_id"]: {"username_derivation": {"username_claim": "uid"}}
        for institution in federation["institutions"]
    }
    login.registry_file = world["registry"]
    login.required_policies = [AUP]
    login.admin_groups = {"dcde-admins"}
    login.places = PLACES
    names = [institution["name"] for institution in federation["institutions"]]
    c.JupyterHub.template_vars = {"dcde_institutions": names, "dcde_places": PLACES}


def _servers(c: Any, world: dict[str, Any]) -> None:
    c.JupyterHub.spawner_class = RoomSpawner
    c.JupyterHub.concurrent_spawn_limit = SERVERS_STARTING
    c.JupyterHub.active_server_limit = SERVERS
    spawner = c.RoomSpawner
    spawner.world = world["world"]
    spawner.memory_mb = MEMORY_MB
    spawner.memory_group = world["memory_group"]
    spawner.log_dir = str(places.LOGS / "servers")
    spawner.start_timeout = spawner.http_timeout = 120
    spawner.environment = {
        "DCDE_BROKER_URL": f"http://{places.HUB_ADDRESS}:{places.BROKER_PORT}/services/broker/",
        "DCDE_KEEPER_URL": f"http://{places.HUB_ADDRESS}:{places.KEEPER_PORT}/services/keeper/",
    }
