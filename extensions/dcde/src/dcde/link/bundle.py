"""The agent as one file: a zip of its modules that Python runs as it is, named by its content."""

from __future__ import annotations

import functools
import hashlib
import io
import zipfile
from dataclasses import dataclass
from importlib import resources

MODULES = (
    "__init__", "channels", "files", "functions", "globs", "home", "jobs", "main", "ops", "paths", "programs",
    "protocol", "server", "session", "slurm", "work",
)  # fmt: skip
START = "from dcde_agent.main import main\n\nmain()\n"


@dataclass(frozen=True)
class Bundle:
    """The agent's file.

    Attributes:
        content: Its bytes; the same modules always give the same bytes.
        digest: Their SHA-256.
        home: The text of the module that prepares the agent's folder; it is sent ahead of the file.
    """

    content: bytes
    digest: str
    home: str


@functools.cache
def agent_bundle() -> Bundle:
    """Return the agent's file, built from the installed package."""
    package = resources.files("dcde.agent")
    texts = {name: (package / f"{name}.py").read_text("utf-8") for name in MODULES}
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, text in [("__main__", START), *((f"dcde_agent/{name}", text) for name, text in texts.items())]:
            # A fixed time makes the content depend on the modules alone.
            archive.writestr(zipfile.ZipInfo(f"{name}.py", (1980, 1, 1, 0, 0, 0)), text, zipfile.ZIP_DEFLATED)
    content = file.getvalue()
    return Bundle(content, hashlib.sha256(content).hexdigest(), texts["home"])
