"""The kernel provisioner `dcde-warm`: kernels from the server's warm process, or started in the ordinary way."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import select
import signal
import socket
import time
from typing import Any

from jupyter_client.connect import KernelConnectionInfo
from jupyter_client.provisioning.local_provisioner import LocalProvisioner

from .asking import KernelRequest, NotWarm, ask, socket_path

UNKNOWN_EXIT = 255
"""The exit status of a kernel whose warm process has ended before it."""

STATUS_WAIT = 1.0
"""Seconds to wait for the exit status when the kernel has ended."""

LISTENING_WAIT = 0.5
"""Seconds to wait until a new kernel listens."""

_CHANNELS = ("shell", "stdin", "control", "iopub", "hb")

_UNDERSTOOD = {"env", "cwd", "kernel_id", "extra_arguments"}
"""What of a launch the warm process can do; the last two say nothing about the process."""

_PROCESS_GROUP = 4  # PIDFD_SIGNAL_PROCESS_GROUP, linux/pidfd.h, since Linux 6.9


class ForkedKernel:
    """A kernel that is no child of this process; it has the part of Popen that LocalProvisioner relies upon.

    It is watched and signalled through its pidfd, so that another process that gets the same id is never touched.
    """

    stdin = stdout = stderr = None

    def __init__(self, pid: int, pidfd: int, connected: socket.socket) -> None:
        """Take the process id, the pidfd and the connection to the warm process; they are closed at the end."""
        self.pid = pid
        self.returncode: int | None = None
        self._pidfd = pidfd
        self._connected: socket.socket | None = connected
        self._ended_at: float | None = None
        self._watch = select.poll()
        self._watch.register(pidfd, select.POLLIN)
        connected.setblocking(False)

    def poll(self) -> int | None:
        """Return the exit status, or None while the kernel runs; a signal is negative."""
        if self.returncode is None and self._watch.poll(0):
            self._ended_at = self._ended_at or time.monotonic()
            status = self._status()
            if status is None and time.monotonic() - self._ended_at > STATUS_WAIT:
                status = UNKNOWN_EXIT
            if status is not None:
                self.returncode = status
                self.close()
        return self.returncode

    def _status(self) -> int | None:
        """Return what the warm process says, None when it has said nothing yet. The line is short: it comes whole."""
        assert self._connected is not None  # noqa: S101 - it is closed only after the end was noted
        try:
            return int(json.loads(self._connected.recv(4096))["exit"])
        except BlockingIOError:
            return None
        except (OSError, ValueError, KeyError, TypeError):
            return UNKNOWN_EXIT

    def wait(self, timeout: float | None = None) -> int:
        """Wait for the end of the kernel and return its exit status; TimeoutError when it takes longer."""
        end = None if timeout is None else time.monotonic() + timeout
        while (status := self.poll()) is None:
            left = None if end is None else end - time.monotonic()
            if left is not None and left <= 0:
                raise TimeoutError(f"the kernel {self.pid} has not ended in {timeout:g} s")
            if self._ended_at is None:
                self._watch.poll(None if left is None else left * 1000)
            elif self._connected is not None:
                select.select([self._connected], [], [], STATUS_WAIT if left is None else min(left, STATUS_WAIT))
        return status

    def send_signal(self, number: int) -> None:
        """Send a signal to the kernel and the processes of its group; nothing happens when it has ended."""
        if self.poll() is not None:
            return
        with contextlib.suppress(ProcessLookupError):
            try:
                signal.pidfd_send_signal(self._pidfd, number, None, _PROCESS_GROUP)
            except OSError as error:
                if isinstance(error, ProcessLookupError):
                    raise
                self._signal_on_older_systems(number)

    def _signal_on_older_systems(self, number: int) -> None:
        # An id cannot be given anew while its process is there, so the group is signalled only when it is.
        if not self._watch.poll(0):
            os.killpg(self.pid, number)
        else:
            signal.pidfd_send_signal(self._pidfd, number)

    def terminate(self) -> None:
        """Ask the kernel to end."""
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """End the kernel."""
        self.send_signal(signal.SIGKILL)

    def close(self) -> None:
        """Give back the descriptors."""
        if self._connected is not None:
            self._connected.close()
            self._connected = None
            os.close(self._pidfd)

    def __del__(self) -> None:
        """Give back the descriptors of a kernel that nobody has waited for."""
        self.close()


def _socket_paths(info: KernelConnectionInfo) -> list[str]:
    """Return where ZeroMQ makes the sockets of a kernel; nothing when they are not in the file system."""
    if info.get("transport") != "ipc":
        return []
    return [f"{info.get('ip')}-{info.get(f'{channel}_port')}" for channel in _CHANNELS]


def _missing(paths: list[str]) -> list[str]:
    return [path for path in paths if not os.path.exists(path)]


class WarmProvisioner(LocalProvisioner):
    """Asks the warm process of this server for a kernel, and falls back to the ordinary start."""

    async def launch_kernel(self, cmd: list[str], **kwargs: Any) -> KernelConnectionInfo:
        """Start the kernel and return how to connect to it."""
        try:
            kernel = await asyncio.to_thread(self._from_warm, cmd, kwargs)
        except NotWarm as reason:
            self.log.info("DCDE: the kernel starts in the ordinary way: %s", reason)
            return await super().launch_kernel(cmd, **kwargs)
        self.process = kernel  # type: ignore[assignment]  # it is declared as a Popen
        self.pid = kernel.pid
        self.pgid = None  # signals go through the pidfd, not to a group that has been looked up earlier
        self.cwd = kwargs.get("cwd") or os.getcwd()
        await self._until_listening(kernel)
        return self.connection_info

    async def _until_listening(self, kernel: ForkedKernel) -> None:
        """Wait some milliseconds until the kernel's sockets are there: a client that is earlier tries again after 100.

        Sockets in the file system can be seen; for others, and for a kernel that takes longer, clients try again.
        """
        paths = _socket_paths(self.connection_info)
        end = time.monotonic() + LISTENING_WAIT
        while paths and time.monotonic() < end and kernel.poll() is None:
            paths = _missing(paths)
            await asyncio.sleep(0.003)

    def _from_warm(self, cmd: list[str], kwargs: dict[str, Any]) -> ForkedKernel:
        if not socket_path(os.getpid()).exists():
            raise NotWarm("this server has no warm process")
        if unknown := set(kwargs) - _UNDERSTOOD:
            raise NotWarm(f"a warm process cannot do {', '.join(sorted(unknown))}")
        env = dict(kwargs.get("env") or os.environ)
        env["JPY_PARENT_PID"] = str(os.getpid())  # as jupyter_client's launcher does
        argv = [os.path.expanduser(argument) for argument in cmd]
        cwd = str(kwargs.get("cwd") or os.getcwd())
        return ForkedKernel(*ask(KernelRequest.like_this_process(argv, env, cwd), os.getpid()))
