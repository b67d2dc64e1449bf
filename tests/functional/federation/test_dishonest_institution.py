"""What the proxy believes of an institution: its own people, with its own signature, and nothing else."""

from __future__ import annotations

import asyncio
import base64
import json
import re
import subprocess
import zlib
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest
from dcde_testbed.federation import Federation
from functional.federation.browser import Browser, Page


def forge(federation: Federation, asked: dict[str, object]) -> str:
    done = subprocess.run(
        [federation.runtime.python, Path(__file__).with_name("forge.py")],
        input=json.dumps(asked),
        env=federation.processes()[0].environment,
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    return done.stdout


async def answer_with(federation: Federation, browser: Browser, **forged: object) -> Page:
    """Begin a login at Brookhaven and answer it with a forged response in place of the sign-in page's."""
    page = await browser.to_sign_in("Brookhaven")
    query = parse_qs(urlsplit(page.url).query)
    request = zlib.decompress(base64.b64decode(query["SAMLRequest"][0]), -15).decode()
    asked = {
        "settings": federation.settings.to_json(),
        "issuer": "bnl",
        "key": "bnl",
        "in_response_to": re.findall(r'\bID="([^"]+)"', request)[0],
        "sign": True,
    } | forged
    response = await asyncio.to_thread(forge, federation, asked)
    answer = {"SAMLResponse": response, "RelayState": query["RelayState"][0]}
    return await browser.open(federation.settings.proxy_assertion_url, data=answer)


async def test_an_honest_answer_is_believed(federation: Federation, browser: Browser) -> None:
    page = await answer_with(federation, browser, principal="pnovak@bnl.example")
    assert "dcde1000003" in page.text


@pytest.mark.parametrize(
    ("forged", "said"),
    [
        ({"principal": "drivers@pnnl.example"}, "a person of another institution"),
        ({"principal": "drivers@pnnl.example", "issuer": "pnnl"}, "did not sign you in"),
        ({"principal": "pnovak@bnl.example", "sign": False}, "did not sign you in"),
        ({"principal": "pnovak@bnl.example", "in_response_to": "id-other"}, "did not sign you in"),
    ],
    ids=["person of another scope", "key of another institution", "no signature", "answer to nothing"],
)
async def test_a_dishonest_answer_is_refused(
    federation: Federation, browser: Browser, forged: dict[str, object], said: str
) -> None:
    page = await answer_with(federation, browser, **forged)
    assert page.callback is not None
    assert page.callback["error"] == "access_denied"
    assert said in page.callback["error_description"]
