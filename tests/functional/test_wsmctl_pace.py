# SPDX-License-Identifier: GPL-2.0-or-later
"""Moves beside a VM whose disk was promised to be fast, and with a deadline."""

import contextlib
import itertools
import os
import socket
import time
from pathlib import Path
from typing import Iterator

from dev.rig.basics import GUEST_BUILD, Skip, require, run, wait_until
from dev.rig.cluster import VM, Cluster
from dev.rig.image import MIB
from dev.rig.qmp import Qmp, QmpClosed
from dev.rig.scene import Scene
from dev.rig.vm import DiskConfig, MachineConfig, Vm
from wsm.agent.latency import BOUNDS, p95
from tests.functional.lib.moves import LOAD, fill_half
from tests.functional.lib.registry import test

LINK = 40.0                     # Mbit/s, with a deadline
DEADLINE = 60.0                 # s
DISK = 24 * MIB                 # bytes/s of the disk that both VMs use
PROMISED = 100.0                # ms
READS = 20                      # a second
FIRST = 5                       # s in which the guard may learn
GROUPS = Path('/sys/fs/cgroup/blkio')
DEVICE = '/machine/peripheral/d0/virtio-backend'
KINDS = ('rd_latency_histogram', 'wr_latency_histogram')


@contextlib.contextmanager
def slow_disk(scene: Scene, *pids: int) -> Iterator[None]:
    """Let these processes read no faster than DISK together."""
    group = GROUPS / scene.folder.name
    try:
        group.mkdir()
    except OSError as error:
        raise Skip(f'needs cgroup v1 with blkio: {error}') from error
    try:
        name = run('df', '--output=source', str(scene.folder)).split()[-1]
        number = os.stat(name).st_rdev
        (group / 'blkio.throttle.read_bps_device').write_text(
            f'{os.major(number)}:{os.minor(number)} {DISK}', 'ascii')
        for pid in pids:
            (group / 'cgroup.procs').write_text(str(pid), 'ascii')
        yield
    finally:
        for each in (group / 'cgroup.procs').read_text('ascii').split():
            with contextlib.suppress(OSError):
                (GROUPS / 'cgroup.procs').write_text(each, 'ascii')
        group.rmdir()


def reader(cluster: Cluster) -> Qmp:
    """Start db at alpha: a QEMU that reads when it is told so."""
    scene, folder = cluster.scene, cluster.folder('alpha')
    (folder / 'run/vm/db').mkdir(parents=True)
    image = folder / 'images/db.raw'
    with image.open('wb') as stream:
        for _ in range(64):
            stream.write(os.urandom(MIB))
    run(*cluster.hosts['alpha'].prefix(), str(scene.binary), '-name', 'db',
        '-nodefaults', '-display', 'none', '-L', str(GUEST_BUILD / 'firmware'),
        '-machine', 'pc', '-m', '32', '-S',
        '-drive', f'file={image},if=none,id=b0,format=raw,cache=none',
        '-device', 'virtio-blk-pci,drive=b0,id=d0',
        '-qmp', f'unix:{scene.folder}/db.qmp,server=on,wait=off',
        '-qmp', f'unix:{scene.folder}/test.qmp,server=on,wait=off',
        '-pidfile', str(folder / 'run/vm/db/pid'), '-daemonize')
    cluster.ctl('vm', 'adopt', 'alpha', 'db')
    sock = socket.socket(socket.AF_UNIX)
    sock.connect(str(scene.folder / 'test.qmp'))
    qmp = Qmp(sock)
    qmp.cmd('block-latency-histogram-set', id=DEVICE, boundaries=BOUNDS)
    return qmp


def bins(qmp: Qmp) -> list[int]:
    """How many requests of db took how long."""
    stats = next(each['stats'] for each in qmp.cmd('query-blockstats')
                 if each.get('qdev') == DEVICE)
    return [sum(each) for each in zip(*(stats[kind]['bins']
                                        for kind in KINDS if kind in stats))]


