"""The broker's answers. Registry and capability documents are asked each time, so that a revocation acts at once."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

from aiohttp import web
from dcde_models import Decision, Need, Person, decide
from dcde_models.capabilities import ACTIONS
from dcde_models.logs import request_id

from dcde_hub.broker.sites import Site, SiteFolder
from dcde_hub.errors import Forbidden, Invalid
from dcde_hub.registry import Registry
from dcde_hub.signer.client import ask_signer
from dcde_hub.web import BODY, Caller, Callers, json_body, one_answer

log = logging.getLogger("dcde.broker")


class Broker:
    """The broker's handlers.

    Args:
        callers: Says who is asking.
        registry: The registry.
        sites: The sites.
        signer: The signer's socket.
    """

    def __init__(self, callers: Callers, registry: Registry, sites: SiteFolder, signer: Path) -> None:
        self._callers = callers
        self._registry = registry
        self._sites = sites
        self._signer = signer

    def application(self, prefix: str = "/services/broker") -> web.Application:
        """Return the web application with everything below `prefix`."""
        application = web.Application(middlewares=[one_answer], client_max_size=BODY)
        application.router.add_get(f"{prefix}/health", self._health)
        application.router.add_get(f"{prefix}/me", self._me)
        application.router.add_get(f"{prefix}/sites", self._list_sites)
        application.router.add_post(f"{prefix}/certificate", self._certificate)
        return application

    async def _health(self, _: web.Request) -> web.Response:
        return web.json_response({"ok": True})

    async def _me(self, request: web.Request) -> web.Response:
        caller, person = await self._person(request)
        known: dict[str, Any] = json.loads(person.model_dump_json(exclude={"status"}))
        return web.json_response({**known, "institution": caller.institution})

    async def _list_sites(self, request: web.Request) -> web.Response:
        _, person = await self._person(request)
        sites = self._sites.all()
        accounts = {s.descriptor.name: s.accounts[person.dcde_id] for s in sites if person.dcde_id in s.accounts}
        return web.json_response(
            {
                "sites": [s.descriptor.model_dump(mode="json") for s in sites],
                "capabilities": [s.capabilities.model_dump(mode="json") for s in sites],
                "accounts": accounts,
                "person": person.model_dump(mode="json"),
            }
        )

    async def _certificate(self, request: web.Request) -> web.Response:
        _, person = await self._person(request)
        body = await json_body(request)
        site_name, public_key = body.get("site"), body.get("public_key")
        if not isinstance(site_name, str) or not isinstance(public_key, str):
            raise Invalid("The body must be {“site”, “public_key”}.")
        site = self._sites.get(site_name)
        account = site.accounts.get(person.dcde_id)
        decision = may_enter(person, site)
        if not decision.allowed or account is None:
            log.warning("no certificate: %s", decision.reason, extra={"person": person.dcde_id, "site": site_name})
            raise Forbidden(decision.reason, where=site_name, remedy=decision.remedy)
        signed = await ask_signer(
            self._signer, request=request_id.get(), site=site_name, dcde_id=person.dcde_id, public_key=public_key
        )
        log.info("certificate %d handed out", signed["serial"], extra={"person": person.dcde_id, "site": site_name})
        return web.json_response(
            {
                "certificate": signed["certificate"],
                "account": account,
                "principal": signed["principal"],
                "valid_before": signed["valid_before"],
            }
        )

    async def _person(self, request: web.Request) -> tuple[Caller, Person]:
        caller = await self._callers.caller(request)
        request["person"] = caller.dcde_id
        member = await self._registry.by_id(caller.dcde_id)
        if member is None or not member.active:
            status = member.status if member else "not known to the registry any more"
            raise Forbidden(f"Your membership is {status}.", remedy="Ask the operators of this hub.")
        return caller, member.person(caller.acr)


def may_enter(person: Person, site: Site) -> Decision:
    """Decide whether a person may log in at a site: whoever may do anything there may.

    The refusal speaks of running jobs, which is what nearly everybody comes for.
    """
    account = site.accounts.get(person.dcde_id)
    decisions = [decide(person, site.capabilities, Need(action), account=account) for action in ACTIONS]
    return next((decision for decision in decisions if decision.allowed), decisions[0])
