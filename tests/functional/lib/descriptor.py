# SPDX-License-Identifier: GPL-2.0-or-later
"""A tool that connects itself, and gives QEMU the socket."""

import socket
import threading
from typing import Any

from dev.rig.relay import Relay
from dev.rig.scene import enable
from dev.rig.vm import Vm

NAME = 'migrate'
URI = f'fd:{NAME}'


def connect(port: int, host: str = '127.0.0.1') -> socket.socket:
    """A TCP socket that is connected to a port of this host."""
    return socket.create_connection((host, port))


def connect_to(destination: 'Vm | Relay') -> socket.socket:
    port = (destination.port if isinstance(destination, Relay)
            else destination.listen_port())
    return connect(port)


def pass_on(source: Vm, sock: socket.socket) -> None:
    """Give the socket away, as "fd:migrate"."""
    source.qmp.pass_fd(NAME, sock.fileno())
    sock.close()


def begin_by(source: Vm, sock: socket.socket, **options: Any) -> None:
    """Start the migration over a socket that is connected."""
    enable(source, **options)
    source.set_caps('events')
    pass_on(source, sock)
    source.qmp.cmd('migrate', uri=URI)


class Proxy:
    """Takes one connection and forwards it; then it is closed, or deaf."""

    def __init__(self, port: int, deaf: bool) -> None:
        self._listener = socket.create_server(('127.0.0.1', 0))
        self.port: int = self._listener.getsockname()[1]
        self._target = connect(port)
        self.client = connect(self.port)
        self._served, _ = self._listener.accept()
        if not deaf:
            self._listener.close()
        for a, b in ((self._served, self._target),
                     (self._target, self._served)):
            threading.Thread(target=self._forward, args=(a, b),
                             daemon=True).start()

    @staticmethod
    def _forward(a: socket.socket, b: socket.socket) -> None:
        try:
            while data := a.recv(65536):
                b.sendall(data)
            b.shutdown(socket.SHUT_WR)
        except OSError:
            pass

    def close(self) -> None:
        for sock in (self._listener, self._served, self._target):
            sock.close()
