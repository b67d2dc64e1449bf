"""One ssh connection to a login host, with pinned host keys and a certificate for this connection alone."""

from __future__ import annotations

import asyncssh
from dcde_models.sites import SiteDescriptor

from dcde.credentials import Login
from dcde.errors import DcdeError, LinkLost, LinkRefused
from dcde.link.state import LinkTimes

# The plain curve first: the post-quantum exchanges, which OpenSSH prefers, take twice the time to connect.
KEY_EXCHANGES = (
    "curve25519-sha256",
    "curve25519-sha256@libssh.org",
    "ecdh-sha2-nistp256",
    "ecdh-sha2-nistp384",
    "mlkem768x25519-sha256",
    "diffie-hellman-group16-sha512",
    "diffie-hellman-group14-sha256",
)
# AES-GCM has hardware help nearly everywhere: half the processor time of ChaCha20 for each byte.
CIPHERS = (
    "aes128-gcm@openssh.com",
    "aes256-gcm@openssh.com",
    "chacha20-poly1305@openssh.com",
    "aes256-ctr",
    "aes128-ctr",
)


async def connect(site: SiteDescriptor, host: str, login: Login, times: LinkTimes) -> asyncssh.SSHClientConnection:
    """Return a connection to one login host.

    Raises:
        LinkRefused: The host's key is not the pinned one, or the site does not accept the certificate.
        LinkLost: The host cannot be reached.
    """
    options = asyncssh.SSHClientConnectionOptions(
        config=[],
        username=login.account,
        client_keys=[(login.key, login.certificate)],
        known_hosts=([asyncssh.import_public_key(key) for key in site.ssh.host_keys], [], []),
        preferred_auth=("publickey",),
        agent_path=None,
        x509_trusted_certs=None,
        gss_host=None,
        kex_algs=KEY_EXCHANGES,
        encryption_algs=CIPHERS,
        compression_algs=("none",),
        connect_timeout=times.connect,
        login_timeout=times.connect,
        keepalive_interval=times.keepalive,
        keepalive_count_max=3,
    )
    try:
        return await asyncssh.connect(host, site.ssh.port, options=options)
    except (asyncssh.Error, OSError, ValueError) as error:
        raise _meaning(site, host, login, error) from error


def _meaning(site: SiteDescriptor, host: str, login: Login, error: Exception) -> DcdeError:
    support = site.contact or f"the support of {site.title}"
    if isinstance(error, asyncssh.HostKeyNotVerifiable):
        return LinkRefused(
            f"{host} shows another host key than the one pinned for it.",
            where=site.name,
            remedy=f"Nothing was sent there. Tell {support}: either its key was changed or this is another machine.",
        )
    if isinstance(error, asyncssh.PermissionDenied):
        return LinkRefused(
            f"{host} does not accept the certificate of {login.principal} for the account {login.account}.",
            where=site.name,
            remedy=f"Ask {support} whether your account is active and maps to {login.principal}.",
        )
    if isinstance(error, asyncssh.KeyExchangeFailed):
        return LinkRefused(
            f"{host} offers no way of encryption that is accepted here: {error.reason}.",
            where=site.name,
            remedy=f"Tell {support}.",
        )
    text = str(error) or "no answer in time"
    return LinkLost(f"{host} cannot be reached: {text}.", where=site.name)
