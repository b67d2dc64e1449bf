"""SATOSA micro-services: what turns an institution's assertion into CILogon's claims.

`AcrRequest` hands an OpenID Connect `acr_values` on to the institution, which SATOSA does not do by itself.
`RegistryClaims` makes the claims and looks the person up in the registry.
"""

from __future__ import annotations

# mypy: allow-subclassing-any
import hashlib
import logging
import re
from pathlib import Path
from typing import Any

from satosa.context import Context  # type: ignore[import-not-found,unused-ignore]
from satosa.exception import SATOSAAuthenticationError  # type: ignore[import-not-found,unused-ignore]
from satosa.micro_services.base import (  # type: ignore[import-not-found,unused-ignore]
    RequestMicroService,
    ResponseMicroService,
)

from dcde_testbed.federation.registry import RegistryError, find_member

logger = logging.getLogger(__name__)

AUTHENTICATION_CONTEXT = re.compile(r"[A-Za-z0-9][A-Za-z0-9:/._#-]{0,199}")
MOST_CONTEXTS = 5


class AcrRequest(RequestMicroService):
    """Puts the wanted authentication contexts where SATOSA's SAML side looks for them: in the state, for later
    requests.
    """

    def __init__(self, config: dict[str, Any], **names: Any):
        super().__init__(**names)

    def process(self, context: Any, data: Any) -> Any:
        """Keep what looks like the name of a context; anything else is nobody's wish."""
        asked = str((context.request or {}).get("acr_values", "")).split()
        wanted = [name for name in asked if AUTHENTICATION_CONTEXT.fullmatch(name)][:MOST_CONTEXTS]
        if wanted:
            context.state[Context.KEY_TARGET_AUTHN_CONTEXT_CLASS_REF] = wanted
        else:
            context.state.pop(Context.KEY_TARGET_AUTHN_CONTEXT_CLASS_REF, None)
        return super().process(context, data)


class RegistryClaims(ResponseMicroService):
    """Makes CILogon's claims of an institution's attributes and the registry's entry.

    Configuration: `registry` (path), `institutions` (entity id -> name and scope), `subject_prefix` (of the `sub`
    claim). A person who is not enrolled gets no `uid` and no `isMemberOf`: to refuse is the hub's part.
    """

    def __init__(self, config: dict[str, Any], **names: Any):
        super().__init__(**names)
        self._registry = Path(config["registry"])
        self._institutions: dict[str, dict[str, str]] = config["institutions"]
        self._subject_prefix = config["subject_prefix"]

    def process(self, context: Any, data: Any) -> Any:
        """Replace the attributes by the claims; raises SATOSAAuthenticationError with a sentence for the person."""
        issuer = data.auth_info.issuer
        institution = self._institutions.get(issuer)
        principal = _first(data.attributes, "edupersonprincipalname")
        if institution is None or not principal:
            raise SATOSAAuthenticationError(context.state, "The institution did not tell who you are")
        if principal.partition("@")[2] != institution["scope"]:
            # An institution speaks for its own people only, or any of them could name everybody's.
            logger.error("%s asserted %s, which is not of its scope", issuer, principal)
            raise SATOSAAuthenticationError(context.state, "The institution named a person of another institution")
        try:
            member = find_member(self._registry, principal)
        except RegistryError as error:
            logger.error("registry: %s", error)
            raise SATOSAAuthenticationError(
                context.state, "The registry cannot be read; tell its administrator"
            ) from error
        # CILogon's claims are plain strings, several affiliations joined; SATOSA itself makes strings of these four.
        claims: dict[str, Any] = {
            name: data.attributes.get(name, []) for name in ("mail", "givenname", "surname", "displayname")
        }
        claims |= {
            "edupersonprincipalname": principal,
            "affiliation": ";".join(data.attributes.get("affiliation", [])),
            "idp": issuer,
            "idp_name": institution["name"],
            "acr": data.auth_info.auth_class_ref or "",
        }
        if member is not None:
            claims |= {"uid": member.dcde_id, "ismemberof": list(member.groups)}
        data.attributes = claims
        data.subject_id = self._subject(issuer, principal)
        logger.info("%s is %s", principal, member.dcde_id if member else "not enrolled")
        return super().process(context, data)

    def _subject(self, issuer: str, principal: str) -> str:
        """Return the `sub` claim: as CILogon's it names a person *at one institution* and says nothing else."""
        number = int.from_bytes(hashlib.sha256(f"{issuer} {principal}".encode()).digest()[:6], "big")
        return f"{self._subject_prefix}{number}"


def _first(attributes: dict[str, Any], name: str) -> str:
    values = attributes.get(name) or [""]
    return str(values[0])