def seconds(qmp: Qmp) -> Iterator[float]:
    """Let db read; yield the p95 of its reads in each second, in ms."""
    before = bins(qmp)
    places = itertools.cycle(range(0, 64 * MIB, MIB + 4096))
    while True:
        for _ in range(READS):
            qmp.hmp(f'qemu-io b0 "aio_read -q {next(places)} 4096"')
            time.sleep(1 / READS)
        after = bins(qmp)
        yield p95([b - a for a, b in zip(before, after)]) or 0.0
        before = after


def disks_move(source: Vm) -> bool:
    """Whether disks are sent; not any more if QEMU has ended."""
    with contextlib.suppress(QmpClosed, OSError):
        return bool(source.qmp.cmd('query-wsm')['phase'] in (
            'disk-precopy', 'ram-precopy', 'freeze', 'postcopy'))
    return False


def fast(cluster: Cluster, source: Vm, qmp: Qmp) -> list[float]:
    """Move the guest; return what seconds() yields while it is under way."""
    move = cluster.popen('migrate', VM, '--to', 'beta')
    wait_until(lambda: disks_move(source), 'disks are sent')
    found = list(itertools.takewhile(lambda _: disks_move(source),
                                     seconds(qmp)))
    cluster.end(move)
    return found


def kept(found: list[float]) -> float:
    """In which part of the seconds, but for the first ones."""
    return sum(each <= PROMISED for each in found[FIRST:]) / max(
        1, len(found[FIRST:]))


@test(MachineConfig((DiskConfig(size=1024 * MIB, cache='none'),)), slow=True)
def wsmctl_slow_disk(scene: Scene) -> None:
    """With a promise the move leaves the disk to the other VM."""
    with Cluster(scene, mbit=1000) as cluster:
        source = cluster.guest()
        fill_half(scene)
        qmp = reader(cluster)
        pid = int((cluster.folder('alpha') / 'run/vm/db/pid').read_text())
        require(source.process is not None, 'no source')
        assert source.process
        with slow_disk(scene, pid, source.process.pid):
            quiet = list(itertools.islice(seconds(qmp), 10))
            move = cluster.popen('migrate', VM, '--to', 'beta')
            wait_until(lambda: disks_move(source), 'disks are sent')
            free = list(itertools.islice(seconds(qmp), 4))
            cluster.ctl('cancel', VM)
            move.communicate(timeout=60)
            path = cluster.spec_path('alpha').with_name('db.toml')
            with path.open('a', encoding='utf-8') as spec:
                spec.write(f'\n[sla]\nio_p95_ms_max = {PROMISED}\n')
            time.sleep(15)          # it is read anew, and looked at
            held = fast(cluster, source, qmp)
        scene.guest.wait_progress(beats=10)
        scene.guest.verify()
        print(f'# without a move p95 of each second: {quiet} ms')
        print(f'# without a promise p95 of each second: {free} ms')
        print(f'# with a promise of {PROMISED:.0f} ms: {held}')
        print(f'# kept in {kept(held):.0%} of the seconds after the first '
              f'{FIRST}')
        require(kept(held) > 0.7, f'{held}')


@test(MachineConfig((DiskConfig(size=32 * MIB),)), slow=True)
def wsmctl_deadline(scene: Scene) -> None:
    """As slow as it may be, and done in time."""
    with Cluster(scene, mbit=round(LINK)) as cluster:
        cluster.link.set_rate(f'{LINK:.0f}mbit')
        cluster.guest()
        fill_half(scene)
        scene.guest.start(**{**LOAD, 'rate': 100})
        move = cluster.json('migrate', VM, '--to', 'beta', '--deadline',
                            f'{DEADLINE:.0f}')
        early = (move['due'] - move['ended']) / DEADLINE
        rate = move['bytes'] / move['seconds'] / (LINK * 125000)
        print(f'# done after {1 - early:.1%} of the time, with {rate:.0%} of '
              'the link on average')
        require(move['result'] == 'moved', f'{move}')
        scene.guest.stop()
        cluster.expect_at('beta')
