"""The sites as the broker knows them: one folder each, with what the site's administrators wrote.

<folder>/<site>/site.yaml            site descriptor (dcde_models.SiteDescriptor)
<folder>/<site>/capabilities.yaml    capability document (dcde_models.CapabilityDocument)
<folder>/<site>/mapfile.tsv          DCDE id, tabulator, account; `#` begins a comment
"""

from __future__ import annotations

import logging
import re
from dataclasses import dataclass
from pathlib import Path

from dcde_models import CapabilityDocument, InvalidDocument, SiteDescriptor

from dcde_hub.errors import HubError, Unknown

log = logging.getLogger("dcde.broker.sites")

Stamp = tuple[tuple[int, int, int], ...]


class SiteUnavailable(HubError):
    """What a site's administrators wrote cannot be read; trying again can help once they have mended it."""

    status = 503
    retry = True


@dataclass(frozen=True)
class Site:
    """One site, as its three files say."""

    descriptor: SiteDescriptor
    capabilities: CapabilityDocument
    accounts: dict[str, str]


class SiteFolder:
    """Reads the sites' files again whenever they have changed.

    Args:
        folder: The folder with one folder for each site.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._read: dict[str, tuple[Stamp, Site | InvalidDocument]] = {}

    def all(self) -> list[Site]:
        """Return every site whose files can be used, by name; the others are noted in the log."""
        sites = []
        for path in sorted(self._folder.glob("*/site.yaml")):
            try:
                sites.append(self.get(path.parent.name))
            except SiteUnavailable as error:
                log.error("%s", error, extra={"site": path.parent.name})
        return sites

    def get(self, name: str) -> Site:
        """Return one site.

        Raises:
            Unknown: There is none of this name.
            SiteUnavailable: Its files cannot be used; nobody gets in before they are mended.
        """
        folder = self._folder / name
        if not re.fullmatch(r"[a-z][a-z0-9-]{0,62}", name) or not (folder / "site.yaml").exists():
            raise Unknown("There is no such site.", where=name[:64], remedy="`dcde sites` lists them.")
        files = [folder / file for file in ("site.yaml", "capabilities.yaml", "mapfile.tsv")]
        try:
            stamp = tuple((s.st_mtime_ns, s.st_ino, s.st_size) for s in (file.stat() for file in files))
        except OSError as error:
            raise SiteUnavailable(f"A file of this site is missing: {error}", where=name) from error
        if name not in self._read or self._read[name][0] != stamp:
            self._read[name] = (stamp, _read_site(name, *files))
        site = self._read[name][1]
        if isinstance(site, InvalidDocument):
            raise SiteUnavailable(str(site), where=name)
        return site


def _read_site(name: str, descriptor: Path, capabilities: Path, mapfile: Path) -> Site | InvalidDocument:
    try:
        site = Site(
            SiteDescriptor.from_file(descriptor), CapabilityDocument.from_file(capabilities), read_mapfile(mapfile)
        )
    except InvalidDocument as error:
        return error
    if not name == site.descriptor.name == site.capabilities.site:
        return InvalidDocument(f"the documents in the folder {name} are those of another site")
    return site


def read_mapfile(path: Path) -> dict[str, str]:
    """Return the accounts of a mapfile by DCDE id.

    Raises:
        InvalidDocument: A line has another form, or two lines name the same person or account.
    """
    accounts: dict[str, str] = {}
    try:
        lines = path.read_text(encoding="ascii").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidDocument(f"{path} cannot be read: {error}") from error
    for number, line in enumerate(lines, start=1):
        if not line.strip() or line.startswith("#"):
            continue
        match = re.fullmatch(r"(dcde[0-9]{7})\t([a-z_][a-z0-9_.-]{0,31})", line)
        if not match:
            raise InvalidDocument(f"{path}, line {number}: not a DCDE id, a tabulator and an account")
        if match[1] in accounts or match[2] in accounts.values():
            raise InvalidDocument(f"{path}, line {number}: the person or the account stands here for the second time")
        accounts[match[1]] = match[2]
    return accounts
