"""`python -m dcde_demo.proxy`: becomes configurable-http-proxy, with the token from this account's own file.

The proxy takes its token from its environment only; this way that is in the environment of one process and no other.
"""

from __future__ import annotations

import os

from dcde_hub.secretfile import read_secret

from dcde_demo.places import ETC, HUB_ADDRESS, PROXY_API_PORT, PROXY_PORT

NODE = "/opt/dcde/node/bin/node"
PROGRAM = "/opt/dcde/node/lib/node_modules/configurable-http-proxy/bin/configurable-http-proxy"


def command() -> list[str]:
    """Return the command line. The front door speaks TLS: without the header the hub's cookies would not be Secure."""
    return [
        *(NODE, PROGRAM, "--ip", "127.0.0.1", "--port", str(PROXY_PORT)),
        *("--api-ip", "127.0.0.1", "--api-port", str(PROXY_API_PORT)),
        *("--error-target", f"http://{HUB_ADDRESS}:8081/hub/error"),
        *("--no-x-forward", "--custom-header", "X-Forwarded-Proto: https"),
    ]


def main() -> None:
    """Replace this process by the proxy."""
    environment = {"PATH": os.environ["PATH"], "CONFIGPROXY_AUTH_TOKEN": read_secret(ETC / "secrets" / "proxy")}
    os.execve(NODE, command(), environment)  # noqa: S606


if __name__ == "__main__":
    main()
