"""The proxy: SATOSA between the hub (OpenID Connect, shaped like CILogon) and the institutions (SAML).

SATOSA's configuration is built here as a value from the settings; no configuration file is written.
"""

from __future__ import annotations

from typing import Any

from satosa.proxy_server import make_app  # type: ignore[import-not-found,unused-ignore]
from satosa.satosa_config import SATOSAConfig  # type: ignore[import-not-found,unused-ignore]

from dcde_testbed.federation import logs, saml, web
from dcde_testbed.federation.settings import CLIENT_ID, Settings
from dcde_testbed.federation.web import Application

MINUTE = 60
HERE = "dcde_testbed.federation"

# SATOSA's own name -> the SAML attribute it comes from, the claim it becomes.
ATTRIBUTES = {
    "edupersonprincipalname": {"saml": ["eduPersonPrincipalName"], "openid": ["eppn"]},
    "mail": {"saml": ["mail"], "openid": ["email"]},
    "givenname": {"saml": ["givenName"], "openid": ["given_name"]},
    "surname": {"saml": ["sn", "surname"], "openid": ["family_name"]},
    "displayname": {"saml": ["displayName"], "openid": ["name"]},
    "affiliation": {"saml": ["eduPersonScopedAffiliation"], "openid": ["affiliation"]},
    "idp": {"openid": ["idp"]},
    "idp_name": {"openid": ["idp_name"]},
    "acr": {"openid": ["acr"]},
    "uid": {"openid": ["uid"]},
    "ismemberof": {"openid": ["isMemberOf"]},
}
CILOGON_CLAIMS = ["idp", "idp_name", "eppn", "affiliation", "acr", "uid", "isMemberOf"]


def application(settings: Settings) -> Application:
    """Return the WSGI application; raises what SATOSA and pysaml2 raise when keys or metadata are wrong."""
    proxy: Application = make_app(SATOSAConfig(configuration(settings)))
    return web.bounded(proxy)


def configuration(settings: Settings) -> dict[str, Any]:
    """Return SATOSA's configuration."""
    return {
        "BASE": settings.url("proxy"),
        "ERROR_URL": settings.url("proxy", "/error"),
        "INTERNAL_ATTRIBUTES": {"attributes": ATTRIBUTES},
        "COOKIE_STATE_NAME": "SATOSA_STATE",
        "COOKIE_SECURE": True,
        "COOKIE_HTTPONLY": True,
        "COOKIE_SAMESITE": "None",  # institutions' answers are posted from their own sites
        "STATE_ENCRYPTION_KEY": settings.state_key_file.read_text(encoding="utf-8"),
        "BACKEND_MODULES": [
            {
                "module": "satosa.backends.saml2.SAMLBackend",
                "name": "saml",
                "config": {"disco_srv": settings.url("disco", "/"), "sp_config": saml.proxy(settings)},
            }
        ],
        "FRONTEND_MODULES": [{"module": f"{HERE}.oidc.CILogonFrontend", "name": "oauth2", "config": _openid(settings)}],
        "MICRO_SERVICES": [
            {"module": f"{HERE}.claims.AcrRequest", "name": "acr", "config": {}},
            {"module": f"{HERE}.claims.RegistryClaims", "name": "registry", "config": _registry(settings)},
            {
                "module": f"{HERE}.consent.ConsentPage",
                "name": "consent",
                "config": {"hub": settings.url("hub"), "proxy": settings.url("proxy")},
            },
        ],
        "LOGGING": logs.configuration(),
    }


def _registry(settings: Settings) -> dict[str, Any]:
    return {
        "registry": str(settings.registry),
        "institutions": {
            settings.entity_id(institution): {"name": institution.name, "scope": institution.scope}
            for institution in settings.institutions
        },
        "subject_prefix": settings.url("proxy", "/serverT/users/"),
    }


def _openid(settings: Settings) -> dict[str, Any]:
    """Return the OpenID provider's part; the file of its clients holds the one hub."""
    return {
        "signing_key_path": str(settings.key_file("oidc")),
        "signing_key_id": "sample",
        "client_db_path": str(settings.clients_file),
        "sub_mirror_public": True,
        "provider": {
            "client_registration_supported": False,
            "response_types_supported": ["code"],
            "subject_types_supported": ["public"],
            "scopes_supported": ["openid", "email", "profile", "org.cilogon.userinfo", "offline_access"],
            "extra_scopes": {"org.cilogon.userinfo": CILOGON_CLAIMS},
            "extra_id_token_claims": {CLIENT_ID: ["acr", "idp", "eppn"]},
            "authorization_code_lifetime": 2 * MINUTE,
            "access_token_lifetime": 15 * MINUTE,
            "refresh_token_lifetime": 24 * 60 * MINUTE,
            "id_token_lifetime": 15 * MINUTE,
        },
    }
