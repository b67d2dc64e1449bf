"""The fixed facts of the sample world: its networks, its three sites and who has which account there.

Addresses are fixed because every world has networks of its own; two worlds on one machine do not see each other.
Only the options of a site (`--site-option SITE.NAME=VALUE`) change between runs.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from typing import Any

HUB_ADDRESS = "10.77.0.1"
"""The hub's address on the wide area network."""
PEOPLE_ADDRESS = "10.79.0.1"
"""The hub's address as people's servers see it."""
PEOPLE_NETWORK = "10.79.1.0/24"
"""Addresses of people's servers."""
DTN_PORTS = "50000-50009"
"""TCP ports that data transfer nodes open to each other."""
DEFAULT_PORT = 8765

INSTITUTIONS = {
    "pnnl": "Pacific Northwest National Laboratory (sample)",
    "bnl": "Brookhaven National Laboratory (sample)",
    "ornl": "Oak Ridge National Laboratory (sample)",
}


class LayoutError(ValueError):
    """An option names a site or a setting that does not exist, or gives it an impossible value."""


@dataclass(frozen=True)
class Account:
    """One person's unix account at one site."""

    dcde_id: str
    name: str
    uid: int


@dataclass(frozen=True)
class Site:
    """One laboratory: a login host, compute nodes and a data transfer node behind a firewall."""

    name: str
    number: int
    title: str
    domain: str
    ssh_port: int
    storage_root: str
    software: str
    accounts: tuple[Account, ...]
    nodes: int = 2
    cores_per_node: int = 2
    memory_mb_per_node: int = 4000
    storage_mb: int = 0
    """Size of the storage as a tmpfs that forgets at `down`; 0 means a lasting folder without a limit of its own."""

    @property
    def login_host(self) -> str:
        return f"login.{self.domain}"

    @property
    def dtn_host(self) -> str:
        return f"dtn.{self.domain}"

    @property
    def login_address(self) -> str:
        return f"10.77.0.1{self.number}"

    @property
    def dtn_address(self) -> str:
        return f"10.77.0.2{self.number}"

    @property
    def compute_nodes(self) -> tuple[str, ...]:
        return tuple(f"n{k}" for k in range(1, self.nodes + 1))

    @property
    def machines(self) -> tuple[str, ...]:
        """Every machine of the site, the login host first."""
        return ("login", *self.compute_nodes, "dtn")

    def lan_address(self, machine: str) -> str:
        """The machine's address on the site's own network."""
        host = {"login": "1", "dtn": "21"}.get(machine) or f"1{machine.removeprefix('n')}"
        return f"10.78.{self.number}.{host}"

    def wan_address(self, machine: str) -> str | None:
        """The machine's address on the wide area network, or None: compute nodes have none."""
        return {"login": self.login_address, "dtn": self.dtn_address}.get(machine)

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Site:
        return cls(**{**data, "accounts": tuple(Account(**account) for account in data["accounts"])})


SITES: tuple[Site, ...] = (
    Site(
        name="bnl-sdcc",
        number=1,
        title="BNL SDCC",
        domain="sdcc.bnl.example",
        ssh_port=22,
        storage_root="/hpcgpfs01/work/dcde",
        software="modules",
        accounts=(Account("dcde1000001", "u12345", 31001), Account("dcde1000003", "u12399", 31003)),
    ),
    Site(
        name="ornl-cades",
        number=2,
        title="ORNL CADES",
        domain="cades.ornl.example",
        ssh_port=22,
        storage_root="/lustre/or-scratch/dcde",
        software="setup-script",
        accounts=(Account("dcde1000001", "d7c", 41001), Account("dcde1000002", "mt9", 41002)),
    ),
    Site(
        name="anl-lcrc",
        number=3,
        title="ANL LCRC",
        domain="lcrc.anl.example",
        ssh_port=2222,
        storage_root="/lcrc/project/dcde",
        software="path",
        accounts=(Account("dcde1000001", "drivers", 21001), Account("dcde1000003", "pnovak", 21003)),
    ),
)

_OPTIONS = {
    "nodes": (1, 9),
    "cores_per_node": (1, 64),
    "memory_mb_per_node": (100, 1_000_000),
    "storage_mb": (0, 1_000_000),
}


def sites_with(options: Iterable[str]) -> tuple[Site, ...]:
    """The three sites with `SITE.NAME=VALUE` options applied.

    Raises LayoutError when an option has another shape, or names what does not exist.
    """
    sites = {site.name: site for site in SITES}
    for option in options:
        where, equals, value = option.partition("=")
        site, _, name = where.partition(".")
        if not equals or site not in sites or name not in _OPTIONS:
            known = ", ".join(_OPTIONS)
            raise LayoutError(
                f"site option {option!r}: give SITE.NAME=VALUE; sites: {', '.join(sites)}; names: {known}"
            )
        low, high = _OPTIONS[name]
        if not value.isascii() or not value.isdigit() or not low <= int(value) <= high:
            raise LayoutError(f"site option {option!r}: the value must be a whole number from {low} to {high}")
        changed: dict[str, Any] = {name: int(value)}
        sites[site] = replace(sites[site], **changed)
    return tuple(sites.values())
