# SPDX-License-Identifier: GPL-2.0-or-later
"""A controller that moves a neighbour off a link which another VM needs."""

import contextlib
import re
import subprocess
import sys
import time
from typing import Callable, Iterator

from dev.rig.basics import require, run
from dev.rig.cluster import VM
from dev.rig.host import Host
from dev.rig.image import MIB
from dev.rig.scene import Scene, query
from dev.rig.vm import DiskConfig, MachineConfig
from tests.functional.lib.daemon import Watched
from tests.functional.lib.moves import fill_half
from tests.functional.lib.registry import test
from tests.functional.test_wsmctl_guard import TALKER, talker

LINK, PROMISED, FLOOD = 60, 40.0, 50.0      # Mbit/s
WIDE = 10000                                # of beta's own link
SINK, PORT = 7001, 7000
NEIGHBOUR, CARD = '10.0.3.9', '02:00:00:00:03:09'
TAP = 'own1'                                # of the neighbour, at alpha
WINDOW = 2.0                                # s over which a rate is taken


class Flooded(Watched):
    """alpha is behind a narrow link; both hosts have a bridge."""

    # A tap without a card: what comes through it nobody hears
    devices = ('-netdev', f'tap,id=t0,ifname={TAP},script=no,downscript=no')

    def __init__(self, scene: Scene) -> None:
        super().__init__(scene)
        self.mbit = LINK
        self.options = ('--network', 'lan=br0')

    def __enter__(self) -> 'Flooded':
        super().__enter__()
        return self

    def add(self, name: str, host: Host) -> None:
        """CPUs there are enough."""
        super().add(name, host)
        path = self.folder(name) / 'etc/agent.toml'
        text = re.sub(r'(?m)^cores = .*$', 'cores = 64.0',
                      path.read_text('utf-8'))
        if name == 'beta':
            text = re.sub(r'(?m)^mbit = .*$', f'mbit = {WIDE}', text)
        path.write_text(text, 'utf-8')

    def wire(self) -> None:
        """Let the neighbour's clients be beyond beta."""
        alpha, beta = self.hosts.values()
        ip = ['ip', '-n', alpha.netns]
        run(*ip, 'tuntap', 'add', TAP, 'mode', 'tap')
        run(*ip, 'link', 'set', TAP, 'master', 'br0', 'up')
        run(*ip, 'addr', 'add', '10.0.3.1/24', 'dev', 'br0')
        run(*ip, 'neigh', 'replace', NEIGHBOUR, 'lladdr', CARD, 'dev', 'br0',
            'nud', 'permanent')
        run('bridge', '-n', alpha.netns, 'fdb', 'add', CARD, 'dev', TAP,
            'master', 'static')
        ip = ['ip', '-n', beta.netns]
        run(*ip, 'link', 'add', 'br0', 'type', 'bridge')
        run(*ip, 'link', 'set', 'br0', 'up')
        run(*ip, 'route', 'add', f'{NEIGHBOUR}/32', 'via', alpha.address)

    def follow(self) -> None:
        """Let the clients' packets go to where the neighbour is now."""
        ip = ['ip', '-n', self.hosts['beta'].netns]
        run(*ip, 'route', 'replace', f'{NEIGHBOUR}/32', 'dev', 'br0')
        run(*ip, 'neigh', 'replace', NEIGHBOUR, 'lladdr', CARD, 'dev', 'br0',
            'nud', 'permanent')

    def heard(self) -> float:
        """Return what db hears now, in Mbit/s."""
        def count() -> int:
            return int(run(*self.hosts['alpha'].prefix(), 'cat',
                           '/sys/class/net/own0/statistics/tx_bytes'))

        before, then = count(), time.monotonic()
        time.sleep(WINDOW)
        return (count() - before) * 8 / 1e6 / (time.monotonic() - then)


@contextlib.contextmanager
def running(host: Host, *words: str) -> Iterator[None]:
    """Let a talker talk."""
    with subprocess.Popen([*host.prefix(), sys.executable, str(TALKER),
                           *words]) as process:
        try:
            yield
        finally:
            process.kill()


def heard_soon(cluster: Flooded, good: Callable[[float], bool],
               what: str) -> float:
    """Wait until db hears so much; return it."""
    seen = [0.0]

    def look() -> bool:
        seen[0] = cluster.heard()
        return good(seen[0])

    cluster.expect_soon(look, what)
    return seen[0]


@test(MachineConfig((DiskConfig(size=32 * MIB),)), slow=True)
def controller_net(scene: Scene) -> None:
    """A neighbour floods the link of a VM with a promise, and is moved."""
    with Flooded(scene) as cluster:
        cluster.link.set_rate(f'{LINK}mbit')
        alpha, beta = cluster.hosts.values()
        (cluster.folder('alpha') / 'run/vm/db').mkdir(parents=True)
        talker(cluster)
        cluster.wire()
        source = cluster.guest()
        fill_half(scene)
        path = cluster.spec_path('alpha').with_name('db.toml')
        path.write_text(path.read_text('utf-8') + '\n[sla]\ncpu_wait_max = '
                        f'1.0\nnet_mbit_min = {{ in = {PROMISED} }}\n', 'utf-8')
        cluster.start_controller()
        with running(beta, 'give', str(SINK), str(PROMISED * 1.08)), \
                running(alpha, 'hear', str(PORT)):
            before = heard_soon(cluster, lambda rate: rate > PROMISED,
                                'db hears what it was promised')
            cluster.set_mode('auto')
            with running(beta, 'flood', '9', str(FLOOD), NEIGHBOUR):
                begun = time.time()
                worst = heard_soon(cluster, lambda rate: rate
                                   < 0.8 * PROMISED, 'db lacks it')
                cluster.expect_soon(lambda: query(source)['phase'] != 'none',
                                    'the neighbour moves')
                print(f'# decided {time.time() - begun:.0f} s after the '
                      'flood began')
                cluster.expect_soon(lambda: cluster.owner('beta') == 'owner',
                                    'it is elsewhere')
                cluster.follow()
                after = heard_soon(cluster, lambda rate: rate > PROMISED,
                                   'db hears it again')
        source.wait_exit()
        print(f'# db hears {before:.0f}, {worst:.0f}, {after:.0f} Mbit/s')
        # The guard of moves may have held back a first try: db lacked already
        cluster.expect_soon(lambda: cluster.json('report')['moves'].get(
            'moved') == 1, 'one move')
        cluster.expect_soon(lambda: cluster.says(0, 'explain', 'vm', VM),
                            'it is known where it is now')
        text = cluster.ctl('explain', 'vm', VM)
        require("alpha's received traffic was over its limit" in text
                or 'db on alpha lacks' in text, text)
        hosts = {row['name']: row['host']
                 for row in cluster.json('vm', 'list')['vms']}
        require(hosts == {VM: 'beta', 'db': 'alpha'}, f'{hosts}')
        scene.guest.wait_progress(beats=10)
        scene.guest.stop()
        scene.guest.verify()
