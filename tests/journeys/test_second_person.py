"""A second person, logged in at the same time, sees and touches nothing of the first one's."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from typing import Any

import pytest
from dcde_testbed.outside import environment
from playwright.sync_api import Browser, Page

from tests.browser import log_in, open_lab, visitor
from tests.journeys.conftest import ACCOUNTS, SITES, Hub, Room, until

COMMON_SITE = "ornl-cades"
MACHINES = ("login", "n1", "n2", "dtn")

KNOCK = """
import asyncio, json, socket, sys
from concurrent.futures import ThreadPoolExecutor
import asyncssh

PATHS = ["/", "/hub/api/users", "/hub/api/user", "/hub/home", "/hub/admin", "/api/routes", "/services/broker/me",
         "/services/broker/sites", "/services/keeper/needed", "/user/dcde1000001/", "/user/dcde1000001/api/contents",
         "/user/dcde1000001/api/kernels", "/user/dcde1000001/dcde/status"]

def ask(host, port, text):
    with socket.create_connection((host, port), 5) as wire:
        if text:
            wire.sendall(text.encode())
        try:
            return wire.recv(400).decode("latin-1")
        except TimeoutError:
            return "said nothing"

async def ssh(host, port, user):
    try:
        async with asyncssh.connect(host, port, username=user, known_hosts=None, client_keys=[], password="demo",
                                    agent_path=None, config=None, login_timeout=10):
            return "let in"
    except asyncssh.PermissionDenied:
        return "denied"

def knock(host, port):
    try:
        first = ask(host, port, "")
    except OSError as error:
        return type(error).__name__
    if first.startswith("SSH-2.0"):
        return {user: asyncio.run(ssh(host, port, user)) for user in USERS}
    said = {}
    for path in PATHS:
        try:
            line = ask(host, port, f"GET {path} HTTP/1.1\\r\\nHost: {host}\\r\\nConnection: close\\r\\n\\r\\n")
        except OSError as error:
            line = type(error).__name__
        head = line.split("\\r\\n")
        to = [each.split(": ", 1)[1] for each in head if each.lower().startswith("location: ")]
        said[path] = " ".join([*head[0].split()[1:2], *to])
    return said

USERS = json.loads(sys.argv[2])
places = json.loads(sys.argv[1])
with ThreadPoolExecutor(32) as many:
    said = many.map(lambda place: knock(*place), places)
    print(json.dumps({f"{host}:{port}": each for (host, port), each in zip(places, said)}))
"""

BROKER = """
import json, sys, urllib.request, urllib.error
token, site, key = sys.argv[1:]
body = json.dumps({"site": site, "public_key": key}).encode()
request = urllib.request.Request("http://10.79.0.1:8082/services/broker/certificate", data=body,
    headers={"Authorization": f"token {token}", "Content-Type": "application/json"})
try:
    with urllib.request.urlopen(request, timeout=10) as answer:
        print(json.dumps([answer.status, json.load(answer)]))
except urllib.error.HTTPError as error:
    print(json.dumps([error.code, json.load(error)]))
"""

pytestmark = pytest.mark.timeout(240)


@pytest.fixture(scope="module")
def tanaka(rivers: Page, hub: Hub, browser: Browser) -> Iterator[Page]:
    """A page of Mei Tanaka, logged in while David Rivers is."""
    with visitor(browser) as page:
        log_in(page, hub.url, "mtanaka@ornl.example")
        open_lab(page)
        yield page


@pytest.fixture
def hers(tanaka: Page, hub: Hub) -> Room:
    return Room(hub.world, 51002)


@pytest.fixture(scope="module")
def his_run(rivers: Page, hub: Hub) -> dict[str, Any]:
    """A finished run of David Rivers', with files at all three sites."""
    room = Room(hub.world, 51001)
    return room.wait_for_run(room.dcde("launch", "three-steps")["id"], 120)


# ---- her own account and room -------------------------------------------------------------------------------------


def test_her_room_is_her_own(hers: Room, room: Room) -> None:
    room.run("sh", "-c", "echo mine > /tmp/his-file; mkdir -p ~/private; echo secret > ~/private/note")
    assert hers.run("id", "-u").stdout.strip() == "51002"
    assert hers.run("id", "-Gn").stdout.split() == ["dcde1000002"]
    assert hers.run("stat", "-c", "%a %u", "/home/dcde1000002").stdout.split() == ["700", "51002"]
    assert hers.run("ls", "/home").stdout.split() == ["dcde1000002"]
    assert hers.run("cat", "/home/dcde1000001/private/note", check=False).returncode != 0
    assert "his-file" not in hers.run("ls", "-A", "/tmp", "/var/tmp", "/dev/shm").stdout
    mounts = [line.split() for line in hers.run("cat", "/proc/mounts").stdout.splitlines()]
    (*_, proc) = [options for _, place, _, options, *_ in mounts if place == "/proc"]
    assert "hidepid=invisible" in proc or "hidepid=2" in proc
    owners = hers.run("sh", "-c", "stat -c %u /proc/[0-9]*").stdout.split()
    assert set(owners) == {"51002"}
    assert "dcde1000001" not in hers.run("ps", "-eo", "user:20,args").stdout
    status = hers.run("cat", "/proc/self/status").stdout
    assert "NoNewPrivs:\t1" in status


