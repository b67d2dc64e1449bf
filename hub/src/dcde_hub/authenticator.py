"""Login through CILogon (or a proxy that speaks like it), with the registry's word on who is a member.

The institution says who somebody is; the registry says which DCDE id that is, whether the membership is in force, and
in which groups. Both must agree, at each login and at each refresh.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from dcde_models.documents import DcdeId
from oauthenticator.cilogon import CILogonOAuthenticator
from oauthenticator.oauth2 import OAuthCallbackHandler
from pydantic import TypeAdapter, ValidationError
from tornado import web
from traitlets import Dict, Instance, Integer, List, Unicode, default

from dcde_hub import refusals
from dcde_hub.errors import EntryRefused, RegistryUnavailable
from dcde_hub.refusals import Places, Visitor
from dcde_hub.registry import FileRegistry, Member, Policy, Registry, UidRange

_DCDE_ID: TypeAdapter[str] = TypeAdapter(DcdeId)


class CallbackHandler(OAuthCallbackHandler):  # type: ignore[misc]  # JupyterHub is not typed
    """Where the browser comes back to from the login; a login that failed there gets a page that says what to do."""

    def check_error(self) -> None:
        """Raise RefusedLogin when the proxy reports that the login failed."""
        error = self.get_argument("error", "")
        if error:
            raise refusals.login_failed(self.get_argument("error_description", error), self.authenticator.door_places)


class DcdeAuthenticator(CILogonOAuthenticator):  # type: ignore[misc]  # JupyterHub is not typed
    """The user name is the DCDE id; groups and status come from the registry, never from the login's claims."""

    callback_handler = CallbackHandler

    registry_file = Unicode(help="The registry file, see dcde_hub.registry.file.").tag(config=True)
    uid_minimum = Integer(50000, help="The smallest uid a person may have.").tag(config=True)
    uid_maximum = Integer(59999, help="The largest uid a person may have.").tag(config=True)
    required_policies = List(
        Unicode(), help="Policies (registry identifiers) that everybody must have accepted to log in at all."
    ).tag(config=True)
    places = Dict(
        value_trait=Unicode(),
        key_trait=Unicode(),
        help="Where refusal pages send people: `enrollment`, `profile` and `help`, each a URL.",
    ).tag(config=True)

    registry = Instance(Registry)  # type: ignore[type-abstract]

    @default("registry")
    def _registry_default(self) -> Registry:
        return FileRegistry(Path(self.registry_file), UidRange(self.uid_minimum, self.uid_maximum))

    # What the base class leaves to configuration and what must hold in every DCDE hub.

    @default("manage_groups")
    def _manage_groups_default(self) -> bool:
        return True

    @default("enable_auth_state")
    def _enable_auth_state_default(self) -> bool:
        return True

    @default("any_allow_config")
    def _any_allow_config_default(self) -> bool:
        return True  # the registry allows; nothing here is meant to be configured

    @default("auth_refresh_strict")
    def _auth_refresh_strict_default(self) -> bool:
        return True  # else a revoked person's server keeps the use of its token

    @default("refresh_pre_spawn")
    def _refresh_pre_spawn_default(self) -> bool:
        return True

    def user_info_to_username(self, user_info: dict[str, Any]) -> str:
        """Return the DCDE id that the proxy claims for this person; `update_auth_model` checks it.

        Raises:
            RefusedLogin: No claim, or one of another shape.
        """
        self._check_institution(user_info)
        visitor = Visitor.from_claims(user_info)
        if not visitor.identity:
            raise self._refused(refusals.no_identity(visitor, self.door_places))
        claim = user_info.get("uid")
        if not claim:
            raise self._refused(refusals.not_enrolled(visitor, self.door_places))
        try:
            return _DCDE_ID.validate_python(claim)
        except ValidationError:
            reason = "The login carried no DCDE id of the right form."
            raise self._refused(refusals.entry_unusable(visitor, reason, self.door_places)) from None

    async def update_auth_model(self, auth_model: dict[str, Any]) -> dict[str, Any]:
        """Complete the login with the registry's groups, or refuse it; called by `authenticate`."""
        claims = auth_model["auth_state"][self.user_auth_state_key]
        visitor = Visitor.from_claims(claims)
        member = await self._member_at_the_door(visitor, auth_model["name"])
        acr = claims.get("acr")
        auth_model["auth_state"] |= {"groups": member.groups, "acr": acr if isinstance(acr, str) else ""}
        auth_model["user_info"] = {
            "name": member.name,
            "display_name": member.name,
            "institution": visitor.institution,
            "acr": auth_model["auth_state"]["acr"],
            "logged_in": int(time.time()),
        }
        return auth_model

    async def get_user_groups(self, auth_state: dict[str, Any]) -> set[str]:
        """Return the registry's groups, as `update_auth_model` found them."""
        return set(auth_state["groups"])

    async def check_allowed(self, username: str, auth_model: dict[str, Any] | None) -> bool:
        """Allow whom the registry let through `update_auth_model`; nobody comes here otherwise."""
        return auth_model is not None

    async def refresh_user(self, user: Any, handler: Any = None, **kwargs: Any) -> bool | dict[str, Any]:
        """Ask the registry again; a person who is no longer in force must log in again, and is refused there.

        The upstream is not asked: its claims are as old as the login, and its tokens live for minutes only.
        """
        try:
            member = await self.current_member(user.name)
        except (web.HTTPError, RegistryUnavailable) as error:
            self.log.warning("Access of %s ends: %s", user.name, error)
            return False
        groups = sorted(set(member.groups))
        admin = bool(self.admin_groups & set(groups))
        if groups == sorted(group.name for group in user.groups) and admin == user.admin:
            return True
        return {"name": user.name, "groups": groups, "admin": admin}

    async def current_member(self, dcde_id: str) -> Member:
        """Return the registry's entry of a person who may use this hub now.

        Raises:
            RefusedLogin: The person may not (any more).
            RegistryUnavailable: The registry gives no answer.
        """
        visitor = Visitor(identity=dcde_id, institution="")
        try:
            member = await self.registry.by_id(dcde_id)
        except EntryRefused as error:
            raise refusals.entry_unusable(visitor, error.message, self.door_places) from error
        if member is None:
            raise refusals.not_enrolled(visitor, self.door_places)
        return await self._in_force(member, visitor)

    async def _member_at_the_door(self, visitor: Visitor, claimed_id: str) -> Member:
        try:
            member = await self.registry.by_identity(visitor.identity)
            if member is None:
                raise self._refused(refusals.not_enrolled(visitor, self.door_places))
            if member.dcde_id != claimed_id:
                reason = "The login and the registry name different DCDE ids for this identity."
                raise self._refused(refusals.entry_unusable(visitor, reason, self.door_places))
            return await self._in_force(member, visitor)
        except EntryRefused as error:
            raise self._refused(refusals.entry_unusable(visitor, error.message, self.door_places)) from error
        except RegistryUnavailable as error:
            raise self._refused(refusals.registry_unavailable(visitor, self.door_places)) from error

    async def _in_force(self, member: Member, visitor: Visitor) -> Member:
        if not member.active:
            raise self._refused(refusals.not_active(visitor, member.status, self.door_places))
        missing = [policy for policy in self.required_policies if policy not in member.policies]
        if missing:
            known = await self.registry.policies()
            listed = [known.get(policy) or Policy(title=policy, url=policy) for policy in missing]
            raise self._refused(refusals.policies_missing(visitor, listed, self.door_places))
        return member

    def _check_institution(self, user_info: dict[str, Any]) -> None:
        institution = user_info.get("idp")
        if not isinstance(institution, str) or institution not in self.idps:
            self.log.error("login with an institution that is not configured: %r", institution)
            raise web.HTTPError(403, "Logins of this institution are not accepted here.")

    @property
    def door_places(self) -> Places:
        """Where refusal pages send people."""
        return Places(**self.places)

    def _refused(self, refused: refusals.RefusedLogin) -> refusals.RefusedLogin:
        """Note the refusal in the log, and return it."""
        self.log.warning("refused %s: %s", refused.refusal.identity or "a login", refused.refusal.code)
        return refused
