"""What a person's runner may use: it asks the broker, with the hub token of the person's own server.

The keys of certificates are made here, live in memory only, and serve for one connection.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import aiohttp
from dcde_models.capabilities import CapabilityDocument, Person
from dcde_models.logs import new_request_id, request_id
from dcde_models.sites import SiteDescriptor
from pydantic import ValidationError

from dcde.errors import BrokerUnreachable, CredentialsError, DcdeError, NotAllowed, error_from_json

if TYPE_CHECKING:
    from asyncssh import SSHCertificate, SSHKey

TIME_LIMIT_S = 20.0
MAX_ANSWER = 16 * 1024 * 1024


@dataclass(frozen=True)
class Login:
    """What one ssh connection needs.

    Attributes:
        account: The person's account at the site.
        principal: The name in the certificate.
        valid_before: When the certificate ends, in seconds of the epoch.
        key: The private key, in memory only.
        certificate: The certificate of its public half.
    """

    account: str
    principal: str
    valid_before: float
    key: SSHKey
    certificate: SSHCertificate


@dataclass(frozen=True)
class SitesAnswer:
    """What the broker says of the sites and of the person at them."""

    descriptors: Mapping[str, SiteDescriptor]
    capabilities: Mapping[str, CapabilityDocument]
    accounts: Mapping[str, str]
    person: Person


class LoginSource(Protocol):
    """Whatever gives a link the means to log in."""

    async def certificate(self, site: str) -> Login:
        """Return the means for one new connection to `site`."""


class Credentials:
    """The broker, as the person.

    Args:
        broker_url: The address of the broker, ending in a slash.
        token: The hub token. It is sent in a header and stands nowhere else.
    """

    def __init__(self, broker_url: str, token: str) -> None:
        self._url = broker_url.rstrip("/") + "/"
        self._headers = {"Authorization": f"token {token}"}
        self._session: aiohttp.ClientSession | None = None

    def __repr__(self) -> str:
        return f"<Credentials at {self._url}>"

    async def close(self) -> None:
        """Let go of the connection to the broker."""
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def me(self) -> dict[str, Any]:
        """Return who the person is: dcde_id, name, email, institution, groups, policies, trainings, acr."""
        return await self._ask("GET", "me")

    async def sites(self) -> SitesAnswer:
        """Return the sites, their capability documents, and the person's accounts there."""
        answer = await self._ask("GET", "sites")
        try:
            descriptors = [SiteDescriptor.model_validate(item) for item in answer["sites"]]
            documents = [CapabilityDocument.model_validate(item) for item in answer["capabilities"]]
            return SitesAnswer(
                {site.name: site for site in descriptors},
                {document.site: document for document in documents},
                {str(site): str(account) for site, account in answer["accounts"].items()},
                Person.model_validate(answer["person"]),
            )
        except (KeyError, TypeError, AttributeError, ValidationError) as error:
            raise CredentialsError(f"The broker's answer cannot be read: {error}", where="broker") from error

    async def certificate(self, site: str) -> Login:
        """Return a fresh key and the broker's certificate for it. Raises NotAllowed with what is missing."""
        import asyncssh

        key = await asyncio.to_thread(asyncssh.generate_private_key, "ssh-ed25519")
        public = key.export_public_key("openssh").decode("ascii").strip()
        answer = await self._ask("POST", "certificate", {"site": site, "public_key": public})
        try:
            certificate = asyncssh.import_certificate(str(answer["certificate"]))
            return Login(
                str(answer["account"]), str(answer["principal"]), float(answer["valid_before"]), key, certificate
            )
        except (KeyError, TypeError, ValueError, asyncssh.KeyImportError) as error:
            raise CredentialsError(f"The broker's certificate cannot be read: {error}", where=site) from error

    async def _ask(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> dict[str, Any]:
        if self._session is None:
            self._session = aiohttp.ClientSession(
                headers=self._headers, timeout=aiohttp.ClientTimeout(total=TIME_LIMIT_S), trust_env=False
            )
        headers = {"X-Request-ID": request_id.get() or new_request_id()}
        try:
            async with self._session.request(
                method, self._url + path, json=body, headers=headers, allow_redirects=False
            ) as response:
                status = response.status
                data = await response.content.read(MAX_ANSWER)
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            text = str(error) or "no answer in time"
            raise BrokerUnreachable(f"The hub's broker does not answer: {text}.", where="broker") from error
        try:
            answer = json.loads(data)
        except ValueError:
            answer = None
        if status < 300 and isinstance(answer, dict):
            return answer
        raise _refusal(status, answer)


def _refusal(status: int, answer: object) -> DcdeError:
    """Return the error that an answer of the broker stands for, with its own words where it has some."""
    told = answer.get("error") if isinstance(answer, dict) else None
    if status >= 500:
        text = str(told.get("message", "")) if isinstance(told, dict) else ""
        return BrokerUnreachable(text or f"The hub's broker has a problem (status {status}).", where="broker")
    if status == 401:
        return CredentialsError(
            "The hub no longer accepts this server's token.", where="broker", remedy="Stop and start your server."
        )
    if isinstance(told, dict):
        error = error_from_json(told)
        if type(error) is not DcdeError:
            return error
        kind = NotAllowed if status == 403 else CredentialsError
        return kind(error.message, where=error.where, remedy=error.remedy, retry=error.retry)
    return CredentialsError(f"The hub's broker refused (status {status}).", where="broker")