def test_each_home_is_closed_where_the_homes_lie(hub: Hub, hers: Room) -> None:
    """Also a process of hers that somehow got out of her room could not read his home."""
    outside = ["setpriv", "--reuid=51002", "--regid=51002", "--clear-groups", "--", "ls", "/home/dcde1000001"]
    assert hub.world.run("hub", None, outside, check=False).returncode != 0
    inside = hub.world.run("hub", None, ["stat", "-c", "%a %u %n", "/home/dcde1000001", "/home/dcde1000002"]).stdout
    assert inside.splitlines() == ["700 51001 /home/dcde1000001", "700 51002 /home/dcde1000002"]


# ---- his server, files, runner and runs ---------------------------------------------------------------------------


def test_her_browser_does_not_open_his_server(tanaka: Page, hub: Hub) -> None:
    tab = tanaka.context.new_page()

    def status(path: str) -> int:
        answer = tab.goto(f"{hub.url}{path}")  # with her cookies, and through every redirect
        assert answer is not None
        return answer.status

    own = ("lab", "api/contents", "api/kernels", "dcde/status")
    assert [status(f"user/dcde1000002/{path}") for path in own] == [200] * len(own)
    for path in (*own, "api/sessions", "files/private/note", "terminals/1"):
        assert status(f"user/dcde1000001/{path}") in (403, 404), path
        assert tab.locator(".jp-Launcher").count() == 0
        assert "secret" not in tab.content()
    for path in ("hub/api/users", "hub/api/users/dcde1000001", "hub/api/users/dcde1000001/server", "hub/admin"):
        assert status(path) in (403, 404, 405), path
    tab.close()


def test_his_runner_and_his_runs_are_not_hers(hers: Room, room: Room, his_run: dict[str, Any]) -> None:
    assert room.dcde("runs")
    assert hers.dcde("runs") == []
    assert hers.dcde("projects") == []
    assert hers.run("dcde", "show", his_run["id"], check=False).returncode == 2
    assert hers.run("ls", "/tmp/.dcde-51001", check=False).returncode != 0
    sockets = hers.run("ss", "-xlH").stdout
    assert "51001" not in sockets
    assert "@" not in sockets, "no socket without a file either"


# ---- the site that both may use -----------------------------------------------------------------------------------


def test_at_the_common_site_she_sees_none_of_his_jobs_and_files(
    hub: Hub, hers: Room, room: Room, his_run: dict[str, Any]
) -> None:
    world = hub.world
    submit = ["sbatch", "--parsable", "--output=/dev/null", "--wrap=sleep 300", "--job-name=his"]
    job = world.run(COMMON_SITE, "login", submit, user="d7c").stdout.strip()
    try:
        seen = ["squeue", "-h", "-j", job, "-o", "%u %T"]
        until(lambda: "d7c" in world.run(COMMON_SITE, "login", seen, user="d7c").stdout, 20, "his job")
        for argv in (["squeue", "-h", "-t", "all"], ["scontrol", "-o", "show", "jobs"]):
            assert "his" not in world.run(COMMON_SITE, "login", argv, user="mt9", check=False).stdout
            assert "d7c" not in world.run(COMMON_SITE, "login", argv, user="mt9", check=False).stdout
        (site,) = [each for each in hers.dcde("sites") if each["name"] == COMMON_SITE]
        assert (site["queue"]["mine_running"], site["queue"]["mine_pending"]) == (0, 0)
        stopped = world.run(COMMON_SITE, "login", ["scancel", job], user="mt9", check=False)
        assert stopped.returncode != 0 or "d7c RUNNING" in world.run(COMMON_SITE, "login", seen).stdout
        assert world.run(COMMON_SITE, "login", seen).stdout.split()[0] == "d7c"
    finally:
        world.run(COMMON_SITE, "login", ["scancel", job])
    his = f"{hub.storage(COMMON_SITE)}"
    for place in (his, f"{his}/projects/{his_run['project']}", "/home/d7c", "/home/d7c/.dcde/jobs"):
        shut = world.run(COMMON_SITE, "login", ["ls", place], user="mt9", check=False)
        assert shut.returncode != 0 and "Permission denied" in shut.stderr, place
    for path in ("../d7c", f"{his}/projects"):
        assert hers.run("dcde", "ls", f"ornl:{path}", check=False).returncode == 2


