"""What the world calls before the federation's processes start, and what it learns from it. Standard library only.

Below STATE: `registry.yaml` (0644: the hub's services read it too), `federation/client_secret` (0600, owned by who
runs `prepare`: the hub reads it as root), `federation/private/` (0700, owned by the federation's account: keys,
metadata, the proxy's copy of the secret). All of it is made once and kept; addresses follow when the port changes.
STATE and the directories above it must let the federation's account pass (`--x` for others).
"""

from __future__ import annotations

import json
import os
import pwd
import secrets
import stat
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from dcde_testbed.federation.settings import CLIENT_ID, LOOPBACK_PORTS, Settings

PUBLISH_SECONDS = 120
XMLSEC = Path("/usr/bin/xmlsec1")


class FederationError(Exception):
    """The federation cannot be prepared; the message says what is wrong and what to do."""


@dataclass(frozen=True)
class Runtime:
    """How the federation's programs are run.

    `python` is the interpreter of the federation's environment. `package_path` is put on PYTHONPATH where this package
    is not installed in that environment. `account` is the system account of the processes, or None for the caller's own
    (development). `loopback` are the services' ports by name.
    """

    python: Path = Path("/opt/dcde/federation/bin/python")
    package_path: Path | None = None
    account: str | None = "dcde-fed"
    loopback: Mapping[str, int] = field(default_factory=lambda: dict(LOOPBACK_PORTS))


@dataclass(frozen=True)
class Process:
    """One process to supervise: `user` None means the supervisor's own; `umask` is octal text."""

    name: str
    argv: tuple[str, ...]
    environment: dict[str, str]
    user: str | None
    umask: str = "077"


@dataclass(frozen=True)
class Federation:
    """A prepared federation."""

    settings: Settings
    runtime: Runtime
    client_secret_file: Path

    def facts(self) -> dict[str, object]:
        """Return the `federation` part of the world's description: what a hub must be configured with."""
        settings = self.settings
        return {
            "authorize_url": settings.url("proxy", "/authorize"),
            "token_url": settings.url("proxy", "/oauth2/token"),
            "userinfo_url": settings.url("proxy", "/oauth2/userinfo"),
            "client_id": CLIENT_ID,
            "client_secret_file": str(self.client_secret_file),
            "callback_url": settings.callback_url,
            "ca_file": "/run/door/ca.crt",
            "institutions": [
                {"entity_id": settings.entity_id(institution), "name": institution.name}
                for institution in settings.institutions
            ],
        }

    def processes(self) -> list[Process]:
        """Return the processes that serve; they may be started in any order and restarted at any time.

        A restarted proxy has forgotten the access tokens it gave out: people sign in again when the hub next refreshes.
        """
        return [
            Process(
                name=f"federation-{part}",
                argv=(
                    str(self.runtime.python), "-P", "-m", "dcde_testbed.federation.server",
                    part, str(self.settings.settings_file),
                ),
                environment=_environment(self.settings, self.runtime),
                user=self.runtime.account,
            )
            for part in ("institutions", "proxy")
        ]  # fmt: skip

    def routes(self) -> dict[str, int]:
        """Return the front door's part: public host name (without port) to loopback port."""
        return {f"{name}.localhost": port for name, port in self.settings.loopback.items()}

    def ready(self) -> list[str]:
        """Return addresses that answer 200 once the federation serves."""
        return [f"http://127.0.0.1:{self.settings.loopback[name]}/health" for name in ("disco", "proxy")]


def prepare(state: Path, port: int, runtime: Runtime | None = None) -> Federation:
    """Make what is missing below `state` for a federation behind a front door on `port`, and return the federation.

    Runs as the world's root (or as anybody when `runtime.account` is None) before any other thread or supervisor waits
    for children. Takes about two seconds the first time and a tenth later. Raises FederationError.
    """
    runtime = runtime or Runtime()
    settings = Settings(
        port=port,
        loopback=dict(runtime.loopback),
        folder=state / "federation" / "private",
        registry=state / "registry.yaml",
    )
    owner = _owner(runtime.account)
    if not XMLSEC.exists():
        raise FederationError(f"{XMLSEC} is missing; it signs and verifies SAML. Install the package xmlsec1.")
    _check_passable(state, runtime.account)
    folder = state / "federation"
    folder.mkdir(mode=0o711, exist_ok=True)
    folder.chmod(0o711)
    _private_folder(settings.folder, owner)
    _sample_registry(settings.registry)
    secret_file = folder / "client_secret"
    secret = _client_secret(secret_file)
    _publish(settings, runtime, secret, owner)
    return Federation(settings, runtime, secret_file)


