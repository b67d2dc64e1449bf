"""Asking the broker: what is sent, what its refusals become, and that the token shows nowhere."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import asyncssh
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from dcde.credentials import Credentials
from dcde.errors import BrokerUnreachable, CredentialsError, NotAllowed
from dcde_models.logs import request_id

TOKEN = "a-token-that-must-not-show"


class Broker:
    """A broker that answers what it is told to."""

    def __init__(self) -> None:
        self.ca = asyncssh.generate_private_key("ssh-ed25519")
        self.requests: list[web.Request] = []
        self.bodies: list[Any] = []
        self.refusal: tuple[int, Any] | None = None

    async def handle(self, request: web.Request) -> web.Response:
        self.requests.append(request)
        if self.refusal:
            status, body = self.refusal
            return (
                web.json_response(body, status=status) if body is not None else web.Response(status=status, text="<p>")
            )
        if request.path.endswith("/certificate"):
            body = await request.json()
            self.bodies.append(body)
            public = asyncssh.import_public_key(body["public_key"])
            certificate = self.ca.generate_user_certificate(public, "id", principals=["dcde1000001@here"])
            return web.json_response(
                {
                    "certificate": certificate.export_certificate().decode(),
                    "account": "u1",
                    "principal": "dcde1000001@here",
                    "valid_before": 1e10,
                }
            )
        if request.path.endswith("/sites"):
            return web.json_response({"sites": [], "capabilities": [], "accounts": {"here": "u1"}, "person": PERSON})
        return web.json_response({"dcde_id": "dcde1000001"})


PERSON = {"dcde_id": "dcde1000001", "name": "David"}


@pytest.fixture
async def broker() -> AsyncIterator[tuple[Broker, Credentials]]:
    broker = Broker()
    app = web.Application()
    app.router.add_route("*", "/services/broker/{what}", broker.handle)
    async with TestServer(app) as server:
        credentials = Credentials(str(server.make_url("/services/broker")), TOKEN)
        yield broker, credentials
        await credentials.close()


async def test_a_certificate_is_for_a_fresh_key_each_time(broker) -> None:
    server, credentials = broker
    request_id.set("q0123456789ab")
    first, second = await credentials.certificate("here"), await credentials.certificate("here")
    assert (first.account, first.principal) == ("u1", "dcde1000001@here")
    assert first.key.public_data != second.key.public_data
    assert [body["site"] for body in server.bodies] == ["here", "here"]
    assert "PRIVATE" not in str(server.bodies)
    request = server.requests[0]
    assert request.headers["Authorization"] == f"token {TOKEN}"
    assert request.headers["X-Request-ID"] == "q0123456789ab"
    assert TOKEN not in str(request.url) + repr(credentials) + repr(first)


async def test_who_and_where(broker) -> None:
    _, credentials = broker
    assert (await credentials.me())["dcde_id"] == "dcde1000001"
    sites = await credentials.sites()
    assert sites.accounts == {"here": "u1"}
    assert sites.person.name == "David"


async def test_refusals_keep_their_words(broker) -> None:
    server, credentials = broker
    told = {"code": "NotAllowed", "message": "No.", "where": "here", "remedy": "Accept it.", "retry": False}
    server.refusal = (403, {"error": told})
    with pytest.raises(NotAllowed) as caught:
        await credentials.certificate("here")
    assert caught.value.to_json() == told
    server.refusal = (403, {"error": {**told, "code": "SomethingOfTheHub"}})
    with pytest.raises(NotAllowed):
        await credentials.certificate("here")
    server.refusal = (401, {"error": told})
    with pytest.raises(CredentialsError, match="token"):
        await credentials.me()
    server.refusal = (404, None)
    with pytest.raises(CredentialsError, match="404"):
        await credentials.me()


@pytest.mark.parametrize("body", [None, {"error": {"message": "The signer is away."}}])
async def test_trouble_of_the_broker_can_be_tried_again(broker, body) -> None:
    server, credentials = broker
    server.refusal = (503, body)
    with pytest.raises(BrokerUnreachable) as caught:
        await credentials.certificate("here")
    assert caught.value.retry


async def test_no_broker_at_all_and_nonsense() -> None:
    credentials = Credentials("http://127.0.0.1:9/services/broker/", TOKEN)
    with pytest.raises(BrokerUnreachable) as caught:
        await credentials.me()
    assert TOKEN not in str(caught.value)
    await credentials.close()


async def test_an_answer_that_makes_no_sense(broker) -> None:
    server, credentials = broker
    server.refusal = (200, {"certificate": "nonsense", "account": "u", "principal": "p", "valid_before": 1})
    with pytest.raises(CredentialsError, match="cannot be read"):
        await credentials.certificate("here")
    server.refusal = (200, [])
    with pytest.raises(CredentialsError):
        await credentials.sites()
