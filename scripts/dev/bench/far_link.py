# SPDX-License-Identifier: GPL-2.0-or-later
"""A link that is far: each frame takes its time, and some are lost.

The two namespaces have a tap device each, and a process of its own carries
the frames from one to the other: carrier.py, run as a program.  Where no
frame is to be lost, the devices leave TCP segmentation to each other, so
what is carried are pieces of up to 64 KiB, and little time is spent on it.
Its speed is measured with TCP in the section that uses it.
"""

import fcntl
import os
import struct
import subprocess
import sys
from pathlib import Path

from dev.rig.basics import TestFailure, run
from dev.rig.host import Host, Link

CARRIER = Path(__file__).with_name('carrier.py')
# Linux's <linux/if_tun.h>
TUNSETIFF, TUNSETOFFLOAD = 0x400454ca, 0x400454d0
IFF_TAP, IFF_NO_PI, IFF_VNET_HDR = 0x2, 0x1000, 0x4000
TUN_F_CSUM, TUN_F_TSO4 = 0x1, 0x2
# Linux's own values, whatever this machine was tuned for
CONGESTION_CONTROL = 'cubic'
BUFFERS = {'tcp_rmem': '4096 131072 6291456',
           'tcp_wmem': '4096 16384 4194304'}


def open_tap(name: str, whole: bool) -> int:
    """A tap device; @whole: with TCP's data not yet cut into segments."""
    fd = os.open('/dev/net/tun', os.O_RDWR | os.O_NONBLOCK)
    fcntl.ioctl(fd, TUNSETIFF, struct.pack(
        '16sH22x', name.encode(), IFF_TAP | IFF_NO_PI | IFF_VNET_HDR))
    fcntl.ioctl(fd, TUNSETOFFLOAD, TUN_F_CSUM | TUN_F_TSO4 if whole else 0)
    return fd


class DelayedLink(Link):
    """As Link, but with a delay each way, in seconds, and losses (0..1)."""

    def __init__(self, rate: str | None, delay: float,
                 loss: float = 0.0) -> None:
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
                [sys.executable, str(CARRIER), *map(str, taps),
                 str(self._delay), str(self._loss)],
                stdin=subprocess.PIPE, pass_fds=taps)
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


def probe(link: Link) -> dict[str, float]:
    """Round trip in seconds and bytes per second of one TCP connection."""
    command = [sys.executable, str(CARRIER)]
    with subprocess.Popen([*link.b.prefix(), *command, 'receive'],
                          stdout=subprocess.PIPE, text=True) as receiver:
        assert receiver.stdout
        receiver.stdout.readline()      # it listens
        trip = run(*link.a.prefix(), *command, 'send', link.b.address)
        speed = receiver.stdout.readline()
        if receiver.wait():
            raise TestFailure('the probe of the link failed')
    return {'round trip': float(trip), 'tcp': float(speed)}
