# SPDX-License-Identifier: GPL-2.0-or-later
"""Somebody at the destination's port."""

import socket

from dev.rig.basics import TIMEOUT, TestFailure


class Stranger:
    """A connection that sends what it likes."""

    def __init__(self, port: int, data: bytes) -> None:
        self.sock = socket.create_connection(('127.0.0.1', port), TIMEOUT)
        try:
            self.sock.sendall(data)
        except OSError:
            pass    # already thrown out

    def end_sending(self) -> None:
        try:
            self.sock.shutdown(socket.SHUT_WR)
        except OSError:
            pass    # already thrown out

    def receive_all(self) -> bytes:
        """What QEMU answers until it closes the connection."""
        data = b''
        while True:
            try:
                chunk = self.sock.recv(65536)
            except socket.timeout as err:
                raise TestFailure('QEMU does not close the connection of a '
                                  f'stranger, it sent {data!r}') from err
            except ConnectionError:
                return data
            if not chunk:
                return data
            data += chunk

    def close(self) -> None:
        self.sock.close()
