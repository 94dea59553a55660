# SPDX-License-Identifier: GPL-2.0-or-later
"""The program behind far_link.py: carries frames, or measures a link.

It is run as a file, on either host, and has nothing but Python's library.
"""

import os
import random
import select
import socket
import statistics
import sys
import time
from collections import deque

LARGEST = 70000                 # bytes of a frame with all headers
AT_ONCE = 64                    # frames read before others are due
PROBE_PORT, CONNECTS = 5001, 5
START_SECONDS, PROBE_SECONDS = 2.0, 2.0     # of TCP's start; measured


def send(address: str) -> None:
    """Connect some times, then send; prints the round trip."""
    trips = []
    for _ in range(CONNECTS):
        start = time.monotonic()
        socket.create_connection((address, PROBE_PORT)).close()
        trips.append(time.monotonic() - start)
    print(statistics.median(trips))
    with socket.create_connection((address, PROBE_PORT)) as conn:
        data = bytes(1 << 16)
        end = time.monotonic() + START_SECONDS + PROBE_SECONDS
        while time.monotonic() < end:
            try:
                conn.sendall(data)
            except ConnectionError:
                break       # it has seen enough


def receive() -> None:
    """Prints the speed of the last connection after its start."""
    with socket.create_server(('', PROBE_PORT)) as server:
        print('listening', flush=True)
        for _ in range(CONNECTS):
            server.accept()[0].close()
        conn = server.accept()[0]
        start, count = time.monotonic() + START_SECONDS, 0
        now = 0.0
        while now < start + PROBE_SECONDS and (data := conn.recv(1 << 20)):
            now = time.monotonic()
            count += len(data) if now > start else 0
        conn.close()
    print(count / (now - start), flush=True)


# Frames under way are (when it is due, the frame)

def take_in(tap: int, frames: 'deque[tuple[float, bytes]]', delay: float,
            loss: float) -> None:
    due = time.monotonic() + delay
    for _ in range(AT_ONCE):
        try:
            frame = os.read(tap, LARGEST)
        except BlockingIOError:
            return
        if not loss or random.random() >= loss:
            frames.append((due, frame))


def put_out(tap: int, frames: 'deque[tuple[float, bytes]]') -> None:
    """Deliver what is due."""
    now = time.monotonic()
    while frames and frames[0][0] <= now:
        try:
            os.write(tap, frames.popleft()[1])
        except OSError:
            pass        # the device is down: as if the cable was pulled


def carry(one: int, other: int, delay: float, loss: float) -> None:
    """Until standard input ends, as it does with whoever started us."""
    under_way: list['deque[tuple[float, bytes]]'] = [deque(), deque()]
    while True:
        due = [frames[0][0] for frames in under_way if frames]
        wait = max(0.0, min(due) - time.monotonic()) if due else None
        ready = select.select([one, other, sys.stdin], [], [], wait)[0]
        if sys.stdin in ready:
            return
        for tap, peer, frames in ((one, other, under_way[0]),
                                  (other, one, under_way[1])):
            if tap in ready:
                take_in(tap, frames, delay, loss)
            put_out(peer, frames)


if __name__ == '__main__':
    if sys.argv[1] == 'send':
        send(sys.argv[2])
    elif sys.argv[1] == 'receive':
        receive()
    else:
        carry(int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3]),
              float(sys.argv[4]))
