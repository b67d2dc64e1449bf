"""SATOSA's OpenID Connect side with CILogon's addresses: `/authorize`, `/oauth2/token`, `/oauth2/userinfo`,
`/oauth2/certs`.
"""

from __future__ import annotations

# mypy: allow-subclassing-any
import logging
import re
from typing import Any

from saml2.response import StatusNoAuthnContext, StatusNoPassive  # type: ignore[import-not-found,unused-ignore]
from satosa.exception import SATOSAAuthenticationError  # type: ignore[import-not-found,unused-ignore]
from satosa.frontends.openid_connect import OpenIDConnectFrontend  # type: ignore[import-not-found,unused-ignore]
from satosa.response import Response  # type: ignore[import-not-found,unused-ignore]

from dcde_testbed.federation import web

logger = logging.getLogger(__name__)

ERROR_ID = re.compile(r"urn:uuid:[0-9a-f-]{36}")


class CILogonFrontend(OpenIDConnectFrontend):
    """The OpenID provider as the hub knows it. Its name must be `oauth2`, which makes most of the addresses."""

    def register_endpoints(self, backend_names: list[str]) -> list[tuple[str, Any]]:
        """Serve CILogon's addresses in place of SATOSA's, and the page that errors lead to."""
        (self._backend,) = backend_names
        endpoints = super().register_endpoints(backend_names)
        announced = self.provider.configuration_information
        announced["authorization_endpoint"] = f"{self.base_url}/authorize"
        announced["jwks_uri"] = f"{self.base_url}/oauth2/certs"
        announced["token_endpoint_auth_methods_supported"] = ["client_secret_post"]
        announced["grant_types_supported"] = ["authorization_code", "refresh_token"]
        replaced = (self.handle_authn_request, self.jwks)
        return [
            *((path, handler) for path, handler in endpoints if handler not in replaced),
            ("^authorize$", self.handle_authn_request),
            ("^oauth2/certs$", self.jwks),
            ("^error$", self.error_page),
            ("^health$", self.health),
        ]

    def handle_authn_request(self, context: Any) -> Any:
        """Begin a login; what cannot be sent back to a registered address ends on a page here."""
        context.target_backend = self._backend  # SATOSA reads it from the address, CILogon's has none
        if not context.request:
            return _refusal("400 Bad Request", "This address begins a sign-in and needs a request of the hub.")
        response = super().handle_authn_request(context)
        if response.status.startswith("400"):
            return _refusal("400 Bad Request", "The request names a client or a return address that is not registered.")
        return response

    def handle_backend_error(self, exception: Any) -> Any:
        """Send the hub `access_denied` with a sentence that a person understands."""
        sentence = _sentence(exception)
        logger.info("a sign-in ended: %s", sentence)
        explained = SATOSAAuthenticationError(exception.state, "")
        explained._message = sentence
        return super().handle_backend_error(explained)

    def error_page(self, context: Any) -> Any:
        """Show where a login ends that has lost its thread: no state, an old page, a failure of the proxy."""
        asked = str((context.request or {}).get("errorid", ""))
        number = f" Error number for the operator: {asked}." if ERROR_ID.fullmatch(asked) else ""
        return _refusal(
            "400 Bad Request",
            f"It may have taken too long, or begun in another window. Start again at the hub.{number}",
        )

    def health(self, context: Any) -> Any:
        """Answer while the proxy serves."""
        return Response("ok\n", content="text/plain")


def _refusal(status: str, message: str) -> Any:
    return Response(
        web.page("The sign-in could not be finished", web.problem(message)), status=status, headers=web.headers()
    )


def _sentence(exception: Any) -> str:
    cause = exception.__cause__
    if isinstance(cause, StatusNoAuthnContext):
        return "Your institution did not confirm the second factor that the service asks for"
    if isinstance(cause, StatusNoPassive):
        return "Your institution must ask you to sign in"
    first = exception.args[0] if exception.args else ""
    if isinstance(first, str) and first:
        return first  # our own micro-services say it well; SATOSA's own messages are dictionaries for its log
    return "Your institution did not sign you in"
