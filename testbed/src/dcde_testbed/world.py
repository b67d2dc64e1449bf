"""The world as tests use it: bring one up, run things in it, read its firewalls' counters, break parts of it."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from dcde_testbed import outside
from dcde_testbed.guest import Guest, load
from dcde_testbed.layout import sites_with
from dcde_testbed.outside import Options, WorldError

__all__ = ["World", "WorldError"]


class World:
    """One world with its state folder and port; `with World(...) as world:` brings it up and takes it down.

    `guest` is a guest or the path of its file, `sample_data` a folder with `movies/` in it (None: no movies),
    `site_options` are as on the command line. `report` gets each stage as `up` does it.
    """

    def __init__(
        self,
        state: Path,
        port: int,
        *,
        environments: Path = Path("build/env"),
        guest: Guest | Path | None = None,
        site_options: Sequence[str] = (),
        sample_data: Path | None = None,
        report: Callable[[dict[str, Any]], None] = lambda message: None,
    ) -> None:
        self.state = state.resolve()
        self.port = port
        self.stages: list[dict[str, Any]] = []
        self._report = report
        self._guest = guest
        self._options = Options(self.state, port, environments, Guest(), sites_with(site_options), sample_data)

    def __enter__(self) -> Self:
        self.up()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.down()

    def up(self) -> float:
        """Bring it up and return the seconds it took. Raises WorldError; then nothing is left running."""
        guest = load(self._guest) if isinstance(self._guest, Path) else self._guest or Guest()
        self.stages = []
        outside.up(replace(self._options, guest=guest), self._tell)
        return float(self.stages[-1]["seconds"])

    def _tell(self, message: dict[str, Any]) -> None:
        self.stages.append(message)
        self._report(message)

    def down(self) -> None:
        """End it in order; what lasts stays in the state folder."""
        outside.down(self.state)

    @property
    def is_up(self) -> bool:
        return outside.is_up(self.state)

    @property
    def facts(self) -> dict[str, Any]:
        """`world.json` as the guest reads it."""
        read: dict[str, Any] = json.loads((self.state / "world.json").read_text())
        return read

    @property
    def inside(self) -> Path:
        """What the world sees as /var/lib/dcde."""
        return self.state / "inside"

    @property
    def ca(self) -> Path:
        """The certificate authority of the front door."""
        return self.state / "door" / "ca.crt"

    def status(self) -> dict[str, Any]:
        """Services, links and whether everything came up."""
        return outside.ask(self.state, op="status")

    def argv(self, site: str, node: str | None, argv: Sequence[str], *, user: str | None = None) -> list[str]:
        """The command line that runs `argv` at a machine; site "hub" (node None) is the hub's room."""
        return outside.entering(self.state, f"{site}/{node}" if node else site, [str(each) for each in argv], user)

    def run(
        self,
        site: str,
        node: str | None,
        argv: Sequence[str],
        *,
        user: str | None = None,
        check: bool = True,
        timeout: float = 60,
        text: str | None = None,
    ) -> subprocess.CompletedProcess[str]:
        """Run a program at a machine of a site as its root, or as `user` in its home. Output is captured.

        With `check` a failure raises AssertionError with everything the program said.
        """
        command = self.argv(site, node, argv, user=user)
        feed: dict[str, Any] = {"stdin": subprocess.DEVNULL} if text is None else {"input": text}
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=timeout, env=outside.environment(), **feed
        )
        if check and done.returncode != 0:
            raise AssertionError(
                f"{list(argv)} at {site}/{node} ended with {done.returncode}\n{done.stdout}\n{done.stderr}"
            )
        return done

    def counters(self, site: str, node: str = "login") -> dict[str, int]:
        """Packets by named counter of a machine's firewall; site "hub" is the people's side."""
        shown = self.run(site, None if site == "hub" else node, ["nft", "-j", "list", "counters"])
        items = json.loads(shown.stdout)["nftables"]
        return {item["counter"]["name"]: item["counter"]["packets"] for item in items if "counter" in item}

    def stop_node(self, site: str, node: str) -> None:
        """Let a machine die as when its power goes."""
        outside.ask(self.state, op="node", site=site, machine=node, do="stop")

    def start_node(self, site: str, node: str) -> None:
        outside.ask(self.state, op="node", site=site, machine=node, do="start")

    def cut(self, site: str) -> None:
        """Let all traffic between the site and the wide area vanish silently."""
        outside.ask(self.state, op="link", site=site, do="cut")

    def mend(self, site: str) -> None:
        outside.ask(self.state, op="link", site=site, do="mend")

    def service(self, name: str, do: str) -> None:
        """stop, start, kill (and leave it) or crash (it is started again) one service."""
        outside.ask(self.state, op="service", name=name, do=do)
