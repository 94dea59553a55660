# SPDX-License-Identifier: GPL-2.0-or-later
"""Which disk is which, on the two sides of a migration."""

import json
import os
import uuid
from dataclasses import replace
from pathlib import Path

from dev.rig.basics import Skip, require
from dev.rig.image import MIB, Image
from dev.rig.scene import Scene, begin, disk_total, finish, query, wait_phase
from dev.rig.vm import DiskConfig, MachineConfig, Vm
from tests.functional.lib.back import all_there_untold, has_ended, record, save
from tests.functional.lib.moves import (LOAD, end, expect_moved,
                                        expect_unharmed, fill_half,
                                        loaded_source, move, second_try)
from tests.functional.lib.registry import add, test

RAW = DiskConfig('vd0')
OTHER = replace(RAW, id='vd1')
TWO = MachineConfig((RAW, OTHER))


def swapped(config: MachineConfig) -> MachineConfig:
    """The same disks, with their options in another order."""
    return replace(config, disks=config.disks[::-1])


def fixed(slot: int, name: str) -> DiskConfig:
    return DiskConfig(name, anonymous=True, extra=(('addr', hex(slot)),))


def error_of(vm: Vm) -> str:
    return str(vm.migration().get('error-desc', ''))


def expect_refused(scene: Scene, source: Vm, destination: Vm,
                   *words: str) -> None:
    """The migration fails before it begins; the error has all @words."""
    begin(source, scene.uri(destination))
    source.wait_migration('failed')
    for word in words:
        require(word in error_of(source),
                f'the error lacks "{word}": {error_of(source)}')
    expect_unharmed(scene, source)


# Disks that changed places

@test(MachineConfig((fixed(0x10, 'one'), fixed(0x11, 'two'))))
def exchanged_anonymous(scene: Scene) -> None:
    """Without ids, disks are found by address, not by their order."""
    source = loaded_source(scene)
    destination = scene.destination(config=swapped(scene.config))
    move(scene, source, destination)
    addresses = [disk['address'] for disk in query(source)['disks']]
    require(addresses == ['0000:00:10.0', '0000:00:11.0'],
            f'addresses {addresses}')
    found = [disk['address'] for disk in query(destination)['disks']]
    require(found == addresses, f'at the destination {found}')
    end(source, destination)


@test(TWO)
def exchanged_ids(scene: Scene) -> None:
    """Devices with ids whose order, and so their address, is another."""
    source = loaded_source(scene)
    destination = scene.destination(config=swapped(scene.config))
    expect_refused(scene, source, destination, "'vd0'", "'vd1'",
                   '0000:00:03.0', '0000:00:04.0', 'addr=')
    destination.close()
    second_try(scene, source)


@test(MachineConfig((fixed(0x10, 'one'),
                     replace(fixed(0x11, 'two'), read_only=True))))
def moved_path(scene: Scene) -> None:
    """A disk without id that has another QOM path is found."""
    source = scene.source()
    scene.guest.fill(0, 0, 16 * MIB)
    destination = scene.destination(config=swapped(scene.config))
    move(scene, source, destination)
    paths = [query(vm)['disks'][0]['path'] for vm in (source, destination)]
    require(paths[0] != paths[1], f'the paths are equal: {paths}')
    end(source, destination)


@test(MachineConfig((RAW,)))
def renamed_device(scene: Scene) -> None:
    """Another id at the same address is the same device."""
    source = loaded_source(scene)
    config = MachineConfig((replace(RAW, id='root'),))
    destination = scene.destination(config=config)
    move(scene, source, destination)
    end(source, destination)


@test(MachineConfig((RAW,)))
def moved_device(scene: Scene) -> None:
    """The device is at another address: said before the guest stops."""
    source = loaded_source(scene)
    config = MachineConfig((replace(RAW, extra=(('addr', '0x10'),)),))
    destination = scene.destination(config=config)
    expect_refused(scene, source, destination, "'vd0'", '0000:00:10.0',
                   'addr=')
    destination.close()
    second_try(scene, source)


