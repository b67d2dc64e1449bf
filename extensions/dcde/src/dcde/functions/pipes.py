"""The kernel's end of one interchange: three ZeroMQ sockets on 127.0.0.1, always encrypted, and the threads on them.

A socket is used by one thread only: calls leave in one, results come in another, and the command socket is the pool's.
"""

from __future__ import annotations

import logging
import queue
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path

import zmq
from parsl.curvezmq import create_certificates
from parsl.executors.high_throughput.zmq_pipes import CommandClient, ResultsIncoming, TasksOutgoing

log = logging.getLogger(__name__)

ADDRESS = "127.0.0.1"
PORTS = (55000, 56000)
LOOK_MS = 200
"""How often a thread looks whether it shall end."""


class Pipes:
    """Three sockets for one interchange.

    Args:
        take: Called with each message of the interchange, in the thread of the results.
    """

    def __init__(self, take: Callable[[bytes], None]) -> None:
        self._take = take
        self._calls: queue.SimpleQueue[tuple[int, bytes]] = queue.SimpleQueue()
        self._ended = threading.Event()
        self._folder = tempfile.TemporaryDirectory(prefix="dcde-functions-")
        certificates = create_certificates(self._folder.name)
        self.certificates = {path.name: path.read_text() for path in Path(certificates).iterdir()}
        self._outgoing = TasksOutgoing(ADDRESS, PORTS, certificates)
        self._incoming = ResultsIncoming(ADDRESS, PORTS, certificates)
        self._command = CommandClient(ADDRESS, PORTS, certificates)
        self._asked = False
        self._threads = [
            threading.Thread(target=loop, name=f"dcde {loop.__name__.strip('_')}", daemon=True)
            for loop in (self._send, self._receive)
        ]
        for thread in self._threads:
            thread.start()

    @property
    def ports(self) -> list[int]:
        """The ports of tasks, results and commands."""
        ports = (self._outgoing.port, self._incoming.port, self._command.port)
        return [port for port in ports if port is not None]

    def send(self, number: int, call: bytes) -> None:
        """Have a packed call sent; returns at once."""
        self._calls.put((number, call))

    def worker_port(self) -> int | None:
        """Ask the interchange for the port of its workers; None when it has not answered yet. Never blocks long."""
        socket = self._command.zmq_socket
        if not self._asked:
            if not socket.poll(LOOK_MS, zmq.POLLOUT):
                return None
            socket.send_pyobj("WORKER_BINDS")
            self._asked = True
        return int(socket.recv_pyobj()) if socket.poll(LOOK_MS, zmq.POLLIN) else None

    def close(self) -> None:
        """Close the sockets; what was not sent is dropped."""
        self._ended.set()
        for thread in self._threads:
            thread.join()
        for socket in (self._outgoing.zmq_socket, self._incoming.results_receiver, self._command.zmq_socket):
            socket.close(linger=0)
        for pipe in (self._outgoing, self._incoming, self._command):
            pipe.zmq_context.term()  # type: ignore[no-untyped-call]
        self._folder.cleanup()

    def _send(self) -> None:
        socket = self._outgoing.zmq_socket
        while not self._ended.is_set():
            try:
                number, call = self._calls.get(timeout=LOOK_MS / 1000)
            except queue.Empty:
                continue
            # Without a peer a send would block for ever, and nobody could end the thread.
            while not socket.poll(LOOK_MS, zmq.POLLOUT):
                if self._ended.is_set():
                    return
            socket.send_pyobj({"task_id": number, "context": {}, "buffer": call})

    def _receive(self) -> None:
        socket = self._incoming.results_receiver
        while not self._ended.is_set():
            if socket.poll(LOOK_MS, zmq.POLLIN):
                try:
                    self._take(socket.recv())
                except Exception:
                    log.exception("a message of the interchange could not be used")
