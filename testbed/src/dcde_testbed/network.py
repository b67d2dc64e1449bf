"""The networks of the world: one switch for the wide area, one for each site, and a network namespace for every
machine.

Switches live in namespaces of their own, so that no machine's firewall meets the frames of others. Everything is made
with a few `ip -batch` calls. `nsenter --net=` is used instead of `ip -n`, which mounts a new /sys and may not do so
without root.
"""

from __future__ import annotations

import subprocess
from collections.abc import Iterable, Sequence
from pathlib import Path

from dcde_testbed import firewall
from dcde_testbed.layout import HUB_ADDRESS, PEOPLE_ADDRESS, Site

WAN = "wan"


def namespace(site: str, machine: str) -> str:
    """The name of a machine's network namespace."""
    return f"{site}.{machine}"


def wan_port(site: Site, machine: str) -> str:
    """The port of the wide area switch that a machine is plugged into (interface names have at most 15 letters)."""
    return f"s{site.number}-{machine}"


def inside(name: str, argv: Sequence[str], text: str = "") -> None:
    """Run a program in a network namespace with `text` as its input. Raises RuntimeError with what it said."""
    done = subprocess.run(["nsenter", f"--net=/run/netns/{name}", *argv], input=text, text=True, capture_output=True)
    if done.returncode:
        raise RuntimeError(f"{' '.join(argv)} in network {name} failed: {done.stderr.strip()}")


def build(sites: Sequence[Site], api_ports: Iterable[int]) -> None:
    """Make all networks and load all firewalls. The caller is in the hub's network namespace, as process 1."""
    Path("/proc/sys/net/ipv4/ip_forward").write_text("1")
    lans = {site.name: f"{site.name}-lan" for site in sites}
    machines = [namespace(site.name, machine) for site in sites for machine in site.machines]
    created = [f"netns add {name}" for name in (WAN, *lans.values(), *machines)]
    _batch(None, ["link set lo up", f"addr add {PEOPLE_ADDRESS}/32 dev lo", "netns attach hub 1", *created])
    for name in ("hub", WAN, *lans.values(), *machines):
        # Version 4 only: what the kernel says by itself over version 6 would stir the counters.
        inside(name, ["sysctl", "-e", "-qw", "net.ipv6.conf.default.disable_ipv6=1"])

    wan = ["link set lo up", "link add br0 type bridge", "link set br0 up", *_plug("p-hub", "wan", "hub")]
    for site in sites:
        lan = ["link set lo up", "link add br0 type bridge", "link set br0 up"]
        for machine in site.machines:
            lan += _plug(f"p-{machine}", "lan", namespace(site.name, machine))
            if site.wan_address(machine):
                wan += _plug(wan_port(site, machine), "wan", namespace(site.name, machine))
        _batch(lans[site.name], lan)
    _batch(WAN, wan)

    _batch("hub", [f"addr add {HUB_ADDRESS}/24 dev wan", "link set wan up"])
    for site in sites:
        for machine in site.machines:
            _batch(namespace(site.name, machine), _addresses(site, machine))
    _firewalls(sites, api_ports)


def _plug(port: str, interface: str, into: str) -> list[str]:
    return [f"link add {port} type veth peer name {interface} netns {into}", f"link set {port} master br0 up"]


def _addresses(site: Site, machine: str) -> list[str]:
    lines = ["link set lo up", f"addr add {site.lan_address(machine)}/24 dev lan", "link set lan up"]
    wan = site.wan_address(machine)
    if wan:
        lines += [f"addr add {wan}/24 dev wan", "link set wan up"]
    else:  # a way out exists, so that what does not get out was stopped by the firewall
        lines.append(f"route add default via {site.lan_address('login')}")
    return lines


def _batch(name: str | None, lines: Sequence[str]) -> None:
    text = "".join(f"{line}\n" for line in lines)
    if name is None:
        subprocess.run(["ip", "-batch", "-"], input=text, text=True, check=True)
    else:
        inside(name, ["ip", "-batch", "-"], text)


def _firewalls(sites: Sequence[Site], api_ports: Iterable[int]) -> None:
    inside("hub", ["nft", "-f", "-"], firewall.people_rules(sites, api_ports))
    inside(WAN, ["nft", "-f", "-"], firewall.wan_rules())
    for site in sites:
        login = namespace(site.name, "login")
        inside(login, ["sysctl", "-qw", "net.ipv4.ip_forward=1"])
        inside(login, ["nft", "-f", "-"], firewall.login_rules(site))
        inside(namespace(site.name, "dtn"), ["nft", "-f", "-"], firewall.dtn_rules(site, sites))


def cut(site: Site) -> None:
    """Let all traffic between a site and the wide area vanish without an answer."""
    _set_cut("add", site)


def mend(site: Site) -> None:
    """Undo `cut`."""
    _set_cut("delete", site)


def is_cut(site: Site) -> bool:
    shown = subprocess.run(
        ["nsenter", f"--net=/run/netns/{WAN}", "nft", "list", "set", "bridge", "wan", "cut"],
        capture_output=True,
        text=True,
        check=True,
    )
    return f'"{wan_port(site, "login")}"' in shown.stdout


def _set_cut(verb: str, site: Site) -> None:
    ports = ", ".join(f'"{wan_port(site, machine)}"' for machine in site.machines if site.wan_address(machine))
    inside(WAN, ["nft", "-f", "-"], f"{verb} element bridge wan cut {{ {ports} }}\n")
