"""The Jupyter Server extension: what it serves, and the runner that it keeps at work."""

from __future__ import annotations

import os
from typing import Any

from dcde.kernel.keeping import WarmProcess
from jupyter_server.extension.application import ExtensionApp
from traitlets import Bool, List, Unicode

from .fan import EventFan
from .handlers import ApiHandler, EventsHandler, PictureHandler, StatusHandler
from .hub_token import hide_process, take_token
from .relay import Relay
from .supervisor import RUNNER, RunnerSupervisor


class DcdeExtension(ExtensionApp):
    """Connects the panel in the browser with the person's runner."""

    name = "dcde_lab"
    load_other_extensions = True

    broker_url = Unicode(
        help="Address of the hub's broker; empty where there is no DCDE hub. Default: $DCDE_BROKER_URL."
    ).tag(config=True)
    keeper_url = Unicode(help="Address of the hub's keeper. Default: $DCDE_KEEPER_URL.").tag(config=True)
    runner_command = List(Unicode(), list(RUNNER), help="The command that starts the runner.").tag(config=True)
    warm_kernels = Bool(True, help="Keep a process from which DCDE kernels are forked, so that they start fast.").tag(
        config=True
    )

    relay: Relay | None = None
    fan: EventFan | None = None
    supervisor: RunnerSupervisor | None = None
    warm: WarmProcess | None = None

    def initialize_settings(self) -> None:
        """Take the token out of the environment before anything can inherit it, and prepare the way to the runner."""
        token = take_token(self.serverapp)
        if token:
            hide_process()
        broker_url = self.broker_url or os.environ.get("DCDE_BROKER_URL", "")
        keeper_url = self.keeper_url or os.environ.get("DCDE_KEEPER_URL", "")
        if not broker_url:
            self.log.info("DCDE: this server is not part of a DCDE hub; the panel only says so")
            return
        self.relay = Relay()
        self.fan = EventFan(self.relay, self.log)
        self.supervisor = RunnerSupervisor(
            relay=self.relay,
            first_line={"broker_url": broker_url, "keeper_url": keeper_url, "token": token},
            log=self.log,
            command=list(self.runner_command),
        )

    def initialize_handlers(self) -> None:
        """Add the routes of the panel."""
        self.handlers.extend(
            [
                (r"/dcde/api/(?P<op>[a-z.]{1,40})", ApiHandler),
                (r"/dcde/status", StatusHandler),
                (r"/dcde/picture", PictureHandler),
                (r"/dcde/events", EventsHandler),
            ]
        )

    async def _start_jupyter_server_extension(self, serverapp: Any) -> None:
        """Start the runner and the warm process as soon as the server's loop is at work."""
        del serverapp
        if self.supervisor is not None:
            self.supervisor.start()
            if self.warm_kernels:
                self.warm = WarmProcess(self.log)
                self.warm.start()

    async def stop_extension(self) -> None:
        """End the runner with the server. Jobs at the sites go on; the next runner adopts them."""
        if self.fan is not None:
            await self.fan.close()
        if self.supervisor is not None:
            await self.supervisor.stop()
        if self.warm is not None:
            await self.warm.stop()

    def status(self) -> dict[str, Any]:
        """Return what the panel needs to know before it asks for anything else."""
        runner = self.supervisor.to_json() if self.supervisor else {"state": "away", "reason": ""}
        return {"connected": self.relay is not None, "runner": runner}
