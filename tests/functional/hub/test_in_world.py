"""The hub in the testbed's world: federated login, people's servers, their isolation, and what survives.

Brings up a world of its own, with real institutions, sites and firewalls; see demo/guest.yaml.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from dcde_testbed import outside, preflight
from dcde_testbed.world import World

from .conftest import free_port, wait_for
from .federated_browser import FederatedBrowser, Lab

ROOT = Path(__file__).parents[3]
SECRET_FILES = ("hub/secrets", "federation/client_secret", "hub/cookie_secret")

pytestmark = [
    pytest.mark.world,
    pytest.mark.skipif(os.geteuid() != 0 and bool(preflight.problems()), reason="this account can make no world"),
]

LOOK_AROUND = """
import json, os, pwd, socket
def names(path):
    try: return sorted(os.listdir(path))
    except OSError as e: return type(e).__name__
def reach(host, port):
    try: socket.create_connection((host, port), 3).close(); return "open"
    except OSError: return "closed"
def owner(pid):
    try: return os.stat(f"/proc/{pid}").st_uid
    except OSError: return None
targets = [("10.79.0.1", p) for p in (8081, 8082, 8083, 8000, 8001, 8010, 8011, 22, PORT)]
targets += [("127.0.0.1", p) for p in (8000, 8001, 8010, 8011, 8014, PORT)]
targets += [("10.79.1.OTHER", 8888), ("10.79.1.OTHER", 22), ("10.77.0.1", 8081), ("10.77.0.11", 22), ("10.77.0.13", 2222), ("10.77.0.11", 6817),
            ("10.77.0.21", 50000), ("10.78.1.11", 22), ("10.78.1.1", 22)]
kept = {k: v for k, v in os.environ.items()}
status = dict(l.split(":", 1) for l in open("/proc/self/status") if ":" in l)
print(json.dumps({
    "uid": os.getuid(), "name": pwd.getpwuid(os.getuid()).pw_name, "home": os.path.expanduser("~"), "home_mode": oct(os.stat(os.path.expanduser("~")).st_mode & 0o777),
    "no_new_privs": status["NoNewPrivs"].strip(), "capabilities": int(status["CapEff"], 16),
    "folders": {p: names(p) for p in ("/home", "/run", "/opt/dcde", "/var", "/var/lib", "/etc/dcde", "/root")},
    "owners": sorted({owner(p) for p in os.listdir("/proc") if p.isdigit()} - {None}),
    "reach": {f"{h}:{p}": reach(h, p) for h, p in targets},
    "environment": sorted(kept), "token_in_environment": "JUPYTERHUB_API_TOKEN" in kept,
    "runtime": os.environ.get("JUPYTER_RUNTIME_DIR"), "listening": [l.split()[1] for l in open("/proc/net/tcp").readlines()[1:] if l.split()[3] == "0A"],
}))
"""


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    state = tmp_path_factory.mktemp("hub-world")
    with World(state, free_port(), environments=ROOT / "build/env", guest=ROOT / "demo/guest.yaml") as running:
        yield running
    outside.remove(state)


@pytest.fixture
def registry(world: World) -> Iterator[Callable[..., None]]:
    """`registry(dcde_id, **change)` changes a person's entry; afterwards the file is as it was."""
    path = world.inside / "registry.yaml"
    before = path.read_text()

    def change(dcde_id: str, **changes: Any) -> None:
        content = yaml.safe_load(path.read_text())
        for entry in content["people"]:
            if entry["dcde_id"] == dcde_id:
                entry |= changes
        put(yaml.safe_dump(content))

    def put(text: str) -> None:
        draft = path.with_name("registry.new")
        draft.write_text(text)
        draft.chmod(0o644)
        draft.rename(path)

    yield change
    put(before)


@pytest.fixture
def browser(world: World) -> Iterator[FederatedBrowser]:
    visitor = FederatedBrowser(world.port, world.ca)
    yield visitor
    visitor.close()


def server_process(world: World, person: str) -> int | None:
    done = world.run("hub", None, ["pgrep", "-o", "-u", person, "-f", "jupyterhub.singleuser"], check=False)
    return int(done.stdout) if done.returncode == 0 else None


