# SPDX-License-Identifier: GPL-2.0-or-later
"""The matrix: what whole-system migration must work with."""

from dataclasses import replace

from dev.rig.basics import require, wait_until
from dev.rig.image import MIB
from dev.rig.scene import Scene, begin, disk_total, finish, query, wait_phase
from dev.rig.vm import DiskConfig, MachineConfig, Vm
from tests.functional.lib import setups, tls
from tests.functional.lib.moves import (BUSY_RAM, LOAD, SLOW_DISK, SLOW_PUSH,
                                        end, expect_moved, expect_postcopy,
                                        expect_unharmed, fill_half,
                                        hold_ram_phase, loaded_source, move,
                                        phase_ms, resent)
from tests.functional.lib.registry import add, test

RAW = DiskConfig('vd0')
QCOW2 = DiskConfig('vd0', fmt='qcow2')
SECOND = DiskConfig('vd1', fmt='qcow2', size=32 * MIB)


@test()
def basic_raw(scene: Scene) -> None:
    """A guest that was booted here moves with its raw disk."""
    source = scene.source(boot=True)
    fill_half(scene)
    scene.guest.start(**LOAD)
    destination = scene.destination()
    begin(source, scene.uri(destination), **SLOW_DISK, **SLOW_PUSH)
    for phase in ('disk-precopy', 'ram-precopy', 'freeze', 'postcopy'):
        wait_phase(source, phase)
    finish(source, destination)
    expect_moved(scene, source, destination)
    info = query(source)
    require(info['role'] == 'source', 'wrong role')
    require(info['session'] == query(destination)['session'],
            'the sides disagree on the session')
    require([disk['name'] for disk in info['disks']] == ['vd0'],
            f'wrong disks: {info["disks"]}')
    require(resent(source) > 0, 'no block was dirtied and sent again')
    require('downtime-ms' in info, 'no downtime is shown')
    expect_postcopy(source)
    expect_statuses(source, ['setup', 'active', 'postcopy-active',
                             'completed'])
    end(source, destination)


def expect_statuses(vm: Vm, wanted: list[str]) -> None:
    """What tools see that know nothing of whole-system migration."""
    statuses = [data['status'] for data in vm.qmp.seen('MIGRATION')]
    require([status for status in statuses if status in wanted] == wanted,
            f'query-migrate went through {statuses}')


@test()
def bandwidth_limits(scene: Scene) -> None:
    """Neither "bandwidth" nor max-bandwidth is exceeded by disk data."""
    limit = 8 * MIB
    source = scene.source()
    fill_half(scene)
    for own, general in ((limit, 10 * limit), (0, limit)):
        destination = scene.destination(name=f'destination-{own}')
        source.set_params(max_bandwidth=general)
        begin(source, scene.uri(destination), bandwidth=own)
        wait_phase(source, 'ram-precopy')
        seconds = (phase_ms(source, 'disk-precopy') or 0) / 1000
        sent = disk_total(source, 'sent')
        require(sent > 16 * MIB, f'only {sent} bytes were sent')
        require(sent <= 1.3 * limit * seconds,
                f'{sent} bytes were sent in {seconds} seconds')
        source.qmp.cmd('migrate_cancel')
        source.wait_migration('cancelled')
        destination.close()
    expect_unharmed(scene, source)


@test()
def bandwidth_raised(scene: Scene) -> None:
    """A limit that is raised ends the wait that the old one began."""
    source = scene.source()
    fill_half(scene)
    destination = scene.destination()
    size = sum(disk.size for disk in scene.config.disks)
    # At this speed the first message would wait for longer than we do
    begin(source, scene.uri(destination), bandwidth=64)
    wait_phase(source, 'disk-precopy')
    wait_until(lambda: disk_total(source, 'dirty') < size,
               'the first message is under way')
    source.qmp.cmd('wsm-set-options', bandwidth=0)
    finish(source, destination)
    end(source, destination)


def matrix(name: str, config: MachineConfig,
           summary: str, **load: int) -> None:
    """Add a test that moves a loaded guest with these devices."""
    def function(scene: Scene) -> None:
        source = loaded_source(scene, **load)
        destination = scene.destination()
        move(scene, source, destination, **SLOW_PUSH)
        require(disk_total(source, 'sent') > 0, 'no disk data was sent')
        expect_postcopy(source)
        end(source, destination)

    function.__doc__ = summary
    add(name, function, config)


matrix('qcow2', MachineConfig((QCOW2,)), 'A qcow2 disk.')
matrix('two-disks-mixed', MachineConfig((RAW, SECOND)),
       'Two disks of different format and size.')
matrix('cache-none', MachineConfig((replace(RAW, cache='none'),
                                    replace(SECOND, cache='none'))),
       'O_DIRECT on both sides, raw and qcow2.')
matrix('iothread', MachineConfig((replace(RAW, iothread='io0'),
                                  replace(SECOND, iothread='io0')),
                                 iothreads=('io0',)),
       'Disks served by an IOThread.')
