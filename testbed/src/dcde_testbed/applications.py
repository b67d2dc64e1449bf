"""How a site offers its software: each of the three in another way, as real laboratories do.

RELION itself is the machine's package in /usr/bin. The CTF estimator is the testbed's own program; it appears at each
site under another path.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dcde_testbed.layout import Site

RELION_VERSION = "3.1.3"
INTERPRETER = "/opt/dcde/site/bin/python"

_MODULE = """#%Module1.0
## {name} {version}
module-whatis "{what}"
conflict {name}
"""


@dataclass(frozen=True)
class Setup:
    """What a job script of this site must do before the programs are there, and where the files lie.

    `root` is the top folder of the site's software tree, `programs` the names or paths by which programs are called
    after `setup`.
    """

    root: str
    ctffind: str
    init: tuple[str, ...]
    setup: tuple[str, ...]
    programs: dict[str, str]

    def facts(self) -> dict[str, Any]:
        """The part of the site's public description that says how to use its software."""
        relion = {"version": RELION_VERSION, "setup": list(self.setup), "programs": self.programs}
        return {"environment": {"init": list(self.init)}, "applications": {"relion": relion}}


SETUPS = {
    "modules": Setup(
        root="/sw",
        ctffind="/sw/spack/ctffind-4.1/bin/ctffind",
        init=("source /etc/profile.d/modules.sh",),
        setup=(f"module load relion/{RELION_VERSION} ctffind/4.1",),
        programs={"ctffind": "ctffind"},
    ),
    "setup-script": Setup(
        root="/sw",
        ctffind="/sw/cades/cryoem/ctffind/4.1/ctffind",
        init=(),
        setup=("source /sw/cades/setup.sh",),
        programs={"ctffind": "/sw/cades/cryoem/ctffind/4.1/ctffind"},
    ),
    "path": Setup(
        root="/soft",
        ctffind="/soft/cryoem/bin/ctffind",
        init=(),
        setup=('export PATH="/soft/cryoem/bin:$PATH"',),
        programs={"ctffind": "ctffind"},
    ),
}


def setup_of(site: Site) -> Setup:
    return SETUPS[site.software]


def install(site: Site, root: Path, etc: Path, ctffind: Path) -> str | None:
    """Fill `root` (which becomes the site's software folder) and add what /etc needs.

    Returns None, or a warning when the CTF estimator is not there to be installed.
    """
    setup = setup_of(site)
    root.mkdir(parents=True, exist_ok=True)
    {"modules": _modules, "setup-script": _setup_script, "path": _path}[site.software](root, etc)
    target = root / Path(setup.ctffind).relative_to(setup.root)
    target.parent.mkdir(parents=True, exist_ok=True)
    if not ctffind.is_file():
        return f"{site.name}: no CTF estimator ({ctffind} is missing): steps that need ctffind will fail there"
    _, _, program = ctffind.read_text().partition("\n")
    target.write_text(
        f"#!{INTERPRETER}\n{program}"
    )  # the first line is the site's matter, as with any installed script
    target.chmod(0o755)
    return None


def _modules(root: Path, etc: Path) -> None:
    files = {
        f"relion/{RELION_VERSION}": _MODULE.format(name="relion", version=RELION_VERSION, what="RELION, cryo-EM")
        + "setenv RELION_HOME /usr\nprepend-path PATH /usr/bin\n",
        "ctffind/4.1": _MODULE.format(name="ctffind", version="4.1", what="CTF estimation")
        + "prepend-path PATH /sw/spack/ctffind-4.1/bin\n",
    }
    for name, text in files.items():
        file = root / "modulefiles" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    path = etc / "environment-modules" / "modulespath"
    path.parent.mkdir(exist_ok=True)
    path.write_text("/sw/modulefiles\n")


def _setup_script(root: Path, etc: Path) -> None:
    script = root / "cades" / "setup.sh"
    script.parent.mkdir(parents=True, exist_ok=True)
    script.write_text(
        '# source this file\nexport CADES_ROOT=/sw/cades\nexport PATH="/sw/cades/cryoem/ctffind/4.1:$PATH"\n'
    )


def _path(root: Path, etc: Path) -> None:
    (root / "cryoem" / "bin").mkdir(parents=True, exist_ok=True)