def environment_of(world: World, pid: int) -> dict[str, str]:
    text = world.run("hub", None, ["cat", f"/proc/{pid}/environ"]).stdout
    return dict(item.split("=", 1) for item in text.split("\0") if "=" in item)


def start(world: World, browser: FederatedBrowser, person: str, dcde_id: str) -> Lab:
    assert browser.log_in(person).status_code == 200
    browser.get("/hub/spawn")
    wait_for(lambda: browser.get(f"/user/{dcde_id}/lab").url.path == f"/user/{dcde_id}/lab", "Lab answers", 90)
    pid = server_process(world, dcde_id)
    assert pid
    return Lab(browser, dcde_id, environment_of(world, pid)["JUPYTERHUB_API_TOKEN"])


@pytest.fixture(scope="module")
def labs(world: World) -> Iterator[tuple[Lab, Lab]]:
    """The servers of two people who are logged in at the same time."""
    visitors = [FederatedBrowser(world.port, world.ca) for _ in range(2)]
    people = [("drivers@pnnl.example", "dcde1000001"), ("mtanaka@ornl.example", "dcde1000002")]
    one, two = (start(world, visitor, *person) for visitor, person in zip(visitors, people, strict=True))
    yield one, two
    for visitor in visitors:
        visitor.close()


@pytest.fixture(scope="module")
def seen(world: World, labs: tuple[Lab, Lab]) -> dict[str, Any]:
    """What code in the first person's kernel sees."""
    return dict(labs[0].execute(LOOK_AROUND.replace("PORT", str(world.port)).replace("OTHER", "2")))


# ---- logging in ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("person", "words"),
    [
        ("visitor@pnnl.example", ["visitor@pnnl.example", "not enrolled", "https://registry.dcde.example/enroll"]),
        (
            "pnovak@bnl.example",
            ["pnovak@bnl.example", "https://dcde.example/aup/2", "https://registry.dcde.example/me"],
        ),
    ],
)
def test_refused_with_a_page_that_says_what_to_do(browser: FederatedBrowser, person: str, words: list[str]) -> None:
    page = browser.log_in(person)
    assert page.status_code == 403
    for word in words:
        assert word in page.text


def test_registry_data_with_uid_zero_makes_no_account(
    world: World, browser: FederatedBrowser, registry: Callable[..., None]
) -> None:
    registry("dcde1000009", uid_number=0)
    page = browser.log_in("admin@bnl.example")
    assert page.status_code == 403 and "uid_number 0" in page.text
    passwd = world.run("hub", None, ["cat", "/etc/passwd"]).stdout
    assert "dcde1000009" not in passwd and passwd.count(":x:0:") == 1


def test_cookies_are_for_tls_only(labs: tuple[Lab, Lab]) -> None:
    cookies = [c for c in labs[0].browser.client.cookies.jar if c.name.startswith("jupyterhub-")]
    assert cookies and all(cookie.secure for cookie in cookies)


# ---- one person and another ---------------------------------------------------------------------------------------


def test_own_account(seen: dict[str, Any]) -> None:
    assert (seen["uid"], seen["name"], seen["home"]) == (51001, "dcde1000001", "/home/dcde1000001")
    assert seen["home_mode"] == "0o700" and seen["no_new_privs"] == "1" and seen["capabilities"] == 0


def test_nothing_of_others_is_there(seen: dict[str, Any]) -> None:
    assert seen["folders"]["/home"] == ["dcde1000001"] and seen["folders"]["/opt/dcde"] == ["user"]
    assert seen["folders"]["/var"] == ["tmp"] and seen["folders"]["/var/lib"] == "FileNotFoundError"
    for folder in ("/run", "/root", "/etc/dcde"):
        assert seen["folders"][folder] in ([], "PermissionError", "FileNotFoundError")
    assert seen["owners"] == [51001]


