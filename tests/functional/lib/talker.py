# SPDX-License-Identifier: GPL-2.0-or-later
"""Play a VM that sends over the link of moves; python3 talker.py MODE PORT.

QEMU's user network is the VM's TCP: whoever connects to a port of it at the
VM's host (MODE send MBIT) lets it send through its tap to a port at the other
host (MODE take); or that one sends (MODE give MBIT) what is heard (MODE hear).
"""

import contextlib
import socket
import sys
import time

CHUNK = 16384


def drink(stream: socket.socket) -> None:
    """Read all that comes."""
    while stream.recv(1 << 16):
        pass


def pour(stream: socket.socket, mbit: float) -> None:
    """Send so much, and no more than that later on."""
    due = time.monotonic()
    while True:
        stream.sendall(bytes(CHUNK))
        now = time.monotonic()
        due = max(due, now - 0.1) + CHUNK * 8 / mbit / 1e6
        time.sleep(max(0.0, due - now))


def main() -> None:
    """Do as the command line says, again and again."""
    mode, port, mbit = sys.argv[1], int(sys.argv[2]), sys.argv[3:]
    work = (drink if mode in ('take', 'hear')
            else lambda stream: pour(stream, float(mbit[0])))
    with contextlib.ExitStack() as stack:
        server = (stack.enter_context(socket.create_server(('', port)))
                  if mode in ('take', 'give') else None)
        while True:
            try:
                with (server.accept()[0] if server else
                      socket.create_connection(('127.0.0.1', port))) as stream:
                    work(stream)
            except OSError:
                time.sleep(0.1)     # the other side is not there yet


if __name__ == '__main__':
    main()
