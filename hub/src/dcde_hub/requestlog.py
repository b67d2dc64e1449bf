"""The hub's access log: JupyterHub's own, with the request id, and without the services' regular questions."""

from __future__ import annotations

from typing import Any

from dcde_models.logs import request_id, valid_request_id
from jupyterhub import orm
from jupyterhub.log import log_request as jupyterhub_log_request


def log_request(handler: Any) -> None:
    """Note a request that has been answered; for `JupyterHub.tornado_settings["log_function"]`.

    What the hub's own services ask every few seconds is left out while it succeeds: it would hide everything else.
    """
    try:
        asks = handler.current_user
    except (AttributeError, RuntimeError):  # static files, and requests that failed before the user was known
        asks = None
    if isinstance(asks, orm.Service) and handler.get_status() == 200:
        return
    given = handler.request.headers.get("X-Request-ID")
    before = request_id.set(valid_request_id(given) if given else "")
    try:
        jupyterhub_log_request(handler)
    finally:
        request_id.reset(before)