BUSES = tuple(
    DiskConfig(name, device=device, size=2 * MIB, anonymous=True, extra=extra)
    for name, device, extra in (
        ('lun1', 'scsi-hd', (('bus', 'scsi0.0'), ('lun', 1))),
        ('lun2', 'scsi-hd', (('bus', 'scsi0.0'), ('lun', 2))),
        ('ide0', 'ide-hd', (('bus', 'ide.0'), ('unit', 0))),
        ('ide1', 'ide-hd', (('bus', 'ide.0'), ('unit', 1))),
        ('ide2', 'ide-hd', (('bus', 'ide.1'), ('unit', 0))),
        ('sata0', 'ide-hd', (('bus', 'ahci0.0'),)),
        ('sata3', 'ide-hd', (('bus', 'ahci0.3'),)),
        ('usb1', 'usb-storage', (('bus', 'usb0.0'), ('port', '1'))),
        ('usb2', 'usb-storage', (('bus', 'usb0.0'), ('port', '2')))))


@test(MachineConfig(
    (RAW, *BUSES, DiskConfig('floppy0', device='floppy', size=1474560,
                             anonymous=True, extra=(('unit', 0),))),
    controllers=('virtio-scsi-pci,id=scsi0', 'ahci,id=ahci0',
                 'qemu-xhci,id=usb0')))
def exchanged_on_all_buses(scene: Scene) -> None:
    """SCSI, IDE, SATA, USB and floppy disks in another order."""
    source = scene.source()
    for number, image in enumerate(source.images[1:]):
        pattern(image, number)
    destination = scene.destination(config=swapped(scene.config))
    move(scene, source, destination)
    disks = query(source)['disks']
    addresses = {disk.get('address') for disk in disks}
    require(len(addresses) == len(scene.config.disks) and None not in
            addresses, f'addresses {addresses}')
    end(source, destination)
    for image in source.images:
        theirs = replace(image, path=Path(str(image.path).replace(
            '/source-', '/destination-')))
        image.compare(theirs)


def pattern(image: Image, number: int) -> None:
    """Content that no other disk has."""
    with open(image.path, 'r+b') as out:
        out.write(bytes([number + 1]) * (256 * 1024))


# One image for both

NO_LOCKS = replace(RAW, layer=(('locking', 'off'),))
NO_LOCKS_QCOW2 = replace(NO_LOCKS, fmt='qcow2')


def on_one_image(name: str, summary: str, fmt: str, how: str) -> None:
    """Add a test: the destination has the source's image, under any name."""
    def function(scene: Scene) -> None:
        source = loaded_source(scene)
        ours = source.images[0]
        folder = scene.folder / 'elsewhere'
        folder.mkdir()
        theirs = replace(ours, path=folder / 'disk.img')
        if how == 'symlink':
            theirs.path.symlink_to(ours.path)
        elif how == 'hard link':
            theirs.path.hardlink_to(ours.path)
        else:
            theirs = ours
        destination = scene.destination(images=[theirs])
        expect_refused(scene, source, destination, 'vd0', str(ours.path),
                       str(theirs.path), 'image of its own')
        require(not list(scene.folder.glob('.*.wsm-*')), 'a note is left')
        require(not Path(f'{ours.path}.wsm').exists(), 'a record was made')
        destination.close()
        second_try(scene, source)

    function.__doc__ = summary
    add(name, function, MachineConfig((replace(NO_LOCKS, fmt=fmt),)))


on_one_image('same-image', 'The destination has the source\'s image.', 'raw',
             'same')
on_one_image('same-image-qcow2', 'The same in qcow2.', 'qcow2', 'same')
on_one_image('same-image-symlink', 'The same by a symbolic link.', 'raw',
             'symlink')
on_one_image('same-image-hard-link', 'The same by a hard link.', 'raw',
             'hard link')


@test(MachineConfig((NO_LOCKS, replace(NO_LOCKS, id='vd1'))))
def image_of_another_disk(scene: Scene) -> None:
    """The destination's second disk is the source's first."""
    source = loaded_source(scene)
    images = [scene.new_images('destination')[0], source.images[0]]
    destination = scene.destination(images=images)
    expect_refused(scene, source, destination, "'vd1'", "'vd0'",
                   str(source.images[0].path))
    destination.close()
    second_try(scene, source)


