"""Broker, signer and keeper as real processes beside a real hub; a real sshd judges the certificates."""

from __future__ import annotations

import getpass
import json
import os
import pwd
import shutil
import signal
import socket
import stat
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from .conftest import PEOPLE, Hub, Services, free_port, wait_for

REQUEST = "q0123456789ab"


@dataclass
class Server:
    """A person's running server, and its token as code in it has it."""

    name: str
    folder: Path
    browser: httpx.Client

    @property
    def environment(self) -> dict[str, str]:
        return dict(json.loads((self.folder / f"stub-{self.name}.env").read_text()))

    @property
    def headers(self) -> dict[str, str]:
        return {"Authorization": f"token {self.environment['JUPYTERHUB_API_TOKEN']}", "X-Request-ID": REQUEST}

    @property
    def pid(self) -> int:
        return int((self.folder / f"stub-{self.name}.pid").read_text())

    def alive(self) -> bool:
        try:
            os.kill(self.pid, 0)
        except ProcessLookupError:
            return False
        return "Z" not in Path(f"/proc/{self.pid}/stat").read_text().split()[2]


def start_server(hub: Hub, eppn: str, uid: str) -> Server:
    browser = hub.browser()
    assert hub.log_in(browser, eppn, uid).status_code == 200
    assert browser.get("/hub/spawn").status_code == 200
    wait_for(lambda: browser.get(f"/user/{uid}/").text == "stub", "the server answers", 30)
    return Server(uid, hub.workshop.folder, browser)


@pytest.fixture(scope="module")
def drivers(hub: Hub, services: Services) -> Iterator[Server]:
    hub.workshop.people(*PEOPLE.values())
    server = start_server(hub, "drivers@pnnl.example", "dcde1000001")
    yield server
    server.browser.close()


@pytest.fixture(scope="module")
def mtanaka(hub: Hub, services: Services) -> Iterator[Server]:
    hub.workshop.people(*PEOPLE.values())
    server = start_server(hub, "mtanaka@ornl.example", "dcde1000002")
    yield server
    server.browser.close()


@pytest.fixture(autouse=True)
def sample_people(hub: Hub) -> None:
    hub.workshop.people(*PEOPLE.values())


@dataclass
class Key:
    """A key pair that ssh-keygen made."""

    path: Path

    @property
    def public(self) -> str:
        return self.path.with_suffix(".pub").read_text()

    def certified(self, certificate: str) -> Path:
        file = self.path.with_name(f"{self.path.name}-cert.pub")
        file.write_text(certificate + "\n")
        return file


def make_key(folder: Path, kind: str = "ed25519") -> Key:
    subprocess.run(["ssh-keygen", "-q", "-t", kind, "-N", "", "-f", str(folder / f"id_{kind}")], check=True)
    return Key(folder / f"id_{kind}")


def certificate(services: Services, server: Server, site: str, public_key: str) -> httpx.Response:
    return httpx.post(
        f"{services.broker}/certificate", headers=server.headers, json={"site": site, "public_key": public_key}
    )


def error_of(answer: httpx.Response) -> dict[str, object]:
    error = answer.json()["error"]
    assert set(error) == {"code", "message", "where", "remedy", "retry"}
    return dict(error)


# ---- the broker ---------------------------------------------------------------------------------------------------


def test_me_says_who_it_is(services: Services, drivers: Server) -> None:
    answer = httpx.get(f"{services.broker}/me", headers=drivers.headers)
    assert answer.status_code == 200 and answer.headers["X-Request-ID"] == REQUEST
    assert answer.json() == {
        "dcde_id": "dcde1000001",
        "name": "David Rivers",
        "email": "drivers@pnnl.example",
        "institution": "PNNL (sample)",
        "groups": ["dcde-users", "cryoem"],
        "policies": {"https://dcde.example/aup/2": "2026-01-15"},
        "trainings": {"cyber-2026": "2099-12-31"},
        "acr": "https://refeds.org/profile/sfa",
    }


def test_sites_show_all_sites_and_own_accounts_only(services: Services, mtanaka: Server) -> None:
    answer = httpx.get(f"{services.broker}/sites", headers=mtanaka.headers).json()
    assert [site["name"] for site in answer["sites"]] == ["bnl-sdcc", "ornl-cades"]
    assert [document["site"] for document in answer["capabilities"]] == ["bnl-sdcc", "ornl-cades"]
    assert answer["accounts"] == {"ornl-cades": "mt9"}
    assert answer["person"]["dcde_id"] == "dcde1000002"
    assert "dcde1000001" not in json.dumps(answer) and "u12345" not in json.dumps(answer)