def test_the_network_leads_to_the_hub_and_the_sites_ssh_only(world: World, seen: dict[str, Any]) -> None:
    opened = {target for target, how in seen["reach"].items() if how == "open"}
    assert opened == {"10.79.0.1:8081", "10.79.0.1:8082", "10.79.0.1:8083", "10.77.0.11:22", "10.77.0.13:2222"}
    counters = world.counters("hub")
    assert counters["people_rejected"] > 0 and counters["people_ssh"] > 0


def test_kernels_have_no_token(seen: dict[str, Any]) -> None:
    assert seen["token_in_environment"] is False
    assert not [name for name in seen["environment"] if "TOKEN" in name or "SECRET" in name]


def test_a_second_person_gets_nowhere_with_the_first_ones_server(labs: tuple[Lab, Lab]) -> None:
    one, two = labs
    for path in ("lab", "api/contents", "api/kernels", "files/note.txt"):
        assert two.browser.get(f"/user/dcde1000001/{path}").status_code in (403, 404)
        url = one.browser.url(f"/user/dcde1000001/{path}")
        assert two.browser.client.get(url, headers=two.headers).status_code in (403, 404)
    whoami = one.browser.url("/user/dcde1000001/dcde/api/whoami")
    assert two.browser.client.post(whoami, headers=two.headers, json={}).status_code in (403, 404)
    assert two.browser.client.post(whoami, headers=one.headers, json={}).json()["dcde_id"] == "dcde1000001"
    own = two.browser.client.get(two.api("contents"), headers=two.headers)
    assert own.status_code == 200


def test_without_credentials_nothing_is_told(labs: tuple[Lab, Lab]) -> None:
    code = """
import json, urllib.request, urllib.error
def ask(url):
    try: return urllib.request.urlopen(url, timeout=5).status
    except urllib.error.HTTPError as e: return e.code
urls = ["http://10.79.0.1:8081/hub/api/users", "http://10.79.0.1:8081/hub/api/user", "http://10.79.0.1:8082/services/broker/me",
        "http://10.79.0.1:8082/services/broker/sites", "http://10.79.0.1:8083/services/keeper/needed"]
print(json.dumps([ask(u) for u in urls]))
"""
    assert labs[1].execute(code) == [403, 403, 401, 401, 405]


def test_no_process_shows_a_secret(world: World, labs: tuple[Lab, Lab]) -> None:
    secrets = [lab.token for lab in labs]
    for name in SECRET_FILES:
        path = world.inside / name
        secrets += [file.read_text().strip() for file in (path.iterdir() if path.is_dir() else [path])]
    assert len(secrets) >= 7
    lines = world.run("hub", None, ["sh", "-c", "cat /proc/[0-9]*/cmdline"]).stdout
    assert "jupyterhub.singleuser" in lines and not [s for s in secrets if s in lines]
    for name, allowed in (
        ("hub", []),
        ("broker", []),
        ("keeper", []),
        ("signer", []),
        ("proxy", ["hub/secrets/proxy"]),
    ):
        pid = world.run("hub", None, ["pgrep", "-o", "-f", PROCESS[name]]).stdout.strip()
        environment = world.run("hub", None, ["cat", f"/proc/{pid}/environ"]).stdout
        known = [(world.inside / path).read_text().strip() for path in allowed]
        assert not [s for s in secrets if s in environment and s not in known], name


PROCESS = {
    "hub": "bin/python -m jupyterhub -f",
    "broker": "dcde_hub.broker",
    "keeper": "dcde_hub.keeper",
    "signer": "dcde_hub.signer",
    "proxy": "configurable-http-proxy",
}


def test_services_have_accounts_of_their_own(world: World) -> None:
    for name, account in (("broker", "dcde-broker"), ("keeper", "dcde-keeper"), ("signer", "dcde-signer"), ("proxy", "dcde-proxy")):  # fmt: skip
        pid = world.run("hub", None, ["pgrep", "-o", "-f", PROCESS[name]]).stdout.strip()
        assert world.run("hub", None, ["stat", "-c", "%U", f"/proc/{pid}"]).stdout.strip() == account
    keys = [
        f"/var/lib/dcde/hub/{file}"
        for file in ("signer/bnl-sdcc.key", "secrets/crypt_key", "hub.sqlite", "cookie_secret")
    ]
    for account in ("dcde-broker", "dcde-keeper", "dcde-proxy", "dcde-signer"):
        become = ["setpriv", f"--reuid={account}", f"--regid={account}", "--clear-groups", "--"]
        readable = [
            key for key in keys if world.run("hub", None, [*become, "test", "-r", key], check=False).returncode == 0
        ]
        assert readable == (keys[:1] if account == "dcde-signer" else [])