def test_no_certificate_for_another_site(hub: Hub, hers: Room) -> None:
    (pid, *_) = hers.pids("jupyterhub.singleuser")
    environment = hub.world.run("hub", None, ["cat", f"/proc/{pid}/environ"]).stdout.split("\0")
    (token,) = [line.split("=", 1)[1] for line in environment if line.startswith("JUPYTERHUB_API_TOKEN=")]
    make = "import asyncssh; print(asyncssh.generate_private_key('ssh-ed25519').export_public_key().decode())"
    key = hers.run("python", "-c", make).stdout.strip()

    def ask(site: str) -> Any:
        return json.loads(hers.run("python", "-c", BROKER, token, site, key).stdout)

    status, own = ask(COMMON_SITE)
    assert (status, own["account"]) == (200, "mt9")
    for site in set(SITES) - {COMMON_SITE}:
        status, answer = ask(site)
        assert status == 403
        assert "groups" in answer["error"]["message"] and answer["error"]["remedy"]
        assert "certificate" not in answer


# ---- every listening socket of the world --------------------------------------------------------------------------


def listeners(hub: Hub) -> dict[str, set[tuple[str, int]]]:
    """Return every address and port on which anything listens, by machine, as the world's root sees it."""
    world = hub.world
    rooms: list[tuple[str, list[str]]] = [("hub", world.argv("hub", None, []))]
    rooms += [(f"{site}/{machine}", world.argv(site, machine, [])) for site in SITES for machine in MACHINES]
    for person in (51001, 51002):
        (pid, *_) = Room(world, person).pids("jupyterhub.singleuser")
        rooms.append((f"room {person}", world.argv("hub", None, ["nsenter", "-t", str(pid), "-n", "--"])))
    found: dict[str, set[tuple[str, int]]] = {}
    for name, enter in rooms:
        said = inside(enter, "ss", "-ltnH"), inside(enter, "ip", "-j", "-4", "address")
        own = {a["local"] for link in json.loads(said[1]) for a in link.get("addr_info", [])}
        found[name] = set()
        for line in said[0].splitlines():
            address, _, port = line.split()[3].rpartition(":")
            here = own if address in {"0.0.0.0", "*", "[::]"} else {address.split("%")[0]}
            found[name] |= {(each, int(port)) for each in here if ":" not in each}
    return found


def inside(enter: list[str], *argv: str) -> str:
    done = subprocess.run([*enter, *argv], capture_output=True, text=True, timeout=30, env=environment())
    assert done.returncode == 0, (enter, argv, done.stderr)
    return done.stdout


def test_every_listening_socket_is_out_of_reach_or_asks_who_she_is(hub: Hub, hers: Room, room: Room) -> None:
    everything = listeners(hub)
    for machine in ("hub", "room 51001", *(f"{site}/login" for site in SITES)):
        assert everything[machine], machine
    targets = sorted(set().union(*everything.values()))
    users = [*ACCOUNTS.values(), "mt9", "root"]
    arguments = [json.dumps(targets), json.dumps(users)]
    answers = json.loads(hers.run("python", "-c", KNOCK, *arguments, timeout=200).stdout)
    assert len(answers) == len(targets) > 20
    ssh = {place for place, said in answers.items() if isinstance(said, dict) and set(said) == set(users)}
    assert ssh == {"10.77.0.11:22", "10.77.0.12:22", "10.77.0.13:2222"}
    for place in ssh:
        assert set(answers[place].values()) == {"denied"}, place
    web = {place: said for place, said in answers.items() if isinstance(said, dict) and place not in ssh}
    assert set(web) == {"10.79.0.1:8081", "10.79.0.1:8082", "10.79.0.1:8083", "10.79.1.2:8888"}
    for place, said in web.items():
        for path, answer in said.items():
            status, _, to = answer.partition(" ")
            asks = status in {"401", "403", "404", "405"} or (status == "302" and asks_for_login(to))
            assert asks, (place, path, answer)
    silent = {said for said in answers.values() if isinstance(said, str)}
    assert silent <= {"ConnectionRefusedError", "TimeoutError", "OSError", "ConnectionResetError"}


def asks_for_login(to: str) -> bool:
    """Whether a redirect leads to where one says who one is."""
    return any(place in to for place in ("/hub/login", "/hub/api/oauth2/authorize", "/hub/", "/user/dcde1000002/login"))
