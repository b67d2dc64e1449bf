"""The configuration files of broker and keeper."""

from __future__ import annotations

from pathlib import Path

from dcde_models.documents import Document
from pydantic import Field

from dcde_hub.registry import UidRange


class ServiceSettings(Document):
    """What both services need."""

    address: str = Field(description="The address to listen on.")
    port: int = Field(ge=0, le=65535)
    hub_api_url: str = Field(description="The hub's API, such as http://10.79.0.1:8081/hub/api.")
    token_file: Path = Field(description="A 0600 file with this service's token at the hub.")
    registry: Path = Field(description="The registry file.")
    uid_minimum: int = 50000
    uid_maximum: int = 59999

    @property
    def uid_range(self) -> UidRange:
        """The uids that people may have."""
        return UidRange(self.uid_minimum, self.uid_maximum)


class BrokerSettings(ServiceSettings):
    """The broker's configuration file."""

    sites: Path = Field(description="The folder with one folder for each site, see dcde_hub.broker.sites.")
    signer_socket: Path


class KeeperSettings(ServiceSettings):
    """The keeper's configuration file."""

    database: Path = Field(description="The keeper's SQLite file.")
    interval_seconds: float = Field(5.0, gt=0, description="Seconds between two looks at all servers.")
    idle_seconds: float = Field(7200.0, gt=0, description="Seconds without activity after which a server is stopped.")
    backoff_seconds: float = Field(5.0, gt=0, description="Seconds before a failed start is tried again; doubles.")
    backoff_limit_seconds: float = Field(600.0, gt=0)
