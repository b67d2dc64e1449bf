"""All institutions and the discovery page in one process, told apart by the host name of the request."""

from __future__ import annotations

from collections.abc import Iterable

from dcde_testbed.federation import web
from dcde_testbed.federation.discovery import Discovery
from dcde_testbed.federation.settings import Settings
from dcde_testbed.federation.signin import SignIn
from dcde_testbed.federation.web import Application, Environ, StartResponse


def application(settings: Settings) -> Application:
    """Return the WSGI application; loads the metadata, so it fails at start when their signature is not the
    operator's.
    """
    hosts: dict[str, Application] = {settings.host("disco"): Discovery(settings)}
    for institution in settings.institutions:
        hosts[settings.host(institution.key)] = SignIn(settings, institution)

    def dispatch(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        if environ["PATH_INFO"] == "/health":
            start_response("200 OK", [("Content-Type", "text/plain")])
            return [b"ok\n"]
        chosen = hosts.get(environ.get("HTTP_HOST", "").lower())
        if chosen is None:
            return web.refuse(start_response, "421 Misdirected Request", "Not here", "This service has other names.")
        return chosen(environ, start_response)

    return web.bounded(dispatch)