def test_certificate_says_no_more_than_it_must(services: Services, drivers: Server, tmp_path: Path) -> None:
    key = make_key(tmp_path)
    before = int(time.time())
    answer = certificate(services, drivers, "bnl-sdcc", key.public)
    assert answer.status_code == 200
    body = answer.json()
    assert (body["account"], body["principal"]) == ("u12345", "dcde1000001@bnl-sdcc")
    assert before + 590 <= body["valid_before"] <= int(time.time()) + 600
    shown = subprocess.run(
        ["ssh-keygen", "-L", "-f", str(key.certified(body["certificate"]))], check=True, capture_output=True, text=True
    ).stdout
    lines = [line.strip() for line in shown.splitlines()]
    assert f'Key ID: "{REQUEST}"' in lines
    assert lines[lines.index("Principals:") + 1] == "dcde1000001@bnl-sdcc"
    assert lines[lines.index("Critical Options: (none)") + 1] == "Extensions:"
    assert lines[lines.index("Extensions:") + 1 :] == ["permit-pty"]
    assert any(line.startswith("Serial: ") and int(line.split()[1]) > 0 for line in lines)
    authority = (drivers.folder / "onboarding/bnl-sdcc/user_ca.pub").read_text()
    assert authority.startswith("ssh-ed25519 ")


def test_each_site_has_an_authority_of_its_own(drivers: Server) -> None:
    keys = [
        (drivers.folder / f"onboarding/{site}/user_ca.pub").read_text().split()[1]
        for site in ("bnl-sdcc", "ornl-cades")
    ]
    assert keys[0] != keys[1]
    for file in (drivers.folder / "keys").glob("*.key"):
        assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_no_certificate_for_another_site(services: Services, mtanaka: Server, tmp_path: Path) -> None:
    key = make_key(tmp_path)
    answer = certificate(services, mtanaka, "bnl-sdcc", key.public)
    assert answer.status_code == 403
    error = error_of(answer)
    assert "cryoem" in str(error["message"]) and error["where"] == "bnl-sdcc" and error["retry"] is False
    assert certificate(services, mtanaka, "ornl-cades", key.public).status_code == 200


@pytest.mark.parametrize("site", ["nowhere", "../keys", "bnl-sdcc/../ornl-cades", ""])
def test_unknown_site(services: Services, drivers: Server, site: str, tmp_path: Path) -> None:
    assert certificate(services, drivers, site, make_key(tmp_path).public).status_code == 404


@pytest.mark.parametrize("text", ["", "ssh-ed25519 AAAA", "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5\nssh-rsa AAAA", "x" * 2000])
def test_bad_keys_are_refused(services: Services, drivers: Server, text: str) -> None:
    answer = certificate(services, drivers, "bnl-sdcc", text)
    assert answer.status_code == 422 and error_of(answer)["code"] == "SignerRefused"


def test_other_key_types_are_refused(services: Services, drivers: Server, tmp_path: Path) -> None:
    assert certificate(services, drivers, "bnl-sdcc", make_key(tmp_path, "rsa").public).status_code == 422


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"status": "suspended"}, "suspended"),
        ({"policies": {}}, "aup/2"),
        ({"groups": []}, "group"),
        (None, "not known"),
    ],
)
def test_revocation_acts_at_once(
    hub: Hub, services: Services, change: dict[str, object] | None, words: str, tmp_path: Path
) -> None:
    leaver = start_server(hub, "leaver@bnl.example", "dcde1000005")
    key = make_key(tmp_path)
    assert certificate(services, leaver, "bnl-sdcc", key.public).status_code == 200
    hub.workshop.people(*([PEOPLE["leaver"] | change] if change else []), PEOPLE["mtanaka"], PEOPLE["drivers"])
    answer = certificate(services, leaver, "bnl-sdcc", key.public)
    assert answer.status_code in (401, 403)
    if answer.status_code == 403:
        assert words in str(error_of(answer))
    leaver.browser.close()


def test_only_a_servers_own_token_opens_the_broker(hub: Hub, services: Services, drivers: Server) -> None:
    assert httpx.get(f"{services.broker}/me").status_code == 401
    assert httpx.get(f"{services.broker}/me", headers={"Authorization": "token 0123456789abcdef"}).status_code == 401
    assert (
        httpx.get(f"{services.broker}/me", params={"token": drivers.environment["JUPYTERHUB_API_TOKEN"]}).status_code
        == 401
    )
    own = (hub.workshop.folder / "secrets/broker").read_text().strip()
    assert httpx.get(f"{services.broker}/me", headers={"Authorization": f"token {own}"}).status_code == 403


