"""Logging in, finding the agent, being refused."""

from __future__ import annotations

import asyncio
import dataclasses
import os
import stat
import subprocess

import asyncssh
import pytest
from dcde.errors import BrokerUnreachable, LinkLost, LinkRefused, NotAllowed, NotFound
from dcde.link import LinkState
from link_site import FAST, SiteInTest, until


async def test_comes_up_and_answers(site: SiteInTest) -> None:
    states: list[str] = []
    link = site.make_link()
    stop = link.subscribe(lambda state: states.append(state.name))
    assert link.state.name == "connecting"
    await link.start()
    await link.up(20)
    hello = await link.call("hello")
    assert hello["uid"] == os.getuid()
    assert hello["roots"] == {"storage": str(site.storage), "records": str(site.records)}
    assert states == ["up"]
    assert link.state.login_host == "127.0.0.1"
    stop()
    await link.close()
    assert states == ["up"]


async def test_errors_say_what_failed_where(site: SiteInTest) -> None:
    link = await site.link()
    with pytest.raises(NotFound) as caught:
        await link.call("stat", path="nothing/here")
    assert caught.value.where == "test-site:nothing/here"
    with pytest.raises(Exception, match="does not know the operation"):
        await link.call("format_disk")


async def test_agent_is_sent_once_and_serves_the_next_runner(site: SiteInTest) -> None:
    first = await site.link()
    pid = (await first.call("hello"))["pid"]
    (file,) = site.nodelocal.glob("dcde-*/agent-*.pyz")
    before = file.stat()
    await first.close()
    second = await site.link()
    assert (await second.call("hello"))["pid"] == pid
    assert (file.stat().st_ino, file.stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
    assert site.agents() == [pid]


async def test_places_are_private(site: SiteInTest) -> None:
    await site.link()
    (folder,) = site.nodelocal.iterdir()
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    for path in folder.iterdir():
        assert stat.S_IMODE(path.stat().st_mode) == 0o600, path


async def test_a_damaged_agent_file_is_replaced(site: SiteInTest) -> None:
    await (await site.link()).close()
    (file,) = site.nodelocal.glob("dcde-*/agent-*.pyz")
    os.kill(site.agents()[0], 9)
    file.write_bytes(b"print('not the agent')")
    assert (await (await site.link()).call("hello"))["version"] == 1


async def test_a_squatted_name_is_passed_over(site: SiteInTest) -> None:
    await (await site.link()).close()
    (folder,) = site.nodelocal.iterdir()
    os.kill(site.agents()[0], 9)
    folder.rename(site.folder / "gone")
    (site.folder / "elsewhere").mkdir()
    folder.symlink_to(site.folder / "elsewhere")
    link = await site.link()
    await link.call("hello")
    assert not list((site.folder / "elsewhere").iterdir())
    assert (folder.parent / f"{folder.name}-1").is_dir()


@pytest.mark.skipif(os.getuid() != 0, reason="only root can act as somebody else")
async def test_another_account_gets_nothing_from_the_socket(site: SiteInTest) -> None:
    await site.link()
    (socket_path,) = site.nodelocal.glob("dcde-*/agent-*.sock")
    for path in (*socket_path.parents[:3], socket_path):
        path.chmod(0o777)  # Even if the folder were open: the peer's uid decides.
    program = (
        "import socket,sys; s=socket.socket(socket.AF_UNIX); s.connect(sys.argv[1]); s.settimeout(5)\n"
        "try: print(len(s.recv(100)))\n"
        "except ConnectionError: print(0)"
    )
    argv = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "/usr/bin/python3", "-c", program]
    done = await asyncio.to_thread(
        subprocess.run, [*argv, str(socket_path)], capture_output=True, text=True, timeout=20, check=False
    )
    assert done.stdout.strip() == "0", done.stderr


