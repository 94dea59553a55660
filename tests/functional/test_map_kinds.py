# SPDX-License-Identifier: GPL-2.0-or-later
"""Maps of missing blocks for all kinds of disks and migrations."""

from pathlib import Path

from dev.rig.basics import require
from dev.rig.scene import Scene, finish
from dev.rig.vm import DiskConfig, MachineConfig
from wsm.missing_map import crc32c, this_boot
from tests.functional.lib import tls
from tests.functional.lib.back import expect_refused
from tests.functional.lib.mapfile import crash_copy, map_path, read_map
from tests.functional.lib.moves import end, expect_moved
from tests.functional.lib.registry import add, test
from tests.functional.lib.rejoin import (Crashed, crashed_disks,
                                         destination_killed,
                                         expect_not_overwritten, fetch_rest,
                                         in_postcopy, rejoin)
from tests.functional.lib.setups import Setup, caps, multifd, nothing

RAW = MachineConfig((DiskConfig('vd0'),))
SEVERAL = MachineConfig(
    (DiskConfig('vd0', iothread='io0'), DiskConfig('vd1', fmt='qcow2'),
     DiskConfig('vd2', iothread='io1')), iothreads=('io0', 'io1'))
WRITETHROUGH = MachineConfig((DiskConfig('vd0', write_cache='off'),))
UNSAFE = MachineConfig((DiskConfig('vd0', cache='unsafe'),
                        DiskConfig('vd1', fmt='qcow2', cache='unsafe')))
CRC, BOOT = 12, 96          # places in a head


def tells(scene: Scene, setup: Setup) -> None:
    """Maps, images and the source's images make the disks, as flushed."""
    source, destination = in_postcopy(scene, setup)
    scene.guest.wait_progress(writes=100)
    scene.guest.stop()
    scene.guest.command('flush')
    destination.freeze(True)
    for image in destination.images:
        found = read_map(crash_copy(image, scene.folder)[1])
        require(len(found.missing) > 0 and found.records > 0,
                f'missing: {len(found.missing)}, records: {found.records}')
    crashed = crashed_disks(scene, source, destination)
    destination.freeze(False)

    source.qmp.cmd('wsm-set-options', x_push_delay=0)
    finish(source, destination)
    expect_moved(scene, source, destination)
    end(source, destination)
    for image, expected in zip(destination.images, crashed):
        require(not map_path(image).exists(), 'the map is there')
        expected.compare(image)


def add_tells(name: str, config: MachineConfig,
              setup: Setup = nothing) -> None:
    def function(scene: Scene) -> None:
        tells(scene, setup)
    function.__doc__ = f'Maps tell what is missing: {name}.'
    add(f'map-of-{name}', function, config)


add_tells('several-disks', SEVERAL)
add_tells('writethrough', WRITETHROUGH)
add_tells('direct', MachineConfig((DiskConfig('vd0', cache='none'),)))
add_tells('unsafe', UNSAFE)
add_tells('tls', RAW, tls.use_x509_on_both)
add_tells('postcopy-ram', RAW, caps('postcopy-ram'))
add_tells('multifd', RAW, multifd())


# Without flushes

def boot_of(image: Path) -> bytes:
    """Return the boot ID in the first head."""
    return image.read_bytes()[4096 + BOOT:4096 + BOOT + 16]


def boot_anew(path: Path) -> None:
    """As if the host had been started again since."""
    data = bytearray(path.read_bytes())
    for at in (0, 4096):
        head = data[at:at + 4096]
        if any(head):
            head[BOOT] ^= 1
            head[CRC:CRC + 4] = bytes(4)
            head[CRC:CRC + 4] = crc32c(bytes(head)).to_bytes(4, 'big')
            data[at:at + 4096] = head
    path.write_bytes(data)


@test(UNSAFE)
def map_unsafe_rejoined(scene: Scene) -> None:
    """QEMU is killed, the kernel runs on: the page cache has it all."""
    crashed = destination_killed(scene)
    for image in crashed.images:
        require(boot_of(map_path(image)) == this_boot(), 'another boot ID')
    vm = rejoin(scene, crashed)
    fetch_rest(vm, crashed)


@test(UNSAFE)
def map_unsafe_rebooted(scene: Scene) -> None:
    """The host was started again since: nobody knows what is missing."""
    crashed = destination_killed(scene)
    for image in crashed.images:
        boot_anew(map_path(image))
    vm = scene.reopen('again', crashed.images, paused=True)
    expect_refused(vm, 'is not known', "'unsafe'", 'started again')
    vm.qmp.expect_error('wsm-rejoin', "'unsafe'", 'started again',
                        uri='tcp:127.0.0.1:0')
    vm.quit()
    expect_not_overwritten(scene, scene.destination(images=crashed.images,
                                                    name='onto'))


def go_on_as(scene: Scene, crashed: Crashed, config: MachineConfig,
             boot: bytes, name: str) -> None:
    """A new QEMU with another cache mode goes on, and is killed, too."""
    scene.config = config
    vm = rejoin(scene, crashed, name)
    for image in crashed.images:
        data = map_path(image).read_bytes()
        newest = max((data[at:at + 4096] for at in (0, 4096)),
                     key=lambda head: head[16:24])
        require(newest[BOOT:BOOT + 16] == boot, f'{name}: another boot ID')
    vm.kill()


@test(UNSAFE)
def map_unsafe_changes(scene: Scene) -> None:
    """The cache mode of each QEMU counts, not that of the first one."""
    crashed = destination_killed(scene)
    safe = MachineConfig((DiskConfig('vd0'), DiskConfig('vd1', fmt='qcow2')))
    go_on_as(scene, crashed, safe, bytes(16), 'safe')
    go_on_as(scene, crashed, UNSAFE, this_boot(), 'unsafe')
    vm = rejoin(scene, crashed, 'last')
    fetch_rest(vm, crashed)
