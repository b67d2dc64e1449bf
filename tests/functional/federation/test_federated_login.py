"""Whole logins through the real institutions, discovery page, proxy and front door, as a browser and a hub make them."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from urllib.parse import urlencode

import jwt
import yaml
from dcde_testbed.federation import Federation
from dcde_testbed.federation.people import INSTITUTIONS
from functional.federation.browser import Browser, Page

MFA = "https://refeds.org/profile/mfa"
PASSWORD_CONTEXT = "urn:oasis:names:tc:SAML:2.0:ac:classes:PasswordProtectedTransport"


async def test_a_member_arrives_with_cilogon_claims(browser: Browser, federation: Federation) -> None:
    sign_in = await browser.to_sign_in("Pacific")
    consent = await browser.sign_in(sign_in, "drivers")
    assert "Share who you are" in consent.text
    assert "dcde1000001" in consent.text
    assert "with a password" in consent.text
    tokens, claims = await browser.claims(consent)

    assert claims.pop("sub").startswith(federation.settings.url("proxy", "/serverT/users/"))
    assert claims == {
        "idp": federation.settings.url("pnnl", "/idp"),
        "idp_name": "Pacific Northwest National Laboratory (sample)",
        "eppn": "drivers@pnnl.example",
        "email": "drivers@pnnl.example",
        "given_name": "David",
        "family_name": "Rivers",
        "name": "David Rivers",
        "affiliation": "member@pnnl.example;employee@pnnl.example",
        "acr": PASSWORD_CONTEXT,
        "uid": "dcde1000001",
        "isMemberOf": ["dcde-users", "cryoem"],
    }

    certs = json.loads((await browser.open(federation.settings.url("proxy", "/oauth2/certs"))).text)
    key = jwt.PyJWK(certs["keys"][0] | {"alg": "RS256"})
    identity = jwt.decode(
        tokens["id_token"],
        key,
        algorithms=["RS256"],
        audience=browser.facts["client_id"],
        issuer=federation.settings.url("proxy"),
    )
    assert (identity["acr"], identity["eppn"]) == (PASSWORD_CONTEXT, "drivers@pnnl.example")


async def test_everybody_of_the_sample_can_sign_in(federation: Federation, authority, browser: Browser) -> None:
    found = {}
    for institution in INSTITUTIONS:
        for account in institution.accounts:
            async with Browser(federation, authority) as other:
                page = await other.to_sign_in(institution.name)
                _, claims = await other.claims(await other.sign_in(page, institution.principal_name(account)))
                found[claims["eppn"]] = claims.get("uid")
    assert found == {
        "drivers@pnnl.example": "dcde1000001",
        "visitor@pnnl.example": None,
        "pnovak@bnl.example": "dcde1000003",
        "admin@bnl.example": "dcde1000009",
        "mtanaka@ornl.example": "dcde1000002",
    }


async def test_who_is_not_enrolled_arrives_without_uid(browser: Browser) -> None:
    consent = await browser.sign_in(await browser.to_sign_in("Pacific"), "visitor")
    assert "does not know you" in consent.text
    _, claims = await browser.claims(consent)
    assert claims["eppn"] == "visitor@pnnl.example"
    assert "uid" not in claims
    assert "isMemberOf" not in claims


async def test_the_registry_is_read_at_each_login(browser: Browser, federation: Federation) -> None:
    path = federation.settings.registry
    original = path.read_text()
    document = yaml.safe_load(original)
    document["people"][0]["groups"] = ["dcde-users"]
    document["people"][1]["status"] = "suspended"
    try:
        path.write_text(yaml.safe_dump(document))
        _, claims = await browser.claims(await browser.sign_in(await browser.to_sign_in("Pacific"), "drivers"))
        assert claims["isMemberOf"] == ["dcde-users"]
        _, claims = await browser.claims(await browser.sign_in(await browser.to_sign_in("Oak"), "mtanaka"))
        assert claims["uid"] == "dcde1000002"
        assert "isMemberOf" not in claims
        path.write_text("people: {")
        back = await browser.sign_in(await browser.to_sign_in("Pacific"), "drivers")
        assert back.callback is not None
        assert back.callback["error"] == "access_denied"
        assert "registry cannot be read" in back.callback["error_description"]
    finally:
        path.write_text(original)


async def test_wrong_name_password_or_code(browser: Browser) -> None:
    page = await browser.to_sign_in("Pacific")
    wrong = (
        ("<b>drivers", "demo", ""),
        ("drivers", "Demo", ""),
        ("drivers@bnl.example", "demo", ""),
        ("drivers", "demo", "654321"),
    )
    for user, password, code in wrong:
        page = await browser.sign_in(page, user, password, code)
        assert page.status == 403
        assert 'role="alert"' in page.text
        assert "<b>" not in page.text
        assert password not in page.form.fields.values()
    assert "Share who you are" in (await browser.sign_in(page, "drivers")).text


async def test_a_second_factor_that_is_asked_for(browser: Browser) -> None:
    page = await browser.to_sign_in("Pacific", acr_values=MFA)
    assert "second factor" in page.text
    page = await browser.sign_in(page, "drivers")
    assert page.status == 403
    assert "one-time code is missing" in page.text
    _, claims = await browser.claims(await browser.sign_in(page, "drivers", code="123 456"))
    assert claims["acr"] == MFA


async def test_a_second_factor_that_cannot_be_given(browser: Browser) -> None:
    page = await browser.to_sign_in("Pacific", acr_values=MFA)
    back = await browser.sign_in(page, "", "", action="cancel")
    assert back.callback is not None
    assert back.callback["error"] == "access_denied"
    assert back.callback["state"] == browser.state
    assert "second factor" in back.callback["error_description"]


async def test_a_wish_for_a_second_factor_ends_with_its_login(browser: Browser) -> None:
    await browser.to_sign_in("Pacific", acr_values=MFA)
    page = await browser.to_sign_in("Pacific")
    _, claims = await browser.claims(await browser.sign_in(page, "drivers"))
    assert claims["acr"] == PASSWORD_CONTEXT


async def test_a_second_factor_that_nobody_asked_for(browser: Browser) -> None:
    _, claims = await browser.claims(await browser.sign_in(await browser.to_sign_in("Oak"), "mtanaka", code="123456"))
    assert claims["acr"] == MFA


async def test_unknown_ways_to_sign_in_are_refused_by_the_institution(browser: Browser) -> None:
    page = await browser.to_sign_in("Pacific", acr_values="urn:example:retina-scan")
    back = await browser.sign_in(page, "drivers")
    assert back.callback is not None
    assert back.callback["error"] == "access_denied"


async def test_cancelling_and_refusing_consent(browser: Browser) -> None:
    back = await browser.sign_in(await browser.to_sign_in("Brookhaven"), "", "", action="cancel")
    assert back.callback is not None
    assert back.callback["error"] == "access_denied"
    consent = await browser.sign_in(await browser.to_sign_in("Brookhaven"), "pnovak")
    back = await browser.submit(consent, decision="refuse")
    assert back.callback is not None
    assert "did not agree" in back.callback["error_description"]


async def test_offline_access_gives_a_refresh_token(browser: Browser) -> None:
    page = await browser.to_sign_in(
        "Oak", scope="openid email profile org.cilogon.userinfo offline_access", prompt="consent"
    )
    tokens, _ = await browser.claims(await browser.sign_in(page, "mtanaka"))
    status, fresh = await browser.exchange("", grant_type="refresh_token", refresh_token=tokens["refresh_token"])
    assert status == 200
    assert fresh["access_token"] != tokens["access_token"]


async def test_discovery_refuses_every_other_return(browser: Browser, federation: Federation) -> None:
    settings = federation.settings
    good = {"entityID": settings.proxy_entity_id, "return": settings.proxy_discovery_url}
    disco = settings.url("disco", "/")
    page = await browser.open(f"{disco}?{urlencode(good)}")
    assert page.status == 200
    assert "Set-Cookie" not in page.headers
    assert set(page.links) == {institution.name for institution in INSTITUTIONS}
    bad = (
        {"return": "https://evil.example/"},
        {"return": settings.proxy_discovery_url + ".evil.example"},
        {"return": f"https://proxy.localhost:{settings.port}@evil.example/saml/disco"},
        {"return": "javascript:alert(1)"},
        {"return": settings.url("proxy", "/other")},
        {"entityID": "https://other.example/sp"},
        {"returnIDParam": "evil"},
        {"return": '"><script>alert(1)</script>'},
    )
    for change in bad:
        page = await browser.open(f"{disco}?{urlencode(good | change)}")
        assert page.status == 400, change
        assert page.links == {}
        assert "evil" not in page.text
        assert "<script>" not in page.text
    assert (await browser.open(disco)).status == 400


async def test_unknown_clients_and_return_addresses_are_refused_here(browser: Browser) -> None:
    for change in (
        {"client_id": "cilogon:/client_id/other"},
        {"redirect_uri": "https://evil.example/callback"},
        {"redirect_uri": browser.facts["callback_url"] + "/more"},
        {"client_id": "<script>alert(1)</script>"},
    ):
        page = await browser.open(browser.authorize_url(**change))
        assert page.status == 400, change
        assert "not registered" in page.text
        assert "evil" not in page.text
        assert "<script>" not in page.text
    assert (await browser.open(browser.facts["authorize_url"])).status == 400


async def test_a_code_needs_secret_verifier_and_address_and_works_once(browser: Browser) -> None:
    async def code() -> str:
        consent = await browser.sign_in(await browser.to_sign_in("Pacific"), "drivers")
        back = await browser.submit(consent, decision="allow")
        assert back.callback is not None
        return back.callback["code"]

    for change in (
        {"client_secret": "guess"},
        {"code_verifier": "x" * 64},
        {"redirect_uri": "https://evil.example/"},
        {"code": "guess"},
    ):
        status, answer = await browser.exchange(await code(), **change)
        assert status in (400, 401), change
        assert "access_token" not in answer
    again = await code()
    assert (await browser.exchange(again))[0] == 200
    assert (await browser.exchange(again))[0] == 400


async def test_the_sign_in_form_is_believed_only_from_its_own_page(
    federation: Federation, authority, browser: Browser
) -> None:
    page = await browser.to_sign_in("Pacific")
    typed = {"user": "drivers", "password": "demo", "action": "sign-in"}
    ticket = page.form.fields["ticket"]
    sso = federation.settings.url("pnnl", "/sso")

    async def refused(posted: Page) -> None:
        assert posted.status == 400
        assert "SAMLResponse" not in posted.text

    await refused(await browser.open(sso, data=typed))
    await refused(await browser.open(sso, data=typed | {"ticket": ticket[:-1] + ("0" if ticket[-1] != "0" else "1")}))
    await refused(await browser.open(sso, data=typed | {"ticket": ticket}, headers={"Origin": "https://evil.example"}))
    await refused(await browser.open(sso, data=typed | {"ticket": ticket}, headers={"Origin": "null"}))
    request = base64.b64encode(b"<AuthnRequest/>").decode()
    await refused(await browser.open(sso, data=typed | {"SAMLRequest": request}))
    other_institution = federation.settings.url("bnl", "/sso")
    await refused(await browser.open(other_institution, data=typed | {"user": "pnovak", "ticket": ticket}))
    async with Browser(federation, authority) as other:
        await other.to_sign_in("Pacific")
        await refused(await other.open(sso, data=typed | {"ticket": ticket}))
    assert "SAMLResponse" in (await browser.open(sso, data=typed | {"ticket": ticket})).text


async def test_sign_in_requests_that_the_proxy_did_not_sign_are_refused(
    browser: Browser, federation: Federation
) -> None:
    page = await browser.to_sign_in("Pacific")
    assert page.url.startswith(federation.settings.url("pnnl", "/sso?"))
    for changed in (
        page.url.replace("&Signature=", "&Other="),
        page.url.replace("RelayState=", "RelayState=x"),
        federation.settings.url("pnnl", "/sso"),
        federation.settings.url("pnnl", "/sso?SAMLRequest=%00&SigAlg=&Signature="),
        page.url.replace("https://pnnl.", "https://bnl."),
    ):
        refused = await browser.open(changed)
        assert refused.status == 400, changed
        assert "ticket" not in refused.text
    assert (await browser.open(federation.settings.url("pnnl", "/sso"), method="PUT")).status == 405


async def test_consent_belongs_to_one_browser_and_one_answer(
    federation: Federation, authority, browser: Browser
) -> None:
    consent = await browser.sign_in(await browser.to_sign_in("Pacific"), "drivers")
    ticket = consent.form.fields["ticket"]
    url = federation.settings.url("proxy", "/consent")
    async with Browser(federation, authority) as other:
        assert (await other.open(url, data={"ticket": ticket, "decision": "allow"})).status == 400
        own = await other.sign_in(await other.to_sign_in("Pacific"), "visitor")
        stolen = await other.submit(own, ticket=ticket, decision="allow")
        assert stolen.status == 400
        assert stolen.callback is None
    assert (await browser.open(f"{url}?{urlencode({'ticket': ticket, 'decision': 'allow'})}")).status == 400
    evil = {"Origin": "https://evil.example"}
    assert (await browser.open(url, data={"ticket": ticket, "decision": "allow"}, headers=evil)).status == 400
    back = await browser.submit(consent, decision="allow")
    assert back.callback is not None
    assert (await browser.submit(consent, decision="allow")).status == 400


async def test_a_saml_answer_is_good_for_its_own_browser_only_and_once(
    federation: Federation, authority, browser: Browser
) -> None:
    page = await browser.to_sign_in("Pacific")
    answer = await browser.submit(page, user="drivers", password="demo", action="sign-in")
    async with Browser(federation, authority) as other:
        stolen = await other.submit(answer)
        assert stolen.callback is None
        assert "could not be finished" in stolen.text
    assert "Share who you are" in (await browser.submit(answer)).text
    replayed = await browser.submit(answer)
    assert "Share who you are" not in replayed.text


async def test_an_institution_that_does_not_exist(browser: Browser, federation: Federation) -> None:
    await browser.open(browser.authorize_url())
    chosen = urlencode({"entityID": "https://evil.example/idp"})
    back = await browser.open(f"{federation.settings.proxy_discovery_url}?{chosen}")
    assert back.callback is not None
    assert back.callback["error"] == "access_denied"


async def test_every_page_says_what_it_is_and_loads_nothing(browser: Browser) -> None:
    discovery = await browser.open(browser.authorize_url())
    sign_in = await browser.to_sign_in("Pacific")
    answer = await browser.submit(sign_in, user="drivers", password="demo", action="sign-in")
    consent = await browser.submit(answer)
    lost = await browser.open(browser.settings.url("proxy", "/error?errorid=<script>"))
    for page in (discovery, sign_in, answer, consent, lost):
        assert '<html lang="en">' in page.text
        assert page.text.count("<h1>") == 1
        assert "default-src 'none'" in page.headers["Content-Security-Policy"]
        assert "frame-ancestors 'none'" in page.headers["Content-Security-Policy"]
        assert "no-store" in page.headers["Cache-Control"]
        assert "<script>" not in page.text.replace("<script>document.forms[0].submit();</script>", "")


async def test_the_metadata_are_published_and_the_door_knows_no_other_name(
    browser: Browser, federation: Federation
) -> None:
    page = await browser.open(federation.settings.url("disco", "/metadata"))
    assert page.text.count("EntityDescriptor ") >= 4
    assert "SignatureValue" in page.text
    page = await browser.open(federation.settings.url("disco", "/"), headers={"Host": "evil.example"})
    assert page.status == 421


async def test_large_bodies_are_refused(browser: Browser, federation: Federation) -> None:
    for name, path in (("pnnl", "/sso"), ("proxy", "/saml/acs/post")):
        page = await browser.open(federation.settings.url(name, path), data={"SAMLResponse": "x" * 300_000})
        assert page.status == 413


async def test_no_secret_is_logged(browser: Browser, logs: Callable[[], str], federation: Federation) -> None:
    page = await browser.to_sign_in("Pacific", acr_values=MFA)
    await browser.sign_in(page, "drivers", "a-real-password")
    consent = await browser.sign_in(page, "drivers", code="123456")
    back = await browser.submit(consent, decision="allow")
    assert back.callback is not None
    status, tokens = await browser.exchange(back.callback["code"])
    assert status == 200
    await browser.exchange(back.callback["code"])
    await browser.exchange("guessed-code", client_secret="guessed-secret")
    await browser.sign_in(await browser.to_sign_in("Pacific"), "", "", action="cancel")
    text = logs()
    assert "drivers@pnnl.example is dcde1000001" in text
    for secret in (
        "a-real-password", "guessed-code", "guessed-secret", "123456", browser.secret, browser.state, browser.verifier,
        back.callback["code"], tokens["access_token"], tokens["id_token"], consent.form.fields["ticket"], "STATE:",
    ):  # fmt: skip
        assert secret not in text


async def test_the_files_are_private(federation: Federation) -> None:
    assert federation.client_secret_file.stat().st_mode & 0o777 == 0o600
    private = federation.settings.folder
    assert private.stat().st_mode & 0o777 == 0o700
    for path in private.rglob("*"):
        assert path.stat().st_mode & 0o077 == 0, path


async def test_of_two_logins_in_one_browser_the_later_one_works(browser: Browser) -> None:
    first = await browser.to_sign_in("Pacific", state="first-login-state")
    second = await browser.to_sign_in("Brookhaven")
    _, claims = await browser.claims(await browser.sign_in(second, "pnovak"))
    assert claims["uid"] == "dcde1000003"
    late = await browser.sign_in(first, "drivers")
    assert late.callback is None
    assert "could not be finished" in late.text


async def test_the_earlier_of_two_logins_never_becomes_the_later_one(browser: Browser) -> None:
    first = await browser.to_sign_in("Pacific", state="first-login-state")
    await browser.to_sign_in("Brookhaven")
    back = await browser.sign_in(first, "drivers")
    assert back.callback is not None
    assert back.callback["error"] == "access_denied"