async def test_noise_of_login_shells_does_no_harm(site: SiteInTest) -> None:
    config = site.folder / "sshd_config"
    script = site.folder / "noisy"
    script.write_text(
        '#!/bin/sh\necho "Welcome to <b>the site</b>"; printf "no newline"\nexec sh -c "$SSH_ORIGINAL_COMMAND"\n'
    )
    script.chmod(0o755)
    config.write_text(config.read_text() + f"ForceCommand {script}\n")
    link = await site.link()
    assert (await link.call("free"))["total"] > 0


async def test_the_agent_leaves_when_its_lease_is_over(site: SiteInTest) -> None:
    link = await site.link(dataclasses.replace(FAST, lease=0.4))
    assert len(site.agents()) == 1
    await asyncio.sleep(1)
    assert len(site.agents()) == 1, "an agent in use stays"
    await link.close()
    await until(lambda: not site.agents())
    assert not list(site.nodelocal.glob("dcde-*/agent-*.sock"))


async def test_another_host_key_is_refused_and_nothing_is_learned(site: SiteInTest) -> None:
    other = asyncssh.generate_private_key("ssh-ed25519").export_public_key("openssh").decode().strip()
    ssh = {"hosts": ["127.0.0.1"], "port": site.wire.port, "host_keys": [other]}
    link = site.make_link(ssh=ssh)
    await link.start()
    for _ in range(2):
        with pytest.raises(LinkRefused) as caught:
            await link.up(20)
        assert "host key" in caught.value.message
        assert "Tell" in caught.value.remedy
        connections = site.wire.connections
        await until(lambda n=connections: site.wire.connections > n)
    assert link.state.name == "refused"


async def test_a_refused_certificate_is_tried_again_and_heals(site: SiteInTest) -> None:
    site.authority.principal = "dcde1000002@test-site"
    link = site.make_link()
    seen: list[LinkState] = []
    link.subscribe(seen.append)
    await link.start()
    with pytest.raises(LinkRefused) as caught:
        await link.up(20)
    assert "dcde1000002@test-site" in caught.value.message
    with pytest.raises(LinkRefused):
        await link.call("hello")
    site.authority.principal = "dcde1000001@test-site"
    link.try_now()
    await until(lambda: link.state.name == "up")
    assert [state.name for state in seen] == ["refused", "up"]


async def test_the_brokers_no_is_a_refusal_and_its_silence_is_not(site: SiteInTest) -> None:
    site.authority.error = NotAllowed("You may not.", remedy="Accept the policy.")
    link = site.make_link()
    await link.start()
    with pytest.raises(LinkRefused) as caught:
        await link.up(20)
    assert (caught.value.message, caught.value.remedy) == ("You may not.", "Accept the policy.")
    site.authority.error = BrokerUnreachable("The hub's broker does not answer.")
    await until(lambda: link.state.name == "lost")
    with pytest.raises(LinkLost, match="does not answer") as lost:
        await link.call("hello", timeout=0.3)
    assert lost.value.retry
    site.authority.error = None
    await link.up(20)


async def test_every_connection_gets_its_own_certificate(site: SiteInTest) -> None:
    link = await site.link()
    assert site.authority.issued == 1
    site.wire.reset()
    await until(lambda: site.authority.issued == 2)
    await link.up(20)


async def test_a_login_host_that_is_away_is_passed_over(site: SiteInTest) -> None:
    public = site.host_key.export_public_key("openssh").decode().strip()
    ssh = {"hosts": ["127.0.0.9", "127.0.0.1"], "port": site.wire.port, "host_keys": [public]}
    link = await site.link(ssh=ssh)
    assert link.state.login_host == "127.0.0.1"
    assert (site.state / "login-host-test-site").read_text() == "127.0.0.1"


async def test_a_site_without_python_is_refused_with_words(site: SiteInTest) -> None:
    link = site.make_link(interpreter="/usr/bin/python-that-is-not-there")
    await link.start()
    with pytest.raises(LinkRefused) as caught:
        await link.up(20)
    assert "python-that-is-not-there" in caught.value.message
    assert "3.9" in caught.value.remedy
