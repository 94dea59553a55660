# SPDX-License-Identifier: GPL-2.0-or-later
"""A move beside a VM that was promised a part of the link."""

import contextlib
import subprocess
import sys
import time
from typing import Iterator

from dev.common import ROOT
from dev.rig.basics import GUEST_BUILD, require, run, wait_until
from dev.rig.cluster import VM, Cluster
from dev.rig.image import MIB
from dev.rig.scene import Scene
from dev.rig.vm import DiskConfig, MachineConfig
from tests.functional.lib.moves import fill_half
from tests.functional.lib.registry import test

LINK, PROMISED = 40.0, 25.0             # Mbit/s
SEEN = 15.0                             # s until an agent knows what db uses
PORT, SINK = 7000, 7001
GUEST, GATE = '10.0.2.15', '10.0.2.1'
TALKER = ROOT / 'tests/functional/lib/talker.py'


def talker(cluster: Cluster) -> None:
    """db at alpha: a QEMU whose tap carries what its user network sends."""
    scene, alpha, beta = cluster.scene, *cluster.hosts.values()
    ip = ['ip', '-n', alpha.netns]
    run(*ip, 'link', 'add', 'br0', 'type', 'bridge')
    run(*ip, 'addr', 'add', f'{GATE}/24', 'dev', 'br0')
    run(*ip, 'link', 'set', 'br0', 'up')
    run(*ip, 'tuntap', 'add', 'own0', 'mode', 'tap')
    run(*ip, 'link', 'set', 'own0', 'master', 'br0', 'up')
    run(*alpha.prefix(), 'sysctl', '-qw', 'net.ipv4.ip_forward=1',
        'net.ipv4.conf.br0.proxy_arp=1')
    # What db sends to is beta; what it hears comes back through alpha
    run(*ip, 'route', 'add', f'{GUEST}/32', 'via', beta.address)
    run('ip', '-n', beta.netns, 'addr', 'add', f'{GUEST}/32', 'dev', 'lo')
    run('ip', '-n', beta.netns, 'route', 'add', '10.0.2.0/24', 'via',
        alpha.address)
    run(*alpha.prefix(), str(scene.binary), '-name', 'db', '-nodefaults',
        '-display', 'none', '-L', str(GUEST_BUILD / 'firmware'),
        '-machine', 'pc', '-m', '32', '-netdev',
        f'user,id=u0,hostfwd=tcp:127.0.0.1:{PORT}-{GUEST}:{SINK}',
        '-netdev', 'tap,id=t0,ifname=own0,script=no,downscript=no',
        '-netdev', 'hubport,id=h0,hubid=0,netdev=u0',
        '-netdev', 'hubport,id=h1,hubid=0,netdev=t0',
        '-qmp', f'unix:{scene.folder}/db.qmp,server=on,wait=off',
        '-pidfile', str(cluster.folder('alpha') / 'run/vm/db/pid'),
        '-daemonize')
    cluster.ctl('vm', 'adopt', 'alpha', 'db')


@contextlib.contextmanager
def talking(cluster: Cluster, way: str = 'out') -> Iterator[None]:
    """Let db send, or hear, a little more than it was promised."""
    mbit = str(PROMISED * 1.08)
    commands = [
        (cluster.hosts['beta'], ['take', str(SINK)] if way == 'out'
         else ['give', str(SINK), mbit]),
        (cluster.hosts['alpha'], ['send', str(PORT), mbit] if way == 'out'
         else ['hear', str(PORT)])]
    with contextlib.ExitStack() as stack:
        for host, words in commands:
            process = stack.enter_context(subprocess.Popen(
                [*host.prefix(), sys.executable, str(TALKER), *words]))
            stack.callback(process.kill)
        start = sent(cluster, way)
        wait_until(lambda: sent(cluster, way) > start + MIB, 'db talks')
        yield


def sent(cluster: Cluster, way: str) -> int:
    """Bytes that db has sent or heard; of the tap it is the other way."""
    name = {'out': 'rx_bytes', 'in': 'tx_bytes'}[way]
    return int(run(*cluster.hosts['alpha'].prefix(), 'cat',
                   f'/sys/class/net/own0/statistics/{name}'))


def kept(cluster: Cluster, to: str, way: str) -> float:
    """Move the guest; return in which part of the seconds db had enough."""
    with talking(cluster, way):
        before, then, good = sent(cluster, way), time.monotonic(), []
        move = cluster.popen('migrate', VM, '--to', to)
        while move.poll() is None:
            time.sleep(1)
            after, now = sent(cluster, way), time.monotonic()
            mbit = (after - before) * 8 / 1e6 / (now - then)
            good.append(mbit >= 0.95 * PROMISED)
            before, then = after, now
    cluster.end(move)
    return sum(good) / len(good)


def promise(cluster: Cluster, text: str) -> None:
    """Promise db something."""
    path = cluster.spec_path('alpha').with_name('db.toml')
    lines = path.read_text('utf-8').split('\n[sla]')[0]
    path.write_text(f'{lines}\n[sla]\n{text}\n', 'utf-8')


@test(MachineConfig((DiskConfig(size=32 * MIB),)), slow=True)
def wsmctl_guard(scene: Scene) -> None:
    """With a promise the move is slow, without one the other VM is."""
    cluster = Cluster(scene, mbit=round(LINK), options=['--network', 'lan=br0'])
    with cluster:
        cluster.link.set_rate(f'{LINK:.0f}mbit')
        (cluster.folder('alpha') / 'run/vm/db').mkdir(parents=True)
        cluster.guest()
        fill_half(scene)
        talker(cluster)
        free = [kept(cluster, 'beta', 'out'), kept(cluster, 'alpha', 'in')]
        held = []
        for way, to in (('out', 'beta'), ('in', 'alpha')):
            promise(cluster, f'net_mbit_min = {{ {way} = {PROMISED} }}')
            with talking(cluster, way):
                time.sleep(SEEN)        # what db uses is seen each second
            held.append(kept(cluster, to, way))
        scene.guest.wait_progress(beats=10)
        scene.guest.verify()
        for index, where in enumerate(('leaves db', 'comes to db')):
            print(f'# a VM that {where}: without a promise {free[index]:.0%} '
                  f'of the seconds, with it {held[index]:.0%}')
            require(free[index] < 0.7 < held[index],
                    f'{free} without a promise, {held} with it')
