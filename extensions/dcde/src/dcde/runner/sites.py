"""The sites as the runner sees them: what the broker says of them, the links to them, and their live figures."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from dcde_models import Need, SiteDescriptor
from dcde_models.capabilities import ACTIONS

from dcde.credentials import Credentials
from dcde.errors import BrokerUnreachable, DcdeError, LinkLost, LinkRefused
from dcde.link.link import Link
from dcde.link.state import LinkState
from dcde.runner.events import Events
from dcde.runner.knowledge import Knowledge, known, load, save

log = logging.getLogger(__name__)

REFRESH = 60.0
"""Seconds between questions to the broker."""

FRESH_ENOUGH = 15.0
"""Seconds for which figures of queue and storage are shown again without asking the site."""

FIRST_FIGURES = 3.0
"""Seconds that a list of sites waits for figures that nobody has asked for yet."""


class MakeLink(Protocol):
    """Makes a link that is not started yet."""

    def __call__(self, site: SiteDescriptor) -> Link: ...


@dataclass
class _Connection:
    """A link with what was last measured over it."""

    site: SiteDescriptor
    link: Link
    unsubscribe: Callable[[], None]
    queue: dict[str, Any] | None = None
    free: dict[str, Any] | None = None
    measured: float = 0.0
    measuring: asyncio.Task[None] | None = None


class SiteBook:
    """Knows the sites, keeps one link to each at which the person may do anything, and says how they are.

    Args:
        credentials: The way to the broker.
        make_link: Makes the link to a site.
        copy: Where the last good answer of the broker is kept.
        events: Where changes of a site are told.
    """

    def __init__(self, credentials: Credentials, make_link: MakeLink, copy: Path, events: Events) -> None:
        self._credentials = credentials
        self._make_link = make_link
        self._copy = copy
        self._events = events
        self._knowledge: Knowledge | None = None
        self._trouble: DcdeError | None = None
        self._connections: dict[str, _Connection] = {}
        self._asked = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._changes: list[Callable[[str], None]] = []

    async def start(self) -> None:
        """Use the copy that was kept, if there is one, and begin to ask the broker; returns at once."""
        self._knowledge = load(self._copy)
        if self._knowledge:
            await self._adjust_links()
        self._task = asyncio.create_task(self._keep_asking(), name="sites")

    async def close(self) -> None:
        """Stop asking and close all links. Jobs at the sites are not touched by it."""
        if self._task:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        await asyncio.gather(*(self._drop(name) for name in tuple(self._connections)), return_exceptions=True)
        await self._credentials.close()

    def on_change(self, callback: Callable[[str], None]) -> None:
        """Call `callback` with a site's name whenever its link's state or its rules change."""
        self._changes.append(callback)

    async def knowledge(self) -> Knowledge:
        """Return what the broker says, waiting for its first answer; BrokerUnreachable when there was none."""
        if self._knowledge is None:
            await self._asked.wait()
        return self.known()

    def known(self) -> Knowledge:
        """Return what the broker said last; raises BrokerUnreachable when it never answered."""
        if self._knowledge is None:
            raise self._trouble or BrokerUnreachable("the hub has not said yet which sites there are")
        return self._knowledge

    def link(self, name: str) -> Link:
        """Return the link to a site; it may be down.

        Raises:
            UnknownName: There is no such site.
            LinkRefused: The person may do nothing there; the message and the remedy say why.
        """
        site = self.known().site(name)
        connection = self._connections.get(site.name)
        if connection is None:
            _, reason, remedy = self._shut(site)
            raise LinkRefused(reason, where=site.name, remedy=remedy)
        return connection.link

    async def link_up(self, name: str, timeout: float = 15.0) -> Link:
        """Return the link to a site once it is up.

        Raises:
            LinkLost: It did not come up within `timeout` seconds.
            LinkRefused: The site or the broker refuses the connection.
        """
        link = self.link(name)
        try:
            await link.up(timeout)
        except TimeoutError as error:
            raise LinkLost(_state_sentence(self.known().site(name).title, link.state), where=name) from error
        return link

    def trouble(self, name: str) -> str | None:
        """Return one sentence on why a site cannot be used now; None when its link is up."""
        knowledge = self._knowledge
        if knowledge is None or name not in knowledge.sites:
            return f"The hub does not list the site {name} now."
        connection = self._connections.get(name)
        if connection is None:
            return self._shut(knowledge.sites[name])[1]
        if connection.link.state.name == "up":
            return None
        return _state_sentence(knowledge.sites[name].title, connection.link.state)

    def title(self, name: str) -> str:
        """Return the title of a site, or its name when the hub does not list it now."""
        knowledge = self._knowledge
        return knowledge.sites[name].title if knowledge and name in knowledge.sites else name

    async def measured(self, name: str) -> dict[str, Any] | None:
        """Return the queue of a site, measured now unless it was a moment ago; None when the site does not answer."""
        connection = self._connections.get(name)
        if connection is None or connection.link.state.name != "up":
            return None
        await self._measure(connection)
        return connection.queue

    async def fresh_views(self) -> list[dict[str, Any]]:
        """Return every site with its state, figures, rules and account."""
        await self.knowledge()
        pending = [
            asyncio.ensure_future(self._measure(c)) for c in self._connections.values() if c.link.state.name == "up"
        ]
        if pending:
            await asyncio.wait(pending, timeout=FIRST_FIGURES)
        return self.views()

    def views(self) -> list[dict[str, Any]]:
        """Return every site as it is known now, without asking anybody."""
        if self._knowledge is None:
            return []
        return [self.view(name) for name in self._knowledge.sites]

    def view(self, name: str) -> dict[str, Any]:
        """Return one site as panel and command show it."""
        knowledge = self.known()
        site = knowledge.sites[name]
        connection = self._connections.get(name)
        if connection:
            link = connection.link.state
            state, reason, remedy = str(link.name), link.reason, link.remedy
            since, host = link.since, link.login_host or None
        else:
            state, reason, remedy = self._shut(site)
            since, host = knowledge.fetched, None
        return {
            "name": name,
            "title": site.title,
            "aliases": list(site.aliases),
            "description": site.description,
            "state": state,
            "reason": reason,
            "remedy": remedy,
            "since": since,
            "account": knowledge.accounts.get(name),
            "login_host": host,
            "queue": connection.queue if connection and state == "up" else None,
            "free": connection.free if connection and state == "up" else None,
            "allocations": [{"name": a, "remaining_hours": None} for a in knowledge.allocations(name)],
            "capabilities": _capabilities(knowledge, name),
            "applications": {app: facts.version for app, facts in site.applications.items()},
        }

    def _shut(self, site: SiteDescriptor) -> tuple[str, str, str]:
        """Return state, reason and remedy of a site to which there is no link."""
        knowledge = self.known()
        if site.name not in knowledge.capabilities:
            return "unavailable", knowledge.decide(site.name, Need("submit")).reason, site.contact
        decision = knowledge.decide(site.name, Need("submit"))
        return "refused", decision.reason, decision.remedy

    async def _keep_asking(self) -> None:
        pause = 1.0
        while True:
            try:
                await self.refresh()
                pause = REFRESH
            except DcdeError as error:
                self._trouble = error
                log.warning("the broker was asked in vain: %s", error)
                pause = min(REFRESH, pause * 2)
            except Exception as error:
                self._trouble = BrokerUnreachable("the hub's answer could not be understood")
                log.exception("the broker's answer could not be used", exc_info=error)
                pause = min(REFRESH, pause * 2)
            finally:
                self._asked.set()
            # Many runners that start together shall not ask together for ever.
            await asyncio.sleep(pause * random.uniform(0.8, 1.2))  # noqa: S311  not for secrets

    async def refresh(self) -> None:
        """Ask the broker now, and open and close links as its answer says; raises when it does not answer."""
        me, answer = await asyncio.gather(self._credentials.me(), self._credentials.sites())
        before = self._knowledge
        self._knowledge = known(me, answer)
        self._trouble = None
        await self._adjust_links()
        save(self._knowledge, self._copy)
        for name in self._knowledge.sites:
            if before is None or _differs(before, self._knowledge, name):
                self._changed(name)

    async def _adjust_links(self) -> None:
        """Make links to the sites where the person may do anything, and close those to all others."""
        knowledge = self.known()
        for name, connection in tuple(self._connections.items()):
            if knowledge.sites.get(name) != connection.site or not _anything(knowledge, name):
                await self._drop(name)
        for name, site in knowledge.sites.items():
            if name not in self._connections and _anything(knowledge, name):
                await self._open(site)

    async def _open(self, site: SiteDescriptor) -> None:
        link = self._make_link(site)
        unsubscribe = link.subscribe(lambda state: self._link_changed(site.name, state))
        self._connections[site.name] = _Connection(site, link, unsubscribe)
        await link.start()

    async def _drop(self, name: str) -> None:
        connection = self._connections.pop(name)
        connection.unsubscribe()
        if connection.measuring:
            connection.measuring.cancel()
        with contextlib.suppress(DcdeError, OSError):
            await connection.link.close()

    def _link_changed(self, name: str, state: LinkState) -> None:
        log.info("the link is %s", state.name, extra={"site": name})
        connection = self._connections.get(name)
        if connection and state.name == "up":
            connection.measured = 0.0
            if self._events.watched:
                self._begin_measuring(connection)
        self._changed(name)

    def _changed(self, name: str) -> None:
        if self._knowledge and name in self._knowledge.sites:
            self._events.tell("site", self.view(name))
        for callback in self._changes:
            callback(name)

    async def _measure(self, connection: _Connection) -> None:
        """Ask a site for queue and free space, unless that was done a moment ago; all who ask share one question."""
        if time.monotonic() - connection.measured < FRESH_ENOUGH and connection.measured:
            return
        await asyncio.shield(self._begin_measuring(connection))

    def _begin_measuring(self, connection: _Connection) -> asyncio.Task[None]:
        if connection.measuring is None or connection.measuring.done():
            connection.measuring = asyncio.create_task(self._ask_figures(connection))
        return connection.measuring

    async def _ask_figures(self, connection: _Connection) -> None:
        try:
            queue, free = await asyncio.gather(
                connection.link.call("queue", timeout=20), connection.link.call("free", timeout=20)
            )
        except DcdeError as error:
            log.info("no figures: %s", error, extra={"site": connection.site.name})
            return
        connection.queue, connection.free = queue, free
        connection.measured = time.monotonic()
        self._events.tell("site", self.view(connection.site.name))

    async def keep_measuring(self) -> None:
        """While anybody watches, keep the figures fresh. Runs until it is cancelled."""
        while True:
            await asyncio.sleep(FRESH_ENOUGH)
            if self._events.watched:
                for connection in tuple(self._connections.values()):
                    if connection.link.state.name == "up":
                        self._begin_measuring(connection)


def _state_sentence(title: str, state: LinkState) -> str:
    since = time.strftime("%H:%M:%S", time.localtime(state.since))
    words = {
        "connecting": f"The connection to {title} is being made.",
        "lost": f"The connection to {title} is lost since {since}; it is tried again by itself.",
        "refused": f"{title} refuses the connection.",
    }
    return f"{words.get(state.name, f'{title} cannot be reached.')} {state.reason}".rstrip()


def _anything(knowledge: Knowledge, site: str) -> bool:
    return any(knowledge.decide(site, Need(action)).allowed for action in ACTIONS)


def _capabilities(knowledge: Knowledge, site: str) -> list[dict[str, Any]]:
    answers = []
    for action, title in ACTIONS.items():
        decision = knowledge.decide(site, Need(action))
        answers.append(
            {
                "action": action,
                "title": title,
                "allowed": decision.allowed,
                "reason": decision.reason,
                "remedy": decision.remedy,
            }
        )
    return answers


def _differs(old: Knowledge, new: Knowledge, site: str) -> bool:
    return (
        old.sites.get(site) != new.sites.get(site)
        or old.capabilities.get(site) != new.capabilities.get(site)
        or old.accounts.get(site) != new.accounts.get(site)
        or old.person != new.person
    )
