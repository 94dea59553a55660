# SPDX-License-Identifier: GPL-2.0-or-later
"""Play a VM that sends over the link of moves; python3 talker.py MODE PORT.

QEMU's user network is the VM's TCP: whoever connects to a port of it at the
VM's host (MODE send MBIT) lets it send through its tap to a port at the other
host (MODE take).
"""

import socket
import sys
import time

CHUNK = 16384


def take(port: int) -> None:
    """Read all that comes."""
    with socket.create_server(('', port)) as server:
        while True:
            stream, _ = server.accept()
            with stream:
                while stream.recv(1 << 16):
                    pass


def send(port: int, mbit: float) -> None:
    """Send so much, and no more than that later on, again and again."""
    while True:
        try:
            with socket.create_connection(('127.0.0.1', port)) as stream:
                due = time.monotonic()
                while True:
                    stream.sendall(bytes(CHUNK))
                    now = time.monotonic()
                    due = max(due, now - 0.1) + CHUNK * 8 / mbit / 1e6
                    time.sleep(max(0.0, due - now))
        except OSError:
            time.sleep(0.1)     # the other side is not there yet


if __name__ == '__main__':
    if sys.argv[1] == 'take':
        take(int(sys.argv[2]))
    else:
        send(int(sys.argv[2]), float(sys.argv[3]))
