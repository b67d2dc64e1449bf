"""The table of all operations: what each takes, and what carries it out."""

from __future__ import annotations

import base64
from typing import Any

from dcde_models import Need
from dcde_models.capabilities import Action

from dcde.data.ledger import Ledger
from dcde.errors import UnknownName
from dcde.runner import arguments as a
from dcde.runner.engine import Engine
from dcde.runner.events import Event, as_event
from dcde.runner.functions import FunctionsDesk
from dcde.runner.planning import Planner
from dcde.runner.service import Operation
from dcde.runner.sites import SiteBook
from dcde.runner.transfers import TransferDesk
from dcde.runner.views import project_view


class Operations:
    """Everything that clients can ask for.

    Args:
        sites, planner, engine, transfers, ledger, functions: The parts of the runner that do it.
    """

    def __init__(
        self,
        sites: SiteBook,
        planner: Planner,
        engine: Engine,
        transfers: TransferDesk,
        ledger: Ledger,
        functions: FunctionsDesk,
    ) -> None:
        self._sites = sites
        self._planner = planner
        self._engine = engine
        self._transfers = transfers
        self._ledger = ledger
        self._functions = functions

    def table(self) -> dict[str, Operation]:
        """Return the operations by name."""
        return {
            "whoami": Operation(a.Arguments, self._whoami),
            "sites.list": Operation(a.Arguments, self._sites_list),
            "files.list": Operation(a.FilesList, self._files_list),
            "files.mkdir": Operation(a.FilesMkdir, self._files_mkdir),
            "files.remove": Operation(a.FilesRemove, self._files_remove),
            "files.copy": Operation(a.FilesCopy, self._files_copy),
            "transfers.list": Operation(a.Arguments, self._transfers_list),
            "transfers.cancel": Operation(a.TransferId, self._transfers_cancel),
            "projects.list": Operation(a.Arguments, self._projects_list),
            "projects.show": Operation(a.ProjectArguments, self._projects_show),
            "projects.create": Operation(a.ProjectArguments, self._projects_create),
            "templates.list": Operation(a.Arguments, self._templates_list),
            "templates.show": Operation(a.TemplateArguments, self._templates_show),
            "runs.launch": Operation(a.Launch, self._engine.launch),
            "runs.list": Operation(a.Arguments, self._runs_list),
            "runs.show": Operation(a.RunArguments, self._runs_show),
            "runs.log": Operation(a.RunLog, self._runs_log),
            "runs.picture": Operation(a.RunPicture, self._runs_picture),
            "runs.cancel": Operation(a.RunArguments, self._runs_cancel),
            "runs.resume": Operation(a.RunArguments, self._runs_resume),
            "functions.start": Operation(a.FunctionsStart, self._functions.start),
            "functions.status": Operation(a.FunctionsStatus, self._functions.status),
            "functions.stop": Operation(a.FunctionsStop, self._functions.stop),
        }

    def snapshot(self, run: str | None) -> list[Event]:
        """Return how things are now, for a watcher that begins; raises UnknownName when there is no such run."""
        if run is not None:
            return [as_event("run", self._engine.view(run))[1]]
        runs = [as_event("run", view)[1] for view in self._engine.views()]
        sites = [as_event("site", view)[1] for view in self._sites.views()]
        transfers = [as_event("transfer", view)[1] for view in self._transfers.views()]
        return [*sites, *runs, *transfers]

    async def _whoami(self, _: a.Arguments) -> dict[str, Any]:
        me = (await self._sites.knowledge()).me
        names = ("dcde_id", "name", "email", "institution", "groups", "policies", "trainings")
        return {name: me.get(name) for name in names}

    async def _sites_list(self, _: a.Arguments) -> list[dict[str, Any]]:
        return await self._sites.fresh_views()

    async def _site_for(self, name: str, action: Action) -> str:
        """Return the full name of a site at which the person may do something."""
        knowledge = await self._sites.knowledge()
        site = knowledge.site(name).name
        knowledge.require(site, Need(action))
        return site

    async def _files_list(self, args: a.FilesList) -> dict[str, Any]:
        site = await self._site_for(args.site, "transfer.read")
        link = await self._sites.link_up(site)
        answer = await link.call("list", path=args.path, limit=args.limit)
        return {"site": site, "path": args.path, "entries": answer["entries"], "truncated": answer["truncated"]}

    async def _files_mkdir(self, args: a.FilesMkdir) -> dict[str, Any]:
        site = await self._site_for(args.site, "transfer.write")
        await (await self._sites.link_up(site)).call("mkdir", path=args.path, parents=False)
        return {"site": site, "path": args.path}

    async def _files_remove(self, args: a.FilesRemove) -> dict[str, Any]:
        site = await self._site_for(args.site, "transfer.write")
        await (await self._sites.link_up(site)).call("remove", path=args.path, recursive=args.recursive)
        return {"site": site, "path": args.path}

    async def _files_copy(self, args: a.FilesCopy) -> dict[str, Any]:
        return await self._transfers.copy(args.source, args.target)

    async def _transfers_list(self, _: a.Arguments) -> list[dict[str, Any]]:
        return self._transfers.views()

    async def _transfers_cancel(self, args: a.TransferId) -> dict[str, Any]:
        return await self._transfers.cancel(args.id)

    async def _projects_list(self, _: a.Arguments) -> list[dict[str, Any]]:
        return await self._ledger.projects()

    async def _projects_show(self, args: a.ProjectArguments) -> dict[str, Any]:
        for project in await self._ledger.projects():
            if project["name"] == args.name:
                return project_view(project, await self._ledger.replicas(args.name))
        raise UnknownName(f"there is no project {args.name}", where=args.name, remedy="`dcde projects` lists them all.")

    async def _projects_create(self, args: a.ProjectArguments) -> dict[str, Any]:
        await self._ledger.create_project(args.name)
        return await self._projects_show(args)

    async def _templates_list(self, _: a.Arguments) -> list[dict[str, Any]]:
        return await self._planner.templates()

    async def _templates_show(self, args: a.TemplateArguments) -> dict[str, Any]:
        return await self._planner.show(args.name)

    async def _runs_list(self, _: a.Arguments) -> list[dict[str, Any]]:
        return self._engine.views()

    async def _runs_show(self, args: a.RunArguments) -> dict[str, Any]:
        return self._engine.view(args.run)

    async def _runs_log(self, args: a.RunLog) -> dict[str, Any]:
        return await self._engine.log(args.run, args.step, args.stream, args.offset)

    async def _runs_picture(self, args: a.RunPicture) -> dict[str, Any]:
        data, title = await self._engine.picture(args.run, args.step, args.name)
        return {"png_base64": base64.b64encode(data).decode("ascii"), "title": title}

    async def _runs_cancel(self, args: a.RunArguments) -> dict[str, Any]:
        return await self._engine.cancel(args.run)

    async def _runs_resume(self, args: a.RunArguments) -> dict[str, Any]:
        return await self._engine.resume(args.run)
