"""The testbed's federation: three institutions, a discovery page, and a proxy that looks like CILogon.

    browser -> proxy (OpenID Connect, SATOSA) -> discovery -> institution (SAML, pysaml2) -> proxy -> consent -> hub

How it is put together
    `prepare` (module `prepare`, standard library only) runs in the world's first process, which has neither pysaml2 nor
    PyYAML. It makes the directories, the hub's client secret and the sample registry, and then starts the one-shot
    `python -m dcde_testbed.federation.publish` of the federation's own environment *as the federation's account*:
    that one makes the keys and the signed metadata. Nothing secret is on its command line or in its environment; it
    reads one JSON document from standard input.
    Two processes serve: `python -m dcde_testbed.federation.server institutions` (the institutions' sign-in pages and
    the discovery page, told apart by host name) and `... server proxy`. Both speak plain http on loopback addresses and
    believe that a front door speaks TLS for them.

Modules
    people, settings    who exists, and where everything is (standard library)
    prepare, publish    what is made before the processes start
    server, logs, web   how they are run, what they log, and what their pages and requests have in common
    signin, ticket, discovery, institutions    the institutions and the discovery page
    saml                the SAML configuration both sides share
    registry, claims, consent, oidc, proxy     the proxy: registry lookup, CILogon's claims and addresses
"""

from dcde_testbed.federation.prepare import Federation, FederationError, Process, Runtime, prepare

__all__ = ["Federation", "FederationError", "Process", "Runtime", "prepare"]
