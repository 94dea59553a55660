# SPDX-License-Identifier: GPL-2.0-or-later
"""Nodes of a ring: memcached servers, of which one may be slow."""

import contextlib
import queue
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Optional, Protocol, TypeAlias

from dev.rig.basics import wait_until
from wsm.templates import ring_client

NAMES = ('alpha', 'beta', 'gamma')
CHUNK = 1 << 16
# When each is due, by time.monotonic(); nothing: that was all
Answers: TypeAlias = 'queue.SimpleQueue[tuple[float, bytes]]'


class Place(Protocol):
    """Who can be asked."""
    name: str
    address: str


def free_port() -> int:
    with socket.create_server(('127.0.0.1', 0)) as sock:
        port: int = sock.getsockname()[1]
        return port


class Memcached:
    """A server, on a Unix socket or, with TLS, on a port."""

    def __init__(self, folder: Path, name: str, *options: str,
                 tls: Optional[Path] = None) -> None:
        self.name = name
        if tls:
            port = free_port()
            self.address = f'localhost:{port}'
            where = ['-l', '127.0.0.1', '-p', str(port), '-Z', '-o',
                     f'ssl_chain_cert={tls}/node-cert.pem,'
                     f'ssl_key={tls}/node-key.pem,ssl_verify_mode=2,'
                     f'ssl_ca_cert={tls}/ca-cert.pem']
            self._probe: tuple[int, Any] = (socket.AF_INET,
                                            ('127.0.0.1', port))
        else:
            path = folder / f'{name}.sock'
            self.address = f'unix:{path}'
            where = ['-s', str(path)]
            self._probe = (socket.AF_UNIX, str(path))
        self._command = ['memcached', '-u', 'root', '-U', '0', *where,
                         *(options or ('-M', '-m', '256'))]
        self._process: Optional[subprocess.Popen[bytes]] = None
        self.start()

    def _is_up(self) -> bool:
        with socket.socket(self._probe[0]) as sock:
            return sock.connect_ex(self._probe[1]) == 0

    def start(self) -> None:
        """Start it, with nothing in it."""
        # pylint: disable-next=consider-using-with
        self._process = subprocess.Popen(self._command)
        wait_until(self._is_up, f'memcached {self.name}')

    def stop(self) -> None:
        """Let it say nothing more."""
        assert self._process
        self._process.send_signal(signal.SIGSTOP)

    def kill(self) -> None:
        """End it at once, whatever it does."""
        if self._process:
            self._process.kill()
            self._process.wait()
            self._process = None

    @property
    def place(self) -> ring_client.Place:
        return ring_client.Place(self.name, self.address)

    def overwrite(self, hashes: list[bytes], value: bytes) -> None:
        """Have it say @value for each of these pages."""
        node = ring_client.Node(self.place, None)
        for first in range(0, len(hashes), ring_client.AT_ONCE):
            node.put([(page, value)
                      for page in hashes[first:first + ring_client.AT_ONCE]])
        node.close()


@dataclass(frozen=True)
class Manner:
    """How a node is slow: when its answers begin, and how they go on."""
    delay: float = 0.0              # s
    piece: int = CHUNK              # bytes at a time
    pause: float = 0.0              # s between them


class SlowNode:
    """Stands before a server, and lets its answers wait; close() ends it."""

    def __init__(self, server: Memcached, manner: Manner) -> None:
        self.name = server.name
        path = server.address.removeprefix('unix:')
        self.address = f'unix:{path}-slow'
        self._path = path
        self._manner = manner
        self._closing = threading.Event()
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(f'{path}-slow')
        self._listener.listen()
        self._sockets: list[socket.socket] = []
        self.asked = 0                  # bytes, as is
        self.answered = 0               # what was held up and then passed on
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client = self._listener.accept()[0]
                server = socket.socket(socket.AF_UNIX)
                self._sockets += [client, server]
                server.connect(self._path)
                answers: Answers = queue.SimpleQueue()
                threading.Thread(target=self._ask, args=(client, server),
                                 daemon=True).start()
                threading.Thread(target=self._receive, args=(server, answers),
                                 daemon=True).start()
                threading.Thread(target=self._answer, args=(client, answers),
                                 daemon=True).start()

    def _ask(self, client: socket.socket, server: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := client.recv(CHUNK):
                self.asked += len(data)
                server.sendall(data)
            server.shutdown(socket.SHUT_RDWR)

    def _receive(self, server: socket.socket, answers: Answers) -> None:
        data = b'-'
        while data:
            try:
                data = server.recv(CHUNK)
            except OSError:
                data = b''
            answers.put((time.monotonic() + self._manner.delay, data))

    def _answer(self, client: socket.socket, answers: Answers) -> None:
        piece = self._manner.piece
        with contextlib.suppress(OSError):
            while True:
                due, data = answers.get()
                if not data or self._closing.wait(due - time.monotonic()):
                    break
                for first in range(0, len(data), piece):
                    client.sendall(data[first:first + piece])
                    self.answered += len(data[first:first + piece])
                    if self._closing.wait(self._manner.pause):
                        break
            client.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        self._closing.set()
        for sock in (self._listener, *self._sockets):
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
            sock.close()


@contextlib.contextmanager
def running(folder: Path, *options: str, tls: Optional[Path] = None
            ) -> Iterator[list[Memcached]]:
    """Three nodes, until the end."""
    nodes: list[Memcached] = []
    try:
        for name in NAMES:
            nodes.append(Memcached(folder, name, *options, tls=tls))
        yield nodes
    finally:
        for node in nodes:
            node.kill()


def on_command_line(nodes: list[Memcached]) -> list[str]:
    """What tells wsm-templates of them."""
    return [word for node in nodes
            for word in ('--node', f'{node.name}={node.address}')]


def for_qmp(nodes: Sequence[Place], **more: Any) -> dict[str, Any]:
    """What tells QEMU of them."""
    return {'nodes': [{'name': node.name, 'address': node.address}
                      for node in nodes],
            **{key.replace('_', '-'): value for key, value in more.items()}}