def _owner(account: str | None) -> pwd.struct_passwd | None:
    if account is None:
        return None
    try:
        return pwd.getpwnam(account)
    except KeyError as error:
        raise FederationError(f"The account {account} does not exist; make it before the federation.") from error


def _check_passable(state: Path, account: str | None) -> None:
    if account is None:
        return
    for folder in (state, *state.parents):
        if not folder.stat().st_mode & stat.S_IXOTH:
            raise FederationError(
                f"{account} cannot pass {folder} (mode {stat.S_IMODE(folder.stat().st_mode):04o}); give others x on it."
            )


def _private_folder(folder: Path, owner: pwd.struct_passwd | None) -> None:
    """Make the account's own directory; root never writes inside it afterwards, so no link there can mislead it."""
    if not folder.exists():
        folder.mkdir(mode=0o700)
        if owner is not None:
            os.chown(folder, owner.pw_uid, owner.pw_gid)
    found = folder.lstat()
    expected = os.getuid() if owner is None else owner.pw_uid
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != expected or stat.S_IMODE(found.st_mode) != 0o700:
        raise FederationError(
            f"{folder} must be a directory of uid {expected} with mode 0700; move it away and try again."
        )


def _write_once(path: Path, text: str, mode: int) -> None:
    """Write a new file so that it is there completely or not at all."""
    draft = path.with_name(f".{path.name}.new")
    draft.unlink(missing_ok=True)
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, mode)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        os.fchmod(file.fileno(), mode)
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    draft.rename(path)


def _sample_registry(path: Path) -> None:
    if not path.exists():
        _write_once(path, Path(__file__).with_name("registry.yaml").read_text(encoding="utf-8"), 0o644)


def _client_secret(path: Path) -> str:
    if not path.exists():
        _write_once(path, secrets.token_urlsafe(32) + "\n", 0o600)
    return path.read_text(encoding="utf-8").strip()


def _environment(settings: Settings, runtime: Runtime) -> dict[str, str]:
    environment = {
        "HOME": str(settings.folder),
        "TMPDIR": str(settings.folder / "tmp"),  # pysaml2 hands documents to xmlsec1 through files
        "PATH": "/usr/bin:/bin",
        "LANG": "C.UTF-8",
        "PYTHONUNBUFFERED": "1",
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    if runtime.package_path is not None:
        environment["PYTHONPATH"] = str(runtime.package_path)
    return environment


def _publish(settings: Settings, runtime: Runtime, secret: str, owner: pwd.struct_passwd | None) -> None:
    """Run the one-shot that makes keys and metadata, as the federation's account, with its input on standard input."""
    command = [str(runtime.python), "-P", "-m", "dcde_testbed.federation.publish"]
    document = json.dumps({"settings": settings.to_json(), "client_secret": secret})
    try:
        done = subprocess.run(
            command,
            input=document,
            capture_output=True,
            text=True,
            timeout=PUBLISH_SECONDS,
            check=False,
            cwd="/",
            env=_environment(settings, runtime),
            umask=0o077,
            user=None if owner is None else owner.pw_uid,
            group=None if owner is None else owner.pw_gid,
            extra_groups=None if owner is None else [],
        )
    except OSError as error:
        raise FederationError(
            f"{command[0]} cannot be started ({error.strerror}); build the federation's environment."
        ) from error
    except subprocess.TimeoutExpired as error:
        raise FederationError(
            f"Making the federation's keys and metadata took more than {PUBLISH_SECONDS} s; try again."
        ) from error
    if done.returncode != 0:
        raise FederationError(f"The federation's keys and metadata were not made: {done.stderr.strip()[-2000:]}")