matrix('iothread-vq-mapping', MachineConfig(
    (replace(QCOW2, iothread_mapping=('io0', 'io1'),
             extra=(('num-queues', 2),)),), iothreads=('io0', 'io1')),
       'One disk served by two IOThreads.')
matrix('two-cpus', MachineConfig((RAW, SECOND), smp=2),
       'A guest with two CPUs.')
matrix('heavy-load', MachineConfig(), 'Writes without limit.',
       writers=4, readers=2, full=6, part=3, big=1, flush=200)


def with_setup(name: str, setup: setups.Setup, summary: str) -> None:
    """Add a test in which both sides are set up in a special way."""
    def function(scene: Scene) -> None:
        source = loaded_source(scene)
        destination = scene.destination('defer')
        setup(scene, source, destination)
        destination.qmp.cmd('migrate-incoming', uri='tcp:127.0.0.1:0')
        move(scene, source, destination, **SLOW_PUSH)
        expect_postcopy(source)
        end(source, destination)

    function.__doc__ = summary
    add(name, function)


def setup_psk(scene: Scene, source: Vm, destination: Vm) -> None:
    folder = tls.make_keys(scene.folder / 'tls')
    tls.use_psk(source, folder, 'client')
    tls.use_psk(destination, folder, 'server')


def setup_large_blocks(_scene: Scene, source: Vm, _destination: Vm) -> None:
    source.qmp.cmd('wsm-set-options', granularity=65536, channels=8)


with_setup('multifd', setups.multifd(), 'RAM over multifd channels.')
with_setup('tls-x509', tls.use_x509_on_both,
           'TLS with certificates.')
with_setup('tls-psk', setup_psk, 'TLS with a shared key.')
with_setup('multifd-tls', setups.with_tls(setups.multifd()),
           'multifd and TLS at once.')
with_setup('auto-converge', setups.caps('auto-converge'),
           'With auto-converge on.')
with_setup('large-blocks', setup_large_blocks,
           'Blocks of 64 KiB, eight bulk channels.')


@test()
def unix_socket(scene: Scene) -> None:
    """Over a unix: address."""
    source = loaded_source(scene)
    uri = f'unix:{scene.folder / "migration"}'
    destination = scene.destination(uri)
    move(scene, source, destination, uri, **SLOW_PUSH)
    expect_postcopy(source)
    end(source, destination)


@test()
def postcopy_ram(scene: Scene) -> None:
    """RAM and disks in post-copy together."""
    source = scene.source()
    fill_half(scene)
    scene.guest.start(**LOAD, **BUSY_RAM)
    destination = scene.destination('defer')
    for vm in (source, destination):
        vm.set_caps('postcopy-ram')
    destination.qmp.cmd('migrate-incoming', uri='tcp:127.0.0.1:0')
    hold_ram_phase(source)
    begin(source, scene.uri(destination), **SLOW_PUSH)
    wait_phase(source, 'ram-precopy')
    source.qmp.cmd('migrate-start-postcopy')
    finish(source, destination)
    expect_moved(scene, source, destination)
    expect_postcopy(source)
    require(source.migration()['ram']['postcopy-requests'] > 0,
            'no RAM page was pulled')
    end(source, destination)


@test(MachineConfig((RAW, SECOND)))
def paused_guest(scene: Scene) -> None:
    """A guest that is paused arrives paused, with equal images."""
    source = scene.source()
    fill_half(scene)
    source.qmp.cmd('stop')
    destination = scene.destination()
    begin(source, scene.uri(destination))
    finish(source, destination)
    require(destination.status() == 'paused',
            f'destination is {destination.status()}')
    for a, b in zip(source.images, destination.images):
        a.compare(b)
    destination.qmp.cmd('cont')
    scene.guest.verify()
    end(source, destination)


@test()
def idle_guest(scene: Scene) -> None:
    """Nothing is dirty at the freeze: no block is sent after it."""
    source = scene.source()
    fill_half(scene)
    destination = scene.destination()
    move(scene, source, destination)
    require(disk_total(source, 'pushed', 'pulled') == 0,
            'blocks were sent in post-copy')
    end(source, destination)


@test()
def two_hosts(scene: Scene) -> None:
    """Two network namespaces and a link of limited speed."""
    scene.make_link('400mbit')
    source = loaded_source(scene)
    destination = scene.destination()
    move(scene, source, destination)
    require(scene.link is not None
            and scene.link.a.sent_bytes() > 32 * MIB,
            'the data did not go through the link')
    end(source, destination)


@test()
def back_and_forth(scene: Scene) -> None:
    """To the destination, back onto the old images, and there again."""
    here = loaded_source(scene)
    there = scene.destination()
    move(scene, here, there)
    here.quit()
    for trip in range(2):
        scene.guest.start(**LOAD)
        scene.guest.wait_progress(writes=100)
        back = scene.destination(name=f'destination-back{trip}',
                                 images=here.images)
        move(scene, there, back, **SLOW_PUSH)
        expect_postcopy(there)
        there.quit()
        here, there = there, back
