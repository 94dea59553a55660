# SPDX-License-Identifier: GPL-2.0-or-later
"""Two hosts on one machine: network namespaces joined by a slow link."""

import itertools
import os
from dataclasses import dataclass
from typing import Optional

from dev.rig.basics import Skip, TestFailure, run

_numbers = itertools.count()


@dataclass(frozen=True)
class Host:
    """A network namespace with one address."""
    netns: str
    device: str
    address: str

    def prefix(self) -> list[str]:
        """What to put before a command to run it on this host."""
        return ['ip', 'netns', 'exec', self.netns]

    def sent_bytes(self) -> int:
        """Bytes that left this host through the link, headers included."""
        return int(run(*self.prefix(), 'cat',
                       f'/sys/class/net/{self.device}/statistics/tx_bytes'))


class Link:
    """Two hosts and the wire between them; close() removes all of it."""

    def __init__(self, rate: Optional[str] = None) -> None:
        if os.geteuid() != 0:
            raise Skip('network namespaces need root')
        tag = f'{os.getpid() % 100000}x{next(_numbers)}'
        self.a = Host(f'wsm-a-{tag}', 'wsm0', '10.211.0.1')
        self.b = Host(f'wsm-b-{tag}', 'wsm0', '10.211.0.2')
        try:
            self._build(f'wa{tag}', f'wb{tag}')
            if rate:
                self.set_rate(rate)
        except TestFailure as err:
            self.close()
            raise Skip(f'no network namespaces: {err}') from err

    def _build(self, temp_a: str, temp_b: str) -> None:
        for host in (self.a, self.b):
            run('ip', 'netns', 'add', host.netns)
        run('ip', 'link', 'add', temp_a, 'type', 'veth',
            'peer', 'name', temp_b)
        for host, temp in ((self.a, temp_a), (self.b, temp_b)):
            run('ip', 'link', 'set', temp, 'netns', host.netns)
            inside = ['ip', '-n', host.netns]
            run(*inside, 'link', 'set', temp, 'name', host.device)
            run(*inside, 'addr', 'add', f'{host.address}/24',
                'dev', host.device)
            run(*inside, 'link', 'set', host.device, 'up')
            run(*inside, 'link', 'set', 'lo', 'up')

    def set_rate(self, rate: str) -> None:
        """Limit both directions, in tc's words: "160mbit"."""
        for host in (self.a, self.b):
            run('tc', '-n', host.netns, 'qdisc', 'replace', 'dev',
                host.device, 'root', 'tbf', 'rate', rate,
                'burst', '128kb', 'latency', '50ms')

    def set_up(self, up: bool) -> None:
        """Pull the cable (False) or put it back."""
        run('ip', '-n', self.a.netns, 'link', 'set', self.a.device,
            'up' if up else 'down')

    def set_silent(self, silent: bool) -> None:
        """Swallow all packets (True) without a word, or deliver them again."""
        for host, peer in ((self.a, self.b), (self.b, self.a)):
            words = ['ip', '-n', host.netns, 'neigh']
            where = [peer.address, 'dev', host.device]
            if silent:      # they go to a card that is not there
                run(*words, 'replace', *where, 'lladdr', '02:00:00:00:00:00',
                    'nud', 'permanent')
            else:
                run(*words, 'del', *where)

    def reset(self) -> None:
        """Break all connections between the two hosts, at both ends."""
        for host, peer in ((self.a, self.b), (self.b, self.a)):
            run(*host.prefix(), 'ss', '-K', '-t', 'dst', peer.address)

    def close(self) -> None:
        for host in (self.a, self.b):
            try:
                run('ip', 'netns', 'del', host.netns)
            except TestFailure:
                pass    # it was never made
