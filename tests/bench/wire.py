# SPDX-License-Identifier: GPL-2.0-or-later
"""A link that is far: each frame takes its time, and some are lost.

The two namespaces have a tap device each, and a process of its own carries
the frames from one to the other: this file, run as a program.  Where no
frame is to be lost, the devices leave TCP segmentation to each other, so
what is carried are pieces of up to 64 KiB, and little time is spent on it.
Its speed is measured with TCP in the section that uses it.
"""

import fcntl
import os
import random
import select
import socket
import statistics
import struct
import subprocess
import sys
import time
from collections import deque
from pathlib import Path

# For the program, whose path has only this folder
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / 'functional'))
# pylint: disable=wrong-import-position
from lib.common import TestFailure, run                 # noqa: E402
from lib.host import Host, Link                         # noqa: E402

# Linux's <linux/if_tun.h>
TUNSETIFF, TUNSETOFFLOAD = 0x400454ca, 0x400454d0
IFF_TAP, IFF_NO_PI, IFF_VNET_HDR = 0x2, 0x1000, 0x4000
TUN_F_CSUM, TUN_F_TSO4 = 0x1, 0x2
LARGEST = 70000                 # bytes of a frame with all headers
AT_ONCE = 64                    # frames read before others are due
# Linux's own values, whatever this machine was tuned for
CONGESTION_CONTROL = 'cubic'
BUFFERS = {'tcp_rmem': '4096 131072 6291456',
           'tcp_wmem': '4096 16384 4194304'}
PROBE_PORT, CONNECTS = 5001, 5
START_SECONDS, PROBE_SECONDS = 2.0, 2.0     # of TCP's start; measured


def open_tap(name: str, whole: bool) -> int:
    """A tap device; @whole: with TCP's data not yet cut into segments."""
    fd = os.open('/dev/net/tun', os.O_RDWR | os.O_NONBLOCK)
    fcntl.ioctl(fd, TUNSETIFF, struct.pack(
        '16sH22x', name.encode(), IFF_TAP | IFF_NO_PI | IFF_VNET_HDR))
    fcntl.ioctl(fd, TUNSETOFFLOAD, TUN_F_CSUM | TUN_F_TSO4 if whole else 0)
    return fd


class DelayedLink(Link):
    """As Link, but with a delay each way, in seconds, and losses (0..1)."""

    def __init__(self, rate: str, delay: float, loss: float = 0.0) -> None:
        self._delay, self._loss = delay, loss
        self._relay: 'subprocess.Popen[bytes] | None' = None
        super().__init__(rate)

    def _build(self, temp_a: str, temp_b: str) -> None:
        temps = (temp_a, temp_b)
        taps = [open_tap(temp, not self._loss) for temp in temps]
        try:
            for host, temp in zip((self.a, self.b), temps):
                self._set_up_host(host, temp)
            # pylint: disable-next=consider-using-with
            self._relay = subprocess.Popen(
                [sys.executable, __file__, *map(str, taps), str(self._delay),
                 str(self._loss)], stdin=subprocess.PIPE, pass_fds=taps)
        finally:
            for tap in taps:
                os.close(tap)

    @staticmethod
    def _set_up_host(host: Host, temp: str) -> None:
        run('ip', 'netns', 'add', host.netns)
        run('ip', 'link', 'set', temp, 'netns', host.netns)
        inside = ['ip', '-n', host.netns]
        run(*inside, 'link', 'set', temp, 'name', host.device)
        run(*inside, 'addr', 'add', f'{host.address}/24', 'dev', host.device)
        run(*inside, 'link', 'set', host.device, 'up')
        run(*inside, 'link', 'set', 'lo', 'up')
        # A namespace may not choose it for all, but for each of its routes
        run(*inside, 'route', 'replace', '10.211.0.0/24', 'dev', host.device,
            'proto', 'kernel', 'scope', 'link', 'src', host.address,
            'congctl', CONGESTION_CONTROL)
        for name, value in BUFFERS.items():
            run(*host.prefix(), 'sh', '-c',
                f'echo "{value}" > /proc/sys/net/ipv4/{name}')

    def close(self) -> None:
        if self._relay and self._relay.stdin:
            self._relay.stdin.close()
            self._relay.wait()
        super().close()


# What it is like

def probe(link: Link) -> dict[str, float]:
    """Round trip in seconds and bytes per second of one TCP connection."""
    command = [sys.executable, __file__]
    with subprocess.Popen([*link.b.prefix(), *command, 'receive'],
                          stdout=subprocess.PIPE, text=True) as receiver:
        assert receiver.stdout
        receiver.stdout.readline()      # it listens
        trip = run(*link.a.prefix(), *command, 'send', link.b.address)
        speed = receiver.stdout.readline()
        if receiver.wait():
            raise TestFailure('the probe of the link failed')
    return {'round trip': float(trip), 'tcp': float(speed)}


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


# The program: frames under way are (when it is due, the frame)


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
