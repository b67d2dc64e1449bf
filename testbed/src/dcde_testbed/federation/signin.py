"""One institution's sign-in page: a SAML identity provider with a password and an optional one-time code.

The proxy's signed request arrives by redirect and is verified; what matters of it goes into a ticket inside the
form. The answer to the form is a signed SAML response which the browser posts to the address that the *metadata*
name. There is no session: every request asks for the password, so a forced sign-in is the usual one and a passive
one is refused.
"""

from __future__ import annotations

import base64
import hmac
import logging
import secrets
import threading
from collections.abc import Iterable
from typing import Any

from saml2 import BINDING_HTTP_POST, BINDING_HTTP_REDIRECT  # type: ignore[import-not-found,unused-ignore]
from saml2.config import IdPConfig  # type: ignore[import-not-found,unused-ignore]
from saml2.saml import NAMEID_FORMAT_TRANSIENT, NameID  # type: ignore[import-not-found,unused-ignore]
from saml2.samlp import (  # type: ignore[import-not-found,unused-ignore]
    STATUS_AUTHN_FAILED,
    STATUS_NO_AUTHN_CONTEXT,
    STATUS_NO_PASSIVE,
)
from saml2.server import Server  # type: ignore[import-not-found,unused-ignore]

from dcde_testbed.federation import saml, web
from dcde_testbed.federation.people import SAMPLE_CODE, SAMPLE_PASSWORD, Account, Institution
from dcde_testbed.federation.settings import Settings
from dcde_testbed.federation.ticket import TicketError, Tickets
from dcde_testbed.federation.web import Environ, Markup, StartResponse

logger = logging.getLogger(__name__)

FORM_SECONDS = 600
BROWSER_COOKIE = "__Host-browser"
START_AGAIN = "Start again at the hub."


