"""The discovery page: a person chooses the institution (SAML identity provider discovery protocol).

It sets no cookie and keeps nothing. The institutions are links to the proxy, so there is no redirecting endpoint; a
request whose `return` is not the proxy's own is refused.
"""

from __future__ import annotations

from collections.abc import Iterable
from urllib.parse import urlencode

from dcde_testbed.federation import web
from dcde_testbed.federation.settings import Settings
from dcde_testbed.federation.web import Environ, Markup, StartResponse


class Discovery:
    """The WSGI application at `disco.localhost`: `/` and `/metadata`."""

    def __init__(self, settings: Settings):
        self._settings = settings

    def __call__(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        if environ["REQUEST_METHOD"] not in ("GET", "HEAD"):
            return web.refuse(
                start_response, "405 Method Not Allowed", "Not possible", "This page is only for reading."
            )
        if environ["PATH_INFO"] == "/metadata":
            start_response(
                "200 OK", [("Content-Type", "application/samlmetadata+xml"), ("X-Content-Type-Options", "nosniff")]
            )
            return [self._settings.metadata_file.read_bytes()]
        if environ["PATH_INFO"] != "/":
            return web.refuse(start_response, "404 Not Found", "Not found", "There is no such page here.")
        return self._choose(web.query(environ), start_response)

    def _choose(self, asked: dict[str, str], start_response: StartResponse) -> Iterable[bytes]:
        settings = self._settings
        if (
            asked.get("entityID") != settings.proxy_entity_id
            or asked.get("return") != settings.proxy_discovery_url
            or asked.get("returnIDParam", "entityID") != "entityID"
        ):
            return web.refuse(
                start_response,
                "400 Bad Request",
                "Not a request of the sample proxy",
                "This page chooses institutions for the sample proxy only. Start again at the hub.",
            )
        links = web.join(
            Markup(
                f'<li><a class="choice" href="{web.text(settings.proxy_discovery_url)}?'
                f'{web.text(urlencode({"entityID": settings.entity_id(institution)}))}">'
                f"{web.text(institution.name)}</a></li>"
            )
            for institution in settings.institutions
        )
        body = Markup(
            "<p>Sign in with the account of your own institution.</p>"
            f'<nav aria-label="Institutions"><ul class="choices">{links}</ul></nav>'
            '<p class="note">These institutions are samples for trying DCDE Hub. Your choice is not remembered.</p>'
        )
        return web.answer(start_response, "200 OK", web.page("Choose your institution", body), web.headers([]))
