"""The SAML configuration of both sides, from which metadata are made and processes run.

Everything is signed with SHA-256: the proxy's requests, the institutions' responses and assertions, and the
federation's metadata, whose signature both sides check when they start.
"""

from __future__ import annotations

from typing import Any

from saml2 import BINDING_HTTP_POST, BINDING_HTTP_REDIRECT  # type: ignore[import-not-found,unused-ignore]
from saml2.xmldsig import DIGEST_SHA256, SIG_RSA_SHA256  # type: ignore[import-not-found,unused-ignore]

from dcde_testbed.federation.people import Institution
from dcde_testbed.federation.prepare import XMLSEC
from dcde_testbed.federation.settings import Settings

PASSWORD = "urn:oasis:names:tc:SAML:2.0:ac:classes:PasswordProtectedTransport"  # noqa: S105  (a class of sign-in)
MFA = "https://refeds.org/profile/mfa"
DISCOVERY_PROTOCOL = "urn:oasis:names:tc:SAML:profiles:SSO:idp-discovery-protocol"
SIRTFI = "https://refeds.org/sirtfi"
URI_NAMES = "urn:oasis:names:tc:SAML:2.0:attrname-format:uri"


def _entity(settings: Settings, name: str, entity_id: str, *, with_metadata: bool) -> dict[str, Any]:
    document: dict[str, Any] = {
        "entityid": entity_id,
        "xmlsec_binary": str(XMLSEC),
        "key_file": str(settings.key_file(name)),
        "cert_file": str(settings.certificate_file(name)),
        "signing_algorithm": SIG_RSA_SHA256,
        "digest_algorithm": DIGEST_SHA256,
    }
    if with_metadata:
        source = (str(settings.metadata_file), str(settings.certificate_file("operator")))
        document["metadata"] = [{"class": "dcde_testbed.federation.metadata.SignedMetadata", "metadata": [source]}]
    return document


def institution(settings: Settings, who: Institution, *, with_metadata: bool = True) -> dict[str, Any]:
    """Return the identity provider's configuration; without metadata it serves to make them."""
    return _entity(settings, who.key, settings.entity_id(who), with_metadata=with_metadata) | {
        "assurance_certification": [SIRTFI],
        "service": {
            "idp": {
                "name": who.name,
                "ui_info": {"display_name": {"text": who.name, "lang": "en"}},
                "scope": [who.scope],
                "endpoints": {"single_sign_on_service": [(settings.url(who.key, "/sso"), BINDING_HTTP_REDIRECT)]},
                "want_authn_requests_signed": True,
                "sign_response": True,
                "sign_assertion": True,
                "policy": {
                    "default": {
                        "lifetime": {"minutes": 5},
                        "attribute_restrictions": None,
                        "name_form": URI_NAMES,
                    }
                },
            }
        },
    }


def proxy(settings: Settings, *, with_metadata: bool = True) -> dict[str, Any]:
    """Return the service provider's configuration: the proxy as the institutions see it."""
    return _entity(settings, "proxy", settings.proxy_entity_id, with_metadata=with_metadata) | {
        "allow_unknown_attributes": False,
        "service": {
            "sp": {
                "name": "DCDE sample proxy",
                "authn_requests_signed": True,
                "want_response_signed": True,
                "want_assertions_signed": True,
                "allow_unsolicited": False,
                "endpoints": {
                    "assertion_consumer_service": [(settings.proxy_assertion_url, BINDING_HTTP_POST)],
                    "discovery_response": [(settings.proxy_discovery_url, DISCOVERY_PROTOCOL)],
                },
            }
        },
    }
