# SPDX-License-Identifier: GPL-2.0-or-later
"""Play a VM that sends over the link of moves; python3 talker.py MODE PORT.

QEMU's user network is the VM's TCP: whoever connects to a port of it at the
VM's host (MODE send MBIT) lets it send through its tap to a port at the other
host (MODE take); or that one sends (MODE give MBIT) what is heard (MODE hear).
MODE flood MBIT ADDRESS sends packets there that nobody answers.
"""

import contextlib
import socket
import sys
import time

CHUNK = 16384
PACKET = 1400


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


def flood(where: tuple[str, int], mbit: float) -> None:
    """Send packets, whoever takes them."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        due = time.monotonic()
        while True:
            with contextlib.suppress(OSError):
                sender.sendto(bytes(PACKET), where)
            now = time.monotonic()
            due = max(due, now - 0.1) + PACKET * 8 / mbit / 1e6
            if due > now + 0.005:
                time.sleep(due - now)


def main() -> None:
    """Do as the command line says, again and again."""
    mode, port, mbit = sys.argv[1], int(sys.argv[2]), sys.argv[3:]
    if mode == 'flood':
        flood((mbit[1], port), float(mbit[0]))
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
