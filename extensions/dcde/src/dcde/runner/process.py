"""One runner: its parts put together, started, and ended."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from contextlib import AsyncExitStack
from pathlib import Path

from dcde_models.sites import SiteDescriptor
from pydantic import BaseModel, ConfigDict, SecretStr, ValidationError

from dcde.credentials import Credentials
from dcde.data.ledger import Ledger
from dcde.data.movement import Mover
from dcde.errors import InvalidParameter
from dcde.jobs.durable import DurableJobs
from dcde.link.link import Link
from dcde.runner.engine import Engine
from dcde.runner.events import Events
from dcde.runner.functions import FunctionsDesk
from dcde.runner.inputs import ProjectFiles
from dcde.runner.keeper import Keeper
from dcde.runner.operations import Operations
from dcde.runner.planning import Planner
from dcde.runner.records import PictureStore
from dcde.runner.service import Service
from dcde.runner.sites import MakeLink, SiteBook
from dcde.runner.state import Lock, private_folder
from dcde.runner.transfers import TransferDesk

log = logging.getLogger(__name__)


class FirstLine(BaseModel):
    """What the runner is told on its standard input, as one line of JSON: never in its environment or arguments."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    broker_url: str
    keeper_url: str = ""
    token: SecretStr

    @classmethod
    def read(cls, line: str | bytes) -> FirstLine:
        """Return what the line says; InvalidParameter, without the line's content, when it is not as it must be."""
        try:
            return cls.model_validate_json(line)
        except ValidationError as error:
            fields = ", ".join(sorted({".".join(map(str, e["loc"])) or "line" for e in error.errors()}))
            raise InvalidParameter(
                f"the first line of standard input is wrong ({fields})",
                where="stdin",
                remedy='Give one line: {"broker_url": ..., "keeper_url": ..., "token": ...}.',
            ) from None


class Runner:
    """A person's one process that does the work.

    Args:
        first_line: Where the broker and the keeper are, and the token for both.
        state: The private folder of what must last.
        runtime: The private folder of the socket.
        make_link: Makes links; by default real ones.
        make_jobs: Makes what follows the durable jobs over a link.

    Attributes:
        sites: The sites as it sees them, once it is started.
    """

    def __init__(
        self,
        first_line: FirstLine,
        state: Path,
        runtime: Path,
        *,
        make_link: MakeLink | None = None,
        make_jobs: Callable[[Link], DurableJobs] = DurableJobs,
    ) -> None:
        self._first_line = first_line
        self._state = state
        self._runtime = runtime
        self._make_link = make_link
        self._make_jobs = make_jobs
        self._stack = AsyncExitStack()
        self.sites: SiteBook | None = None

    @property
    def socket(self) -> Path:
        """Where it listens."""
        return self._runtime / "runner.sock"

    async def start(self) -> None:
        """Take the lock, open the ledger, begin to listen, and go on with every unfinished run.

        Raises:
            RunnerBusy: Another runner of the person is at work; nothing of it was touched.
            RunnerError: A folder is not private.
            DatabaseTrouble: The ledger cannot be used.
        """
        async with AsyncExitStack() as stack:
            state, runtime = private_folder(self._state), private_folder(self._runtime)
            stack.callback(Lock(state / "runner.lock").release)
            stack.callback(Lock(runtime / "runner.lock").release)
            await self._build(stack, state)
            self._stack = stack.pop_all()
        log.info("the runner is ready")

    async def _build(self, stack: AsyncExitStack, state: Path) -> None:
        token = self._first_line.token.get_secret_value()
        events = Events()
        ledger = Ledger(state / "ledger.sqlite")
        await ledger.open()
        stack.callback(ledger.close)
        credentials = Credentials(self._first_line.broker_url, token)
        links = private_folder(state / "links")

        def real_link(site: SiteDescriptor) -> Link:
            return Link(site, credentials, state_dir=links)

        sites = self.sites = SiteBook(credentials, self._make_link or real_link, state / "sites.json", events)
        mover = Mover(sites.link)
        keeper = Keeper(self._first_line.keeper_url, token)
        planner = Planner(state / "templates", sites)
        files = ProjectFiles(ledger, sites, mover)
        pictures = PictureStore(state / "pictures")
        engine = Engine(ledger, sites, files, planner, pictures, events, keeper, state / "parsl", self._make_jobs)
        transfers = TransferDesk(ledger, sites, mover, events)
        functions = FunctionsDesk(sites)
        operations = Operations(sites, planner, engine, transfers, ledger, functions)
        service = Service(self.socket, operations.table(), events, operations.snapshot)
        for part in (sites, keeper, engine, transfers, functions):
            stack.push_async_callback(part.close)
        await sites.start()
        await service.start()
        stack.push_async_callback(service.close)
        await engine.start()
        await transfers.start()
        keeper.start()
        measuring = asyncio.create_task(sites.keep_measuring(), name="figures")
        stack.callback(measuring.cancel)

    async def close(self) -> None:
        """Stop listening and following. No job at any site is touched."""
        await self._stack.aclose()
        log.info("the runner has ended")
