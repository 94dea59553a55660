# SPDX-License-Identifier: GPL-2.0-or-later
"""Disks: zeroes, holes, odd sizes, those that stay behind."""

from dataclasses import replace

from dev.rig.basics import require
from dev.rig.image import GIB, MIB
from dev.rig.scene import (Scene, begin, disk_total, finish, query, wait_phase,
                           wait_total)
from dev.rig.vm import DiskConfig, MachineConfig
from tests.functional.lib.moves import (BUSY_RAM, DISCARD_LOAD, LOAD,
                                        SLOW_DISK, SLOW_PUSH, end,
                                        expect_moved, expect_postcopy,
                                        fill_half, hold_ram_phase,
                                        loaded_source, move, release_ram_phase)
from tests.functional.lib.registry import add, test

RAW = DiskConfig('vd0')
QCOW2 = DiskConfig('vd1', fmt='qcow2')
PIECE = 256 * 1024      # as WSM_PIECE


@test(MachineConfig((RAW, QCOW2)))
def disk_packing(scene: Scene) -> None:
    """What becomes smaller is sent so, and noise as it is."""
    source = scene.source()
    fill_half(scene)
    scene.guest.command('flush')
    for disk in 'vd0', 'vd1':
        done = source.qmp.hmp(
            f'qemu-io -d /machine/peripheral/{disk}/virtio-backend '
            '"write -P 90 36M 24M"')
        require('wrote' in done or not done, done)
    destination = scene.destination()
    begin(source, scene.uri(destination), disk_packing=True, bandwidth=8 * MIB)
    finish(source, destination)
    for vm in source, destination:
        sent, packed = disk_total(vm, 'sent'), disk_total(vm, 'packed')
        # Behind so much noise some go by before it is tried again
        require(packed < sent - 12 * MIB, f'{vm.name}: {packed} of {sent}')
        require(packed > sent // 2, f'{vm.name}: noise became smaller')
    require(disk_total(source, 'packed') == disk_total(destination, 'packed'),
            'the sides disagree')
    source.quit()
    destination.quit()
    for here, there in zip(source.images, destination.images):
        here.compare(there)


def discard_in(phase: str) -> None:
    """Add a test of discards and zero writes in this phase."""
    def function(scene: Scene) -> None:
        source = scene.source()
        fill_half(scene)
        load = dict(DISCARD_LOAD)
        if phase == 'ram-precopy':
            load.update(BUSY_RAM)
            hold_ram_phase(source)
        scene.guest.start(**load)
        destination = scene.destination()
        slow = SLOW_DISK if phase == 'disk-precopy' else {'bandwidth': 0}
        begin(source, scene.uri(destination), **slow, x_push_delay=30)
        wait_phase(source, phase)
        before = scene.guest.last_beat().discards
        scene.guest.wait_beat(lambda beat: beat.discards > before + 50,
                              'discards go on')
        source.qmp.cmd('wsm-set-options', bandwidth=0, x_push_delay=0)
        release_ram_phase(source)
        finish(source, destination)
        expect_moved(scene, source, destination)
        end(source, destination)

    function.__doc__ = f'Discards and zero writes in {phase}.'
    add(f'discard-in-{phase}', function, MachineConfig((RAW, QCOW2)))


for name in ('disk-precopy', 'ram-precopy', 'postcopy'):
    discard_in(name)


@test(MachineConfig((DiskConfig('vd0', size=16 * MIB + 3 * 512),
                     DiskConfig('vd1', size=16 * MIB + 2048, fmt='qcow2'),
                     DiskConfig('vd2', size=16 * MIB + 700))))
def odd_sizes(scene: Scene) -> None:
    """Sizes that are no multiple of 4 KiB, one not even of 512."""
    source = loaded_source(scene)
    for disk, sectors in enumerate(scene.guest.sectors()):
        scene.guest.command(f'write {disk} {sectors - 1} 1')
    destination = scene.destination()
    begin(source, scene.uri(destination), **SLOW_PUSH)
    wait_phase(source, 'postcopy')
    for disk, sectors in enumerate(scene.guest.sectors()):
        scene.guest.command(f'write {disk} {sectors - 2} 2')
    finish(source, destination)
    expect_moved(scene, source, destination)
    end(source, destination)


@test(MachineConfig((DiskConfig('vd0', size=16 * MIB + 3 * 512),)))
def odd_size_large_blocks(scene: Scene) -> None:
    """Blocks of 1 MiB on a disk that ends inside one."""
    source = loaded_source(scene)
    destination = scene.destination()
    move(scene, source, destination, granularity=MIB, **SLOW_PUSH)
    expect_postcopy(source)
    end(source, destination)


@test(MachineConfig((RAW, replace(RAW, id='vd1', read_only=True),
                     DiskConfig('cd0', device='ide-cd', size=2 * MIB,
                                read_only=True))))
def left_out(scene: Scene) -> None:
    """Read-only disks and CD-ROMs stay behind, and that is said."""
    source = scene.source()
    scene.guest.fill(0, 0, 16 * MIB)
    scene.guest.start(**LOAD, disk=0)
    destination = scene.destination()
    move(scene, source, destination)
    info = query(source)
    require([disk['name'] for disk in info['disks']] == ['vd0'],
            f'wrong disks: {info["disks"]}')
    excluded = {entry['name']: entry['reason'] for entry in info['excluded']}
    require(set(excluded) == {'vd1', 'cd0'}, f'left out: {excluded}')
    require(all(excluded.values()), f'no reason: {excluded}')
    end(source, destination)


@test(MachineConfig((RAW, replace(RAW, id='vd1'))))
def chosen_disks(scene: Scene) -> None:
    """Option "disks": the other disk is on shared storage."""
    source = loaded_source(scene)
    images = [scene.new_images('destination')[0], source.images[1]]
    destination = scene.destination(images=images)
    move(scene, source, destination, disks=['vd0'])
    require([disk['name'] for disk in query(source)['disks']] == ['vd0'],
            'the wrong disk was migrated')
    require([disk['name'] for disk in query(source)['excluded']] == ['vd1'],
            'the other disk is not listed')
    end(source, destination)


def sparse(fmt: str) -> None:
    def function(scene: Scene) -> None:
        data = 8 * MIB
        source = scene.source()
        guest = scene.guest
        guest.fill(0, 0, data // 2)
        guest.fill(0, 15 * GIB, data // 2)
        guest.command('flush')
        guest.region(0, 15 * GIB, data // 2)
        before = source.images[0].allocated()
        destination = scene.destination()
        move(scene, source, destination)
        require(disk_total(source, 'sent') <= 2 * data,
                f'{disk_total(source, "sent")} bytes sent for {data}')
        guest.command(f'check 0 0 {data // 2 // 512}')
        guest.command(f'check 0 {8 * GIB // 512} 65536')
        after = destination.images[0].allocated()
        require(after <= before + MIB,
                f'{before} bytes became {after} on the host')
        end(source, destination)

    function.__doc__ = f'A nearly empty {fmt} disk of 16 GiB stays so.'
    add(f'sparse-{fmt}', function, MachineConfig(
        (DiskConfig(fmt=fmt, size=16 * GIB),)))


sparse('raw')
sparse('qcow2')


@test()
def written_zeroes(scene: Scene) -> None:
    """Zeroes that take space at the source travel as a range."""
    source = scene.source()
    size = scene.config.disks[0].size
    with open(source.images[0].path, 'r+b') as image:
        image.write(bytes(size))
    destination = scene.destination()
    move(scene, source, destination)
    require(disk_total(source, 'sent') == 0, 'zeroes were sent as bytes')
    require(disk_total(source, 'zero') >= size, 'no zeroes were sent')
    require(destination.images[0].allocated() < MIB,
            'zeroes take space at the destination')
    end(source, destination)


@test()
def zeroes_among_data(scene: Scene) -> None:
    """Zeroes that take space between data travel as ranges, too."""
    source = scene.source()
    size, count = scene.config.disks[0].size, 16
    with open(source.images[0].path, 'r+b') as image:
        image.write(bytes(size))
    # 256 KiB each, with zeroes of no, one, two, ... times that in between
    places = [number * (number + 1) // 2 * PIECE for number in range(count)]
    for place in places:
        scene.guest.fill(0, place, PIECE)
    scene.guest.command('flush')
    destination = scene.destination()
    move(scene, source, destination)
    sent = disk_total(source, 'sent')
    require(sent == count * PIECE, f'{sent} bytes were sent as data')
    require(destination.images[0].allocated() < count * PIECE + MIB,
            'zeroes take space at the destination')
    end(source, destination)


@test()
def old_content(scene: Scene) -> None:
    """The destination's image is full of other data."""
    source = loaded_source(scene, **DISCARD_LOAD)
    images = scene.new_images('destination')
    images[0].path.write_bytes(b'\xa5' * images[0].size)
    destination = scene.destination(images=images)
    move(scene, source, destination, **SLOW_PUSH)
    expect_postcopy(source)
    end(source, destination)


@test()
def law_one(scene: Scene) -> None:
    """Long post-copy: writes, partial writes and pulls fight for blocks."""
    guest = scene.guest
    source = scene.source()
    guest.region(0, 0, 16 * MIB)
    guest.fill(0, 0, 16 * MIB)
    guest.start(writers=4, readers=3, full=4, part=6, big=1, discard=1,
                zero=1, flush=300)
    destination = scene.destination()
    begin(source, scene.uri(destination), x_push_delay=100, max_residue=30000)
    wait_phase(destination, 'postcopy')
    require(disk_total(destination, 'missing') > 0, 'nothing is missing')
    wait_total(destination, 'pulled')
    guest.wait_progress(writes=500)
    source.qmp.cmd('wsm-set-options', x_push_delay=5)
    finish(source, destination)
    expect_moved(scene, source, destination)
    require(disk_total(source, 'pulled') > 0, 'nothing was pulled')
    require(disk_total(source, 'pushed') > 0, 'nothing was pushed')
    end(source, destination)


@test(MachineConfig((RAW, QCOW2)))
def read_everything_in_postcopy(scene: Scene) -> None:
    """The guest reads all its blocks while most of them are missing."""
    source = loaded_source(scene, writers=4, full=1, big=1)
    destination = scene.destination()
    begin(source, scene.uri(destination), x_push_delay=20, max_residue=30000)
    wait_phase(destination, 'postcopy')
    scene.guest.stop()
    reading = scene.guest.start_command('verify')
    wait_total(destination, 'pulled')
    reading.wait()
    source.qmp.cmd('wsm-set-options', x_push_delay=0)
    finish(source, destination)
    expect_moved(scene, source, destination)
    end(source, destination)
