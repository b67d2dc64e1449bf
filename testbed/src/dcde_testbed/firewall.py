"""Firewall rules as text for `nft -f -`. Every zone has named counters, so that a test can read what really passed.

Answers to established connections come first: without that even a server's own replies are rejected.
"""

from __future__ import annotations

from collections.abc import Iterable

from dcde_testbed.layout import DTN_PORTS, PEOPLE_ADDRESS, PEOPLE_NETWORK, Site

_REJECT = "reject with icmpx type admin-prohibited"


def _table(name: str, counters: Iterable[str], chains: str) -> str:
    declared = "".join(f"  counter {each} {{ }}\n" for each in counters)
    return f"table inet {name} {{\n{declared}{chains}}}\n"


def login_rules(site: Site) -> str:
    """A login host: ssh comes in, nothing of its own goes out to the wide area network, and it is no router."""
    return _table(
        "site",
        ("in_ssh", "in_rejected", "out_rejected", "forward_rejected"),
        f"""
  chain input {{ type filter hook input priority 0; policy drop;
    ct state established,related accept
    iifname {{ "lo", "lan" }} accept
    iifname "wan" tcp dport {site.ssh_port} counter name in_ssh accept
    counter name in_rejected {_REJECT}
  }}
  chain forward {{ type filter hook forward priority 0; policy drop;
    counter name forward_rejected {_REJECT}
  }}
  chain output {{ type filter hook output priority 0; policy drop;
    ct state established,related accept
    oifname {{ "lo", "lan" }} accept
    counter name out_rejected {_REJECT}
  }}
""",
    )


def dtn_rules(site: Site, others: Iterable[Site]) -> str:
    """A data transfer node: data ports from and to the other sites' transfer nodes, and nothing else outside."""
    peers = ", ".join(other.dtn_address for other in others if other.name != site.name)
    return _table(
        "site",
        ("in_dtn_data", "out_dtn_data", "in_rejected", "out_rejected", "forward_rejected"),
        f"""
  chain input {{ type filter hook input priority 0; policy drop;
    ct state established,related accept
    iifname {{ "lo", "lan" }} accept
    iifname "wan" ip saddr {{ {peers} }} tcp dport {DTN_PORTS} counter name in_dtn_data accept
    counter name in_rejected {_REJECT}
  }}
  chain forward {{ type filter hook forward priority 0; policy drop;
    counter name forward_rejected {_REJECT}
  }}
  chain output {{ type filter hook output priority 0; policy drop;
    ct state established,related accept
    oifname {{ "lo", "lan" }} accept
    oifname "wan" ip daddr {{ {peers} }} tcp dport {DTN_PORTS} counter name out_dtn_data accept
    counter name out_rejected {_REJECT}
  }}
""",
    )


def people_rules(sites: Iterable[Site], api_ports: Iterable[int]) -> str:
    """The hub's network: people's servers (interfaces u<uid>) reach API ports and the sites' ssh, not each other."""
    ssh = ", ".join(f"{site.login_address} . {site.ssh_port}" for site in sites)
    ports = ", ".join(str(port) for port in sorted(api_ports))
    person = f'iifname "u*" ip saddr {PEOPLE_NETWORK}'
    api = f"{person} ip daddr {PEOPLE_ADDRESS} tcp dport {{ {ports} }} counter name people_api accept"
    return _table(
        "people",
        ("people_api", "people_ssh", "people_rejected", "in_rejected", "forward_rejected"),
        f"""
  chain input {{ type filter hook input priority 0; policy drop;
    ct state established,related accept
    iifname "lo" accept
    {api if ports else ""}
    iifname "u*" counter name people_rejected {_REJECT}
    counter name in_rejected {_REJECT}
  }}
  chain forward {{ type filter hook forward priority 0; policy drop;
    ct state established,related accept
    {person} oifname "wan" ip daddr . tcp dport {{ {ssh} }} counter name people_ssh accept
    iifname "u*" counter name people_rejected {_REJECT}
    counter name forward_rejected {_REJECT}
  }}
  chain nat {{ type nat hook postrouting priority 100; oifname "wan" masquerade; }}
""",
    )


def wan_rules() -> str:
    """The wide area network's switch: frames from and to the ports in the set `cut` vanish silently."""
    return """table bridge wan {
  set cut { type ifname; }
  counter cut_dropped { }
  chain forward { type filter hook forward priority 0; policy accept;
    iifname @cut counter name cut_dropped drop
    oifname @cut counter name cut_dropped drop
  }
}
"""