def test_a_servers_token_is_good_for_little(hub: Hub, drivers: Server) -> None:
    def ask(method: str, path: str) -> int:
        return httpx.request(method, f"{hub.api}{path}", headers=drivers.headers).status_code

    model = httpx.get(f"{hub.api}/user", headers=drivers.headers).json()
    assert set(model["scopes"]) == {
        "access:servers!server=dcde1000001/",
        "access:services!service=broker",
        "access:services!service=keeper",
        "users:activity!user=dcde1000001",
    } | {scope for scope in model["scopes"] if scope.startswith("read:users:")}
    assert "auth_state" not in json.dumps(model)
    assert ask("GET", "/users") == 403
    assert ask("GET", "/users/dcde1000002") in (403, 404)
    assert ask("POST", "/users/dcde1000001/tokens") in (403, 404)
    assert ask("DELETE", "/users/dcde1000001/server") in (403, 404)


# ---- the signer ---------------------------------------------------------------------------------------------------


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another account")
def test_signer_answers_the_broker_only(drivers: Server) -> None:
    socket_path = drivers.folder / "signer.sock"
    program = "import socket,sys; s=socket.socket(socket.AF_UNIX); s.connect(sys.argv[1]); s.sendall(b'{}\\n'); print(s.makefile().readline())"
    entry = pwd.getpwnam("nobody")
    with_access = Path(f"/tmp/dcde-signer-{os.getpid()}.sock")  # the test's folder is closed to nobody
    os.link(socket_path, with_access)
    try:
        shown = subprocess.run(
            ["/usr/bin/python3", "-I", "-c", program, str(with_access)],
            check=True,
            capture_output=True,
            text=True,
            user=entry.pw_uid,
            group=entry.pw_gid,
        ).stdout
    finally:
        with_access.unlink()
    assert json.loads(shown)["error"]["code"] == "Forbidden"


@pytest.mark.parametrize(
    "ask",
    [
        {"site": "bnl-sdcc", "dcde_id": "root", "public_key": "K"},
        {"site": "bnl-sdcc", "dcde_id": "dcde1000001", "public_key": "K", "principals": ["root"]},
        {"site": "../bnl-sdcc", "dcde_id": "dcde1000001", "public_key": "K"},
        {"site": "anl-lcrc", "dcde_id": "dcde1000001", "public_key": "K"},
        {},
        [],
    ],
)
def test_signer_believes_nothing(drivers: Server, ask: object, tmp_path: Path) -> None:
    if isinstance(ask, dict) and ask:
        ask = {"request": REQUEST, **ask, "public_key": make_key(tmp_path).public}
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(drivers.folder / "signer.sock"))
        client.sendall(json.dumps(ask).encode() + b"\n")
        answer = json.loads(client.makefile().readline())
    assert "error" in answer and "certificate" not in answer


def test_signer_audits(services: Services, hub: Hub, drivers: Server, tmp_path: Path) -> None:
    certificate(services, drivers, "bnl-sdcc", make_key(tmp_path).public)
    lines = [json.loads(line) for line in hub.workshop.log("signer").splitlines()]
    last = [line for line in lines if line["logger"] == "dcde.signer.audit"][-1]
    assert last["person"] == "dcde1000001" and last["site"] == "bnl-sdcc" and last["request"] == REQUEST
    assert "dcde1000001@bnl-sdcc" in last["message"] and "SHA256:" in last["message"]


# ---- a site's sshd ------------------------------------------------------------------------------------------------


@pytest.fixture
def sshd(drivers: Server, tmp_path: Path) -> Iterator[int]:
    """A stock sshd that trusts the authority of bnl-sdcc, for this account as principal dcde1000001@bnl-sdcc."""
    program = shutil.which("sshd", path="/usr/sbin:/usr/bin")
    assert program, "openssh-server is not installed"
    if os.geteuid() == 0:
        Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)
    port = free_port()
    host = make_key(tmp_path)
    (tmp_path / "principals").write_text("dcde1000001@bnl-sdcc\n")
    (tmp_path / "sshd_config").write_text(
        f"Port {port}\nListenAddress 127.0.0.1\nHostKey {host.path}\nPidFile none\nUsePAM no\nStrictModes no\nAuthorizedKeysFile none\n"
        f"TrustedUserCAKeys {drivers.folder}/onboarding/bnl-sdcc/user_ca.pub\nAuthorizedPrincipalsFile {tmp_path}/principals\n"
        "PasswordAuthentication no\nKbdInteractiveAuthentication no\nPermitRootLogin prohibit-password\n"
    )
    process = subprocess.Popen([program, "-D", "-e", "-f", str(tmp_path / "sshd_config")], stderr=subprocess.DEVNULL)

    def answers() -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", port)) == 0

    wait_for(answers, "sshd answers")
    yield port
    process.terminate()
    process.wait(10)


