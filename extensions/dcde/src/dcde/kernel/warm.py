"""The warm process: it has imported what a DCDE notebook needs, and forks into a kernel when its server asks.

    python -m dcde.kernel.warm SERVER_PID

It has one thread and no event loop, and it makes no ZeroMQ context: none of them would survive a fork whole. It lives
as long as its server; kernels outlive it. It ends with status CHANGED when a file that it has imported has changed on
disk, so that nobody gets a kernel with an old library; whoever started it starts it anew.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import importlib
import json
import logging
import os
import select
import socket
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from dcde.kernel import become
from dcde.kernel.asking import (
    GO,
    PATIENCE,
    KernelRequest,
    NotWarm,
    current_limits,
    make_runtime_folder,
    read_line,
    socket_path,
)
from dcde.wire import line, peer_uid

LIBRARIES = (
    *("dcde", "dcde.api", "dcde.kernel", "dcde.widgets", "ipywidgets", "numpy"),
    *("ipykernel.kernelapp", "ipykernel.debugger", "tornado.platform.asyncio", "sqlite3"),
    *("IPython.core.debugger", "IPython.core.completerlib", "IPython.extensions.storemagic"),
)
"""What is imported beforehand: the library, and what a kernel imports by itself when it starts.

Parsl, globus-sdk and asyncssh are not: a notebook asks the runner, which has them.
"""

CHANGED = 75
"""The exit status that asks for a new warm process at once."""

READ_AT_START = (
    *("PYTHON", "LD_", "LC_", "LANG", "MALLOC_", "GLIBC_", "HOME", "XDG_", "JUPYTER_PLATFORM_DIRS", "TRAITLETS_"),
    *("OMP_", "OPENBLAS_", "GOTO_", "MKL_", "BLIS_", "NUMEXPR_", "NPY_", "NUMPY_", "PYDEVD_", "DEBUGPY_"),
)
"""How the names of variables begin that the interpreter or a library reads once: a kernel cannot get others later."""

_log = logging.getLogger("dcde.kernel.warm")


class NotReadyToFork(Exception):
    """Something is at work that a fork would break; the message says what."""


@dataclass(frozen=True)
class _Child:
    pid: int
    connected: socket.socket


def preload() -> None:
    """Import the libraries, and make what is there now cheap to share with the kernels."""
    for name in LIBRARIES:
        importlib.import_module(name)
    _end_helper_threads()
    gc.disable()  # a collection would write to the pages that are shared
    gc.collect()
    gc.freeze()


def _end_helper_threads() -> None:
    """Fork once for nothing: OpenBLAS ends its threads before a fork and starts them again when next needed."""
    pid = os.fork()
    if pid == 0:
        os._exit(0)
    os.waitpid(pid, 0)


def check_ready_to_fork() -> None:
    """Make sure that this process can be forked.

    Raises:
        NotReadyToFork: There is a second thread, also one that Python does not know, an event loop or a ZeroMQ context.
    """
    import zmq

    threads = len(os.listdir("/proc/self/task"))
    if threads != 1:
        raise NotReadyToFork(f"there are {threads} threads")
    for thing in gc.get_objects():
        if isinstance(thing, (asyncio.AbstractEventLoop, zmq.Context)):
            raise NotReadyToFork(f"there is a {type(thing).__name__}")


def imported_files() -> dict[str, tuple[int, int]]:
    """Return the time of change and the size of each file that modules have come from."""
    found = {}
    for module in list(sys.modules.values()):
        file = getattr(module, "__file__", None)
        if file:
            with contextlib.suppress(OSError):
                found[file] = _mark(file)
    return found


def _mark(file: str) -> tuple[int, int]:
    seen = os.stat(file)
    return seen.st_mtime_ns, seen.st_size


def read_at_start(env: Mapping[str, str]) -> dict[str, str]:
    """Return those variables that count when the interpreter starts and libraries are imported."""
    return {name: value for name, value in env.items() if name.startswith(READ_AT_START)}


class Warm:
    """Answers requests, and collects the kernels that have ended."""

    def __init__(self, listener: socket.socket, server: int, env: Mapping[str, str]) -> None:
        """Take a listening socket, a pidfd of the server, and the variables that this process was started with."""
        self.listener = listener
        self.server = server
        self._read_at_start = read_at_start(env)
        self.changed = False
        self._files = imported_files()
        self._children: dict[int, _Child] = {}
        self._poll = select.poll()
        self._poll.register(listener, select.POLLIN)
        self._poll.register(server, select.POLLIN)

    def serve(self) -> KernelRequest | None:
        """Answer until the server ends or a file has changed; in a newly forked process, return what it becomes."""
        while not self.changed:
            for descriptor, _ in self._poll.poll():
                if descriptor == self.server:
                    return None
                if descriptor in self._children:
                    self._collect(descriptor)
                elif request := self._answer():
                    return request
        return None

    def _collect(self, pidfd: int) -> None:
        """Reap a kernel that has ended and tell its server the exit status."""
        child = self._children.pop(pidfd)
        self._poll.unregister(pidfd)
        os.close(pidfd)
        _, status = os.waitpid(child.pid, 0)
        with child.connected, contextlib.suppress(OSError):
            child.connected.sendall(line({"exit": os.waitstatus_to_exitcode(status)}))

    def _answer(self) -> KernelRequest | None:
        """Answer one request; in the forked process, return it."""
        try:
            connected, _ = self.listener.accept()
        except ConnectionError:
            return None  # it has gone away again
        with contextlib.ExitStack() as unless_kept:
            unless_kept.enter_context(connected)
            connected.settimeout(PATIENCE)
            try:
                request = self._request(connected)
                pid = os.fork() if request else -1
            except (OSError, ValueError, TypeError) as error:
                _log.warning("no kernel for this request: %s", error)
                return None
            if request is None:
                return None
            if pid == 0:
                self._leave()
                _wait_for_go(connected)
                return request
            pidfd = os.pidfd_open(pid)
            self._children[pidfd] = _Child(pid, connected)
            self._poll.register(pidfd, select.POLLIN)
            unless_kept.pop_all()
            with contextlib.suppress(OSError):  # when the server has gone away, the child notices and ends
                socket.send_fds(connected, [line({"pid": pid})], [pidfd])
        return None

    def _request(self, connected: socket.socket) -> KernelRequest | None:
        """Read a request; None when there is none, or when it has been refused."""
        if peer_uid(connected) != os.getuid():
            return None
        received = read_line(connected)
        if not received:
            return None
        request = KernelRequest(**json.loads(received))
        if refusal := self.refusal(request):
            connected.sendall(line({"refused": refusal}))
            return None
        return request

    def refusal(self, request: KernelRequest) -> str:
        """Return why a kernel forked here would differ from an ordinary one; empty when it would not."""
        if request.argv[:3] != [sys.executable, "-m", become.LAUNCHER]:
            return "it is another command"
        if read_at_start(request.env) != self._read_at_start:
            return "variables that are read at the start differ"
        if request.limits != current_limits():
            return "the resource limits differ"
        if not os.path.isdir(request.cwd):
            return "the working directory is not there"
        if self._has_changed():
            self.changed = True
            return "the library has changed on disk"
        return ""

    def _has_changed(self) -> bool:
        try:
            return any(_mark(file) != mark for file, mark in self._files.items())
        except OSError:
            return True

    def _leave(self) -> None:
        """In the forked process, close everything of the warm process but the pidfd of the server."""
        self.listener.close()
        for pidfd, child in self._children.items():
            os.close(pidfd)
            child.connected.close()
        self._children.clear()


def _wait_for_go(connected: socket.socket) -> None:
    """Wait until the server has taken the new process; end when it has not."""
    went = b""
    with contextlib.suppress(OSError):
        went = connected.recv(1)
    if went != GO:
        os._exit(1)


@contextlib.contextmanager
def listening(path: Path) -> Iterator[socket.socket]:
    """Listen at the path, which only this account can reach; a socket that an earlier process left is replaced."""
    make_runtime_folder()
    path.unlink(missing_ok=True)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        before = os.umask(0o177)
        try:
            listener.bind(str(path))
        finally:
            os.umask(before)
        listener.listen(64)
        yield listener


def main() -> int:
    """Import, listen, fork; return the exit status."""
    logging.basicConfig(format="%(name)s: %(message)s", stream=sys.stderr)
    server = int(sys.argv[1])
    watch = os.pidfd_open(server)
    if os.getppid() != server:  # it ended in between
        return 0
    # `python -m` puts the working directory first; an ordinary kernel removes it before it imports anything.
    if sys.path[0] in ("", os.getcwd()):
        del sys.path[0]
    env = dict(os.environ)
    preload()
    added = {name: value for name, value in os.environ.items() if name not in env}
    path = socket_path(server)
    try:
        check_ready_to_fork()
        with listening(path) as listener:
            warm = Warm(listener, watch, env)
            request = warm.serve()
            if request is None:
                path.unlink(missing_ok=True)
    except (NotReadyToFork, NotWarm, OSError) as error:
        _log.warning("kernels start in the ordinary way: %s", error)
        return 1
    if request is None:
        return CHANGED if warm.changed else 0
    logging.root.handlers.clear()
    become.prepare(request, watch, added)
    become.run()
    return 0


if __name__ == "__main__":
    sys.exit(main())
