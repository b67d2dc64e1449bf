"""What enters the world from outside: a product under test, described by a YAML file.

The testbed knows no product. A guest brings folders, system accounts, one-shots and services, host names at the front
door, and says which of its ports people's servers may reach. Example::

    binds: [{source: /abs/outside, target: /opt/dcde/demo, read_only: true}]
    accounts: [{name: dcde-broker, uid: 985}]
    prepare: [[/opt/dcde/hub/bin/python, -m, dcde_demo.prepare]]
    services: [{name: hub, argv: [...], user: null, environment: {K: V}, umask: "077", directory: /}]
    routes: {hub.localhost: 8000}
    people: {api_ports: [8081]}
    ready: [http://127.0.0.1:8000/hub/health]
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from dcde_testbed.rooms import Bind

_NAME = re.compile(r"[a-z][a-z0-9_-]{0,30}")
_HOST = re.compile(r"[a-z0-9-]{1,63}\.localhost")
_LOOPBACK_URL = re.compile(r"http://(127\.0\.0\.1|10\.79\.0\.1):\d{1,5}/\S*")


class GuestError(ValueError):
    """The guest file is not as described; the message says where and what is expected."""


@dataclass(frozen=True)
class GuestAccount:
    name: str
    uid: int


@dataclass(frozen=True)
class GuestService:
    name: str
    argv: tuple[str, ...]
    user: str | None = None
    environment: Mapping[str, str] = field(default_factory=dict)
    umask: str = "022"
    directory: str = "/"


@dataclass(frozen=True)
class Guest:
    """A checked guest description; the default is a world without a guest."""

    binds: tuple[Bind, ...] = ()
    accounts: tuple[GuestAccount, ...] = ()
    prepare: tuple[tuple[str, ...], ...] = ()
    services: tuple[GuestService, ...] = ()
    routes: Mapping[str, int] = field(default_factory=dict)
    api_ports: tuple[int, ...] = ()
    ready: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Guest:
        """The inverse of `to_json`, for process 1."""
        return cls(
            binds=tuple(Bind(**each) for each in data["binds"]),
            accounts=tuple(GuestAccount(**each) for each in data["accounts"]),
            prepare=tuple(tuple(each) for each in data["prepare"]),
            services=tuple(GuestService(**{**each, "argv": tuple(each["argv"])}) for each in data["services"]),
            routes=dict(data["routes"]),
            api_ports=tuple(data["api_ports"]),
            ready=tuple(data["ready"]),
        )


def load(path: Path) -> Guest:
    """Read and check a guest file. Raises GuestError; needs PyYAML."""
    import yaml

    try:
        data = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise GuestError(f"{path}: {error.strerror}") from error
    except yaml.YAMLError as error:
        raise GuestError(f"{path}: not YAML: {error}") from error
    try:
        return parse(data)
    except GuestError as error:
        raise GuestError(f"{path}: {error}") from error


def parse(data: object) -> Guest:
    """Check a guest description that was read from YAML. Raises GuestError."""
    top = _mapping(data, "the file", {"binds", "accounts", "prepare", "services", "routes", "people", "ready"})
    people = _mapping(top.get("people") or {}, "people", {"api_ports"})
    return Guest(
        binds=tuple(_bind(each, f"binds[{k}]") for k, each in enumerate(_list(top.get("binds"), "binds"))),
        accounts=tuple(
            _account(each, f"accounts[{k}]") for k, each in enumerate(_list(top.get("accounts"), "accounts"))
        ),
        prepare=tuple(_argv(each, f"prepare[{k}]") for k, each in enumerate(_list(top.get("prepare"), "prepare"))),
        services=tuple(
            _service(each, f"services[{k}]") for k, each in enumerate(_list(top.get("services"), "services"))
        ),
        routes=_routes(top.get("routes") or {}),
        api_ports=tuple(_port(each, "people.api_ports") for each in _list(people.get("api_ports"), "people.api_ports")),
        ready=tuple(_url(each) for each in _list(top.get("ready"), "ready")),
    )


def _mapping(value: object, where: str, known: set[str]) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise GuestError(f"{where} must be a mapping")
    unknown = sorted(str(key) for key in value if key not in known)
    if unknown:
        raise GuestError(f"{where}: unknown {', '.join(unknown)} (known: {', '.join(sorted(known))})")
    return value


def _list(value: object, where: str) -> list[Any]:
    if value is None:
        return []
    if not isinstance(value, list):
        raise GuestError(f"{where} must be a list")
    return value


def _bind(value: object, where: str) -> Bind:
    data = _mapping(value, where, {"source", "target", "read_only"})
    source, target, read_only = data.get("source"), data.get("target"), data.get("read_only", True)
    for name, path in (("source", source), ("target", target)):
        if not isinstance(path, str) or not path.startswith("/") or ".." in Path(path).parts:
            raise GuestError(f"{where}.{name} must be an absolute path without ..")
    if not isinstance(read_only, bool):
        raise GuestError(f"{where}.read_only must be true or false")
    if not Path(str(source)).exists():
        raise GuestError(f"{where}.source: {source} does not exist")
    return Bind(str(source), str(target), read_only)


def _account(value: object, where: str) -> GuestAccount:
    data = _mapping(value, where, {"name", "uid"})
    uid = data.get("uid")
    if type(uid) is not int or not 900 <= uid <= 999:
        raise GuestError(f"{where}.uid must be a number from 900 to 999")
    return GuestAccount(_name(data.get("name"), f"{where}.name"), uid)


def _name(value: object, where: str) -> str:
    if not isinstance(value, str) or not _NAME.fullmatch(value):
        raise GuestError(f"{where} must be lower case letters, digits, - and _, beginning with a letter")
    return value


def _argv(value: object, where: str) -> tuple[str, ...]:
    words = _list(value, where)
    if not words or not all(isinstance(word, str) and "\0" not in word for word in words):
        raise GuestError(f"{where} must be a list of at least one text")
    return tuple(words)


def _service(value: object, where: str) -> GuestService:
    data = _mapping(value, where, {"name", "argv", "user", "environment", "umask", "directory"})
    environment, umask, directory = data.get("environment") or {}, data.get("umask", "022"), data.get("directory", "/")
    if not isinstance(environment, dict) or not all(
        isinstance(k, str) and isinstance(v, str) for k, v in environment.items()
    ):
        raise GuestError(f"{where}.environment must map text to text (quote numbers)")
    if not isinstance(umask, str) or not re.fullmatch(r"0?[0-7]{3}", umask):
        raise GuestError(f'{where}.umask must be quoted octal digits, for example "077"')
    if not isinstance(directory, str) or not directory.startswith("/"):
        raise GuestError(f"{where}.directory must be an absolute path")
    user = None if data.get("user") is None else _name(data["user"], f"{where}.user")
    return GuestService(
        _name(data.get("name"), f"{where}.name"),
        _argv(data.get("argv"), f"{where}.argv"),
        user,
        environment,
        umask,
        directory,
    )


def _routes(value: object) -> dict[str, int]:
    if not isinstance(value, dict):
        raise GuestError("routes must map host names to ports")
    for host in value:
        if not isinstance(host, str) or not _HOST.fullmatch(host):
            raise GuestError(f"routes: {host!r} is no name below localhost, such as hub.localhost")
    return {host: _port(port, f"routes.{host}") for host, port in value.items()}


def _port(value: object, where: str) -> int:
    if type(value) is not int or not 1 <= value <= 65535:
        raise GuestError(f"{where}: a port is a number from 1 to 65535")
    return value


def _url(value: object) -> str:
    if not isinstance(value, str) or not _LOOPBACK_URL.fullmatch(value):
        raise GuestError(f"ready: {value!r} is no http address of 127.0.0.1 or 10.79.0.1 with a port")
    return value