@test()
def copied_image(scene: Scene) -> None:
    """A copy of the source's image, beside it, is no reason to refuse."""
    source = loaded_source(scene)
    copy = replace(source.images[0], path=scene.folder / 'copy.raw')
    copy.path.write_bytes(source.images[0].path.read_bytes())
    destination = scene.destination(images=[copy])
    begin(source, scene.uri(destination))
    finish(source, destination)
    expect_moved(scene, source, destination)
    end(source, destination)


def on_another_host(scene: Scene) -> None:
    """QEMUs from now on run in another boot, as far as they can see."""
    if os.geteuid() != 0:
        raise Skip('a mount namespace needs root')
    boot = scene.folder / 'boot_id'
    boot.write_text(f'{uuid.uuid4()}\n')
    script = scene.folder / 'qemu'
    script.write_text(
        '#!/bin/sh\nexec unshare -m sh -c \'mount --bind "$0" '
        '/proc/sys/kernel/random/boot_id && exec "$@"\' '
        f'{boot} {scene.binary} "$@"\n')
    script.chmod(0o755)
    scene.binary = script


@test(MachineConfig((NO_LOCKS,)))
def same_image_on_another_host(scene: Scene) -> None:
    """Two hosts that share a folder, and no number to know it by."""
    source = loaded_source(scene)
    ours = source.images[0]
    on_another_host(scene)
    folder = scene.folder / 'elsewhere'
    folder.symlink_to(scene.folder)
    destination = scene.destination(
        images=[replace(ours, path=folder / ours.path.name)])
    expect_refused(scene, source, destination, "'vd0'", str(ours.path),
                   str(folder), 'image of its own')
    destination.close()
    second_try(scene, source)
    require(not list(scene.folder.glob('.*.wsm-*')), 'a note is left')


# The only copy

@test()
def only_copy(scene: Scene) -> None:
    """The source died in post-copy: its image is not written over."""
    source = scene.source()
    fill_half(scene)
    scene.guest.command('flush')
    state = save(source)
    scene.guest.start(**LOAD)
    lost = scene.destination()
    begin(source, scene.uri(lost), x_push_delay=1000, max_residue=60000)
    wait_phase(lost, 'postcopy')
    require(disk_total(lost, 'missing') > 0, 'nothing is missing')
    source.kill()
    lost.close()
    require(word_of(source) == 'leaving', 'the source has no mark')
    before = source.images[0].path.read_bytes()

    # The user goes on with what has arrived, and wants to move it back
    half = scene.reopen('half', lost.images, state=state)
    half.qmp.cmd('wsm-adopt', missing='stale')
    half.qmp.cmd('cont')
    half.wait_running()
    half.set_params(downtime_limit=2000)
    back = scene.destination(images=source.images, name='destination-2')
    begin(half, scene.uri(back))
    half.wait_migration('failed')
    for word in ("'vd0'", str(source.images[0].path), 'wsm-adopt'):
        require(word in error_of(half), f'it says: {error_of(half)}')
    has_ended(back)
    require(word_of(source) == 'leaving', 'the mark is gone')
    require(source.images[0].path.read_bytes() == before,
            'the only copy was written to')

    # The user says that it is not needed
    last = scene.destination('defer', images=source.images,
                             name='destination-3')
    last.qmp.cmd('wsm-adopt')
    last.qmp.cmd('migrate-incoming', uri='tcp:127.0.0.1:0')
    begin(half, scene.uri(last))
    finish(half, last)
    end(half, last)


def word_of(vm: Vm) -> str:
    """The state that the record of the first image has."""
    text = record(vm.images[0]).read_text('utf-8').split('\n', 1)[1]
    return str(json.loads(text)['state'])


@test()
def descendant_of_leaving(scene: Scene) -> None:
    """The source died when all was over there: the guest may come back."""
    source, there, relay = all_there_untold(scene)
    source.kill()
    require(word_of(source) == 'leaving', 'the source has no mark')
    relay.cut_all()
    there.wait_running()
    there.quit()
    again = scene.reopen('again', there.images, guest=scene.other_guest())
    again.wait_running()
    again.set_params(downtime_limit=2000)
    back = scene.destination(images=source.images, name='destination-2')
    begin(again, scene.uri(back))
    finish(again, back)
    end(again, back)