def ssh(port: int, key: Key) -> subprocess.CompletedProcess[str]:
    options = [
        "BatchMode=yes",
        "StrictHostKeyChecking=no",
        "UserKnownHostsFile=/dev/null",
        "IdentitiesOnly=yes",
        "IdentityAgent=none",
        "LogLevel=ERROR",
    ]
    argv = [
        "ssh",
        "-F",
        "none",
        *(word for option in options for word in ("-o", option)),
        "-i",
        str(key.path),
        "-p",
        str(port),
    ]
    return subprocess.run(
        [*argv, f"{getpass.getuser()}@127.0.0.1", "echo in"], capture_output=True, text=True, timeout=30
    )


def test_sshd_accepts_the_certificate_of_its_site_only(
    services: Services, drivers: Server, sshd: int, tmp_path: Path
) -> None:
    for number, (site, expected) in enumerate((("bnl-sdcc", 0), ("ornl-cades", 255))):
        folder = tmp_path / str(number)
        folder.mkdir()
        key = make_key(folder)
        key.certified(certificate(services, drivers, site, key.public).json()["certificate"])
        done = ssh(sshd, key)
        assert done.returncode == expected, done.stderr
        assert done.stdout.strip() == ("in" if expected == 0 else "")


# ---- the keeper, and the hub's death ------------------------------------------------------------------------------


def needed(services: Services, server: Server, *runs: str) -> httpx.Response:
    return httpx.put(f"{services.keeper}/needed", headers=server.headers, json={"runs": list(runs)})


def test_servers_outlive_the_hub(hub: Hub, drivers: Server) -> None:
    pid = drivers.pid
    hub.restart(signal.SIGKILL)
    assert drivers.alive() and drivers.pid == pid
    assert drivers.browser.get("/user/dcde1000001/").text == "stub"
    assert httpx.get(f"{hub.api}/user", headers=drivers.headers).json()["name"] == "dcde1000001"


def test_keeper_brings_a_needed_server_back(hub: Hub, services: Services, drivers: Server) -> None:
    assert needed(services, drivers, "r7").status_code == 204
    first = drivers.pid
    os.kill(first, signal.SIGKILL)
    wait_for(lambda: drivers.pid != first and drivers.alive(), "the server is back", 90)
    wait_for(lambda: drivers.browser.get("/user/dcde1000001/").text == "stub", "it answers", 30)
    assert needed(services, drivers).status_code == 204


def test_keeper_leaves_servers_that_nobody_needs(hub: Hub, services: Services, mtanaka: Server) -> None:
    assert needed(services, mtanaka).status_code == 204
    os.kill(mtanaka.pid, signal.SIGKILL)
    rounds = hub.workshop.log("keeper").count("starting the server")
    time.sleep(2)  # several rounds of the keeper: that nothing happens cannot be waited for
    assert hub.workshop.log("keeper").count("starting the server") == rounds


def test_keeper_stops_the_server_of_a_person_who_left_and_does_not_bring_it_back(
    hub: Hub, services: Services, drivers: Server
) -> None:
    assert needed(services, drivers, "r8").status_code == 204
    hub.workshop.people(PEOPLE["drivers"] | {"status": "suspended"})
    wait_for(lambda: not drivers.alive(), "the server is stopped", 30)
    time.sleep(1.5)  # several rounds of the keeper
    assert not drivers.alive()
    hub.workshop.people(*PEOPLE.values())
    wait_for(drivers.alive, "back, now that the membership is in force again", 60)
    needed(services, drivers)


@pytest.mark.parametrize("body", [{"runs": "r7"}, {"runs": [1]}, {"runs": ["x" * 65]}, {}, []])
def test_keeper_refuses_nonsense(services: Services, drivers: Server, body: object) -> None:
    assert httpx.put(f"{services.keeper}/needed", headers=drivers.headers, json=body).status_code == 422


def test_logs_hold_no_token(hub: Hub, drivers: Server) -> None:
    for name in ("hub", "broker", "keeper", "signer"):
        text = hub.workshop.log(name)
        assert drivers.environment["JUPYTERHUB_API_TOKEN"] not in text
        assert "PRIVATE KEY" not in text
