"""Where every part of the federation is: names, addresses, files. Standard library only.

Public addresses are `https://<name>.localhost:<port>`, where `port` is the front door's; behind the door each
service has a loopback port of its own. One `Settings` value says all of it, so that metadata, redirects and
processes cannot disagree.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from dcde_testbed.federation.people import INSTITUTIONS, Institution

CLIENT_ID = "cilogon:/client_id/dcde-hub"
FORMAT = 1  # of what `publish` makes; a change makes every state directory publish anew
LOOPBACK_PORTS = {"proxy": 8010, "pnnl": 8011, "bnl": 8012, "ornl": 8013, "disco": 8014}


@dataclass(frozen=True)
class Settings:
    """The federation of one world.

    `port` is the front door's, `loopback` the services' own ports by name, `folder` the directory that only the
    federation's account can read, `registry` the registry file, which is read at each login.
    """

    port: int
    loopback: dict[str, int]
    folder: Path
    registry: Path

    def host(self, name: str) -> str:
        """Return the public host name of a service, with the port, as a browser sends it in `Host`."""
        return f"{name}.localhost:{self.port}"

    def url(self, name: str, path: str = "") -> str:
        """Return a public address of a service."""
        return f"https://{self.host(name)}{path}"

    def entity_id(self, institution: Institution) -> str:
        """Return the SAML entity id of an institution."""
        return self.url(institution.key, "/idp")

    @property
    def proxy_entity_id(self) -> str:
        """The SAML entity id of the proxy, which is a service provider to the institutions."""
        return self.url("proxy", "/saml/metadata")

    @property
    def proxy_assertion_url(self) -> str:
        """Where institutions send their answers."""
        return self.url("proxy", "/saml/acs/post")

    @property
    def proxy_discovery_url(self) -> str:
        """Where the discovery page sends the choice, and the only place it ever sends anything."""
        return self.url("proxy", "/saml/disco")

    @property
    def callback_url(self) -> str:
        """The one registered redirect URI: the hub's."""
        return self.url("hub", "/hub/oauth_callback")

    @property
    def institutions(self) -> tuple[Institution, ...]:
        """The institutions of this federation."""
        return INSTITUTIONS

    def key_file(self, name: str) -> Path:
        """Return the private key of `proxy`, `oidc`, `operator` or an institution."""
        return self.folder / "keys" / f"{name}.key"

    def certificate_file(self, name: str) -> Path:
        """Return the self-signed certificate that goes with `key_file`."""
        return self.folder / "keys" / f"{name}.crt"

    @property
    def metadata_file(self) -> Path:
        """The federation's signed metadata: all institutions and the proxy."""
        return self.folder / "metadata.xml"

    @property
    def clients_file(self) -> Path:
        """The proxy's registered clients: the one hub, with its secret and its return address."""
        return self.folder / "clients.json"

    @property
    def state_key_file(self) -> Path:
        """The key that encrypts the proxy's state cookie."""
        return self.folder / "state_key"

    @property
    def settings_file(self) -> Path:
        """Where `publish` writes these settings for the serving processes; written last, so it also says "complete"."""
        return self.folder / "settings.json"

    def to_json(self) -> str:
        """Return the settings as JSON text that `from_json` reads."""
        document = asdict(self) | {"format": FORMAT, "folder": str(self.folder), "registry": str(self.registry)}
        return json.dumps(document, indent=2, sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> Settings:
        """Read what `to_json` wrote; raises ValueError, KeyError or TypeError on anything else."""
        document = json.loads(text)
        return cls(
            port=int(document["port"]),
            loopback={str(name): int(port) for name, port in document["loopback"].items()},
            folder=Path(document["folder"]),
            registry=Path(document["registry"]),
        )