class SignIn:
    """The WSGI application of one institution, at `/sso`."""

    def __init__(self, settings: Settings, institution: Institution):
        self._settings = settings
        self._institution = institution
        self._entity_id = settings.entity_id(institution)
        self._server = Server(config=IdPConfig().load(saml.institution(settings, institution)))
        self._signing = threading.Lock()  # pysaml2 does not say that its server object may be shared by threads
        self._tickets = Tickets(FORM_SECONDS)

    def __call__(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        if environ["PATH_INFO"] != "/sso":
            return web.refuse(
                start_response, "404 Not Found", "Not found", f"There is no such page here. {START_AGAIN}"
            )
        if environ["REQUEST_METHOD"] == "POST":
            return self._answer(environ, start_response)
        if environ["REQUEST_METHOD"] == "GET":
            return self._ask(environ, start_response)
        return web.refuse(start_response, "405 Method Not Allowed", "Not possible", START_AGAIN)

    def _ask(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        request = self._request(web.query(environ))
        if request is None:
            return web.refuse(
                start_response,
                "400 Bad Request",
                "Not a sign-in request",
                f"This page signs people in for the sample proxy only, at its signed request. {START_AGAIN}",
            )
        if request["passive"]:
            return self._send_refusal(
                request, STATUS_NO_PASSIVE, "This institution always asks the person", start_response
            )
        browser = web.cookie(environ, BROWSER_COOKIE) or secrets.token_urlsafe(24)
        extra = [("Set-Cookie", f"{BROWSER_COOKIE}={browser}; Path=/; Secure; HttpOnly; SameSite=Lax")]
        return self._show_form(request, browser, start_response, "200 OK", extra=extra)

    def _request(self, asked: dict[str, str]) -> dict[str, Any] | None:
        """Verify a request that came by redirect and return what its answer needs; None if it is not acceptable."""
        try:
            with self._signing:
                message = self._server.parse_authn_request(
                    asked["SAMLRequest"],
                    BINDING_HTTP_REDIRECT,
                    relay_state=asked.get("RelayState"),
                    sigalg=asked["SigAlg"],
                    signature=asked["Signature"],
                ).message
                arguments = self._server.response_args(message, [BINDING_HTTP_POST])
        except Exception as error:  # pysaml2 raises anything from KeyError to zlib.error for what a stranger sends
            logger.warning("%s: refused a sign-in request: %s", self._institution.key, type(error).__name__)
            return None
        context = message.requested_authn_context
        return {
            "in_response_to": arguments["in_response_to"],
            "destination": arguments["destination"],
            "sp_entity_id": arguments["sp_entity_id"],
            "relay_state": asked.get("RelayState", ""),
            "wanted": [wanted.text for wanted in context.authn_context_class_ref] if context else [],
            "passive": message.is_passive in ("true", "1"),
        }

    def _answer(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        typed = web.form(environ)
        browser = web.cookie(environ, BROWSER_COOKIE)
        try:
            if not web.comes_from(environ, self._settings.url(self._institution.key)):
                raise TicketError("posted by another site")
            request = self._tickets.open(typed.get("ticket", ""), browser)
        except TicketError as error:
            logger.warning("%s: refused a form: %s", self._institution.key, error)
            return web.refuse(
                start_response, "400 Bad Request", "This form is no longer valid", f"It may be too old. {START_AGAIN}"
            )
        wants_mfa = request["wanted"] == [saml.MFA]
        if typed.get("action") == "cancel":
            status = STATUS_NO_AUTHN_CONTEXT if wants_mfa else STATUS_AUTHN_FAILED
            return self._send_refusal(request, status, "The person did not sign in", start_response)
        account = self._institution.account(typed.get("user", ""))
        known = hmac.compare_digest(typed.get("password", "").encode(), SAMPLE_PASSWORD.encode())
        if account is None or not known:
            logger.info("%s: wrong name or password", self._institution.key)
            return self._again(request, browser, typed, "The user name or the password is not right.", start_response)
        code = typed.get("code", "").replace(" ", "")
        if code and not hmac.compare_digest(code.encode(), SAMPLE_CODE.encode()):
            return self._again(request, browser, typed, "The one-time code is not right.", start_response)
        if wants_mfa and not code:
            return self._again(
                request, browser, typed, "The one-time code is missing; the service asks for it.", start_response
            )
        return self._send_person(request, account, with_code=bool(code), start_response=start_response)

    def _again(
        self, request: dict[str, Any], browser: str, typed: dict[str, str], message: str, start_response: StartResponse
    ) -> Iterable[bytes]:
        return self._show_form(
            request, browser, start_response, "403 Forbidden", message=message, user=typed.get("user", "")
        )

    def _show_form(
        self,
        request: dict[str, Any],
        browser: str,
        start_response: StartResponse,
        status: str,
        *,
        message: str = "",
        user: str = "",
        extra: Iterable[tuple[str, str]] = (),
    ) -> Iterable[bytes]:
        document = _form(
            self._institution,
            self._tickets.seal(request, browser),
            wants_mfa=request["wanted"] == [saml.MFA],
            message=message,
            user=user,
        )
        return web.answer(start_response, status, document, [*web.headers(), *extra])

    def _send_person(
        self, request: dict[str, Any], account: Account, *, with_code: bool, start_response: StartResponse
    ) -> Iterable[bytes]:
        reached = [saml.MFA, saml.PASSWORD] if with_code else [saml.PASSWORD]
        stated = next((context for context in reached if context in request["wanted"] or not request["wanted"]), None)
        if stated is None:
            return self._send_refusal(
                request, STATUS_NO_AUTHN_CONTEXT, "This institution cannot sign in that way", start_response
            )
        scope = self._institution.scope
        principal = self._institution.principal_name(account)
        attributes = {
            "eduPersonPrincipalName": [principal],
            "mail": [principal],
            "givenName": [account.given_name],
            "sn": [account.family_name],
            "displayName": [account.name],
            "eduPersonScopedAffiliation": [f"{affiliation}@{scope}" for affiliation in account.affiliations],
            "eduPersonAssurance": ["https://refeds.org/assurance/IAP/medium"],
        }
        with self._signing:
            response = self._server.create_authn_response(
                attributes,
                in_response_to=request["in_response_to"],
                destination=request["destination"],
                sp_entity_id=request["sp_entity_id"],
                name_id=NameID(format=NAMEID_FORMAT_TRANSIENT, text=secrets.token_hex(16)),
                authn={"class_ref": stated, "authn_auth": self._entity_id},
                sign_assertion=True,
                sign_response=True,
            )
        logger.info("%s: %s signed in (%s)", self._institution.key, principal, stated)
        return self._deliver(str(response), request, start_response)

    def _send_refusal(
        self, request: dict[str, Any], status: str, message: str, start_response: StartResponse
    ) -> Iterable[bytes]:
        with self._signing:
            response = self._server.create_error_response(
                request["in_response_to"], request["destination"], (status, message), sign=True
            )
        logger.info("%s: answered %s", self._institution.key, status)
        return self._deliver(str(response), request, start_response)

    def _deliver(self, response: str, request: dict[str, Any], start_response: StartResponse) -> Iterable[bytes]:
        """Send the page that posts a SAML response to the proxy by itself."""
        fields = [web.hidden("SAMLResponse", base64.b64encode(response.encode()).decode())]
        if request["relay_state"]:
            fields.append(web.hidden("RelayState", request["relay_state"]))
        body = Markup(
            f'<form method="post" action="{web.text(request["destination"])}">{web.join(fields)}'
            "<noscript><p>Your browser runs no scripts: please continue by hand.</p></noscript>"
            '<div class="actions"><button class="main">Continue</button></div></form>'
            f"<script>{web.SUBMIT_SCRIPT}</script>"
        )
        reach = (self._settings.url("proxy"), self._settings.url("hub"))
        return web.answer(start_response, "200 OK", web.page("Signing in", body), web.headers(reach, script=True))


def _form(institution: Institution, ticket: str, *, wants_mfa: bool, message: str, user: str) -> Markup:
    """Return the sign-in page."""
    title = f"Sign in: {institution.name}"
    if wants_mfa:
        code_hint = "The service you are going to asks for a second factor: the code is needed."
        cancel = "Cancel: I have no second factor"
    else:
        code_hint = "Only if you want to sign in with a second factor."
        cancel = "Cancel"
    invalid = Markup(' aria-invalid="true"' if message else "")
    logins = ", ".join(account.login for account in institution.accounts)
    body = Markup(
        f"{web.problem(message)}"
        '<form method="post" action="/sso">'
        f"{web.hidden('ticket', ticket)}"
        '<label for="user">User name</label>'
        f'<input id="user" name="user" value="{web.text(user)}" autocomplete="username" autocapitalize="none"'
        f' spellcheck="false" required{invalid}>'
        '<label for="password">Password</label>'
        f'<input id="password" name="password" type="password" autocomplete="current-password" required{invalid}>'
        '<label for="code">One-time code</label>'
        f'<p class="hint" id="code-hint">{web.text(code_hint)}</p>'
        '<input id="code" name="code" inputmode="numeric" autocomplete="one-time-code" aria-describedby="code-hint"'
        f"{' required' if wants_mfa else ''}>"
        '<div class="actions"><button class="main" id="sign-in" name="action" value="sign-in">Sign in</button>'
        f'<button id="cancel" name="action" value="cancel" formnovalidate>{web.text(cancel)}</button></div></form>'
        '<p class="note">This is a sample institution: never type a real password here. '
        f"Sample people: {web.text(logins)}. Password: {web.text(SAMPLE_PASSWORD)}. "
        f"One-time code: {web.text(SAMPLE_CODE)}.</p>"
    )
    return web.page(title, body)