# ---- what survives, and what comes back ---------------------------------------------------------------------------


def hub_answers(browser: FederatedBrowser) -> bool:
    try:
        return browser.get("/hub/health").status_code == 200
    except httpx.TransportError:
        return False


def test_servers_outlive_the_hub(world: World, labs: tuple[Lab, Lab]) -> None:
    before = server_process(world, "dcde1000001")
    world.service("hub", "crash")
    wait_for(lambda: hub_answers(labs[0].browser), "the hub is back", 60)
    assert server_process(world, "dcde1000001") == before
    assert labs[0].execute("print(6 * 7)") == 42


def test_a_needed_server_comes_back_and_another_one_does_not(world: World, labs: tuple[Lab, Lab]) -> None:
    put = "import json, urllib.request as u; r = u.Request('http://10.79.0.1:8083/services/keeper/needed', method='PUT', data=json.dumps({'runs': RUNS}).encode(), headers={'Authorization': 'token TOKEN'}); print(u.urlopen(r, timeout=10).status)"
    assert labs[0].execute(put.replace("RUNS", "['r7']").replace("TOKEN", labs[0].token)) == 204
    pids = {lab.person: server_process(world, lab.person) for lab in labs}
    for pid in pids.values():
        world.run("hub", None, ["kill", "-9", str(pid)])
    wait_for(lambda: server_process(world, "dcde1000001") not in (None, pids["dcde1000001"]), "the server is back", 90)
    assert server_process(world, "dcde1000002") is None
    links = world.run("hub", None, ["ip", "-o", "link"]).stdout
    assert "u51001" in links and "u51002" not in links


def test_a_suspended_person_is_out_within_a_minute(
    world: World, labs: tuple[Lab, Lab], registry: Callable[..., None]
) -> None:
    wait_for(lambda: server_process(world, "dcde1000001"), "the server runs", 90)
    began = time.monotonic()
    registry("dcde1000001", status="suspended")
    wait_for(lambda: server_process(world, "dcde1000001") is None, "the server is stopped", 60)
    assert time.monotonic() - began < 60
    wait_for(lambda: labs[0].browser.get("/hub/token").url.path == "/hub/login", "the session ends", 30)
    assert labs[0].browser.log_in("drivers@pnnl.example").status_code == 403


def test_what_lasts_over_down_and_up(world: World, labs: tuple[Lab, Lab], browser: FederatedBrowser) -> None:
    world.run("hub", None, ["tee", "/home/dcde1000001/note.txt"], text="kept")
    authority = (world.inside / "onboarding/bnl-sdcc/user_ca.pub").read_text()
    before = json.loads((world.inside / "world.json").read_text())["world"]
    world.down()
    world.up()
    assert json.loads((world.inside / "world.json").read_text())["world"] != before
    assert (world.inside / "onboarding/bnl-sdcc/user_ca.pub").read_text() == authority
    lab = start(world, browser, "drivers@pnnl.example", "dcde1000001")
    assert lab.execute("import json, pathlib, os; print(json.dumps([pathlib.Path('note.txt').read_text(), os.getuid()]))") == ["kept", 51001]  # fmt: skip


def test_logs_hold_no_secret(world: World, labs: tuple[Lab, Lab]) -> None:
    secrets = [
        (world.inside / "hub/secrets" / name).read_text().strip() for name in ("broker", "keeper", "proxy", "crypt_key")
    ]
    secrets += [lab.token for lab in labs] + ["PRIVATE KEY-----"]
    for log in (world.inside / "logs").rglob("*.log"):
        text = log.read_text(errors="replace")
        assert not [secret for secret in secrets if secret in text], log.name
