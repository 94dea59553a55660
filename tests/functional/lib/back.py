# SPDX-License-Identifier: GPL-2.0-or-later
"""Steps of tests in which a migration builds on an image that is there."""

import uuid
from pathlib import Path
from typing import Any, Optional

from dev.rig.basics import require, run, tool, wait_until
from dev.rig.image import MIB, Image
from dev.rig.qmp import Json
from dev.rig.relay import Relay
from dev.rig.scene import WSM, Scene, begin, disk_total, query, wait_total
from dev.rig.vm import DiskConfig, MachineConfig, Vm
from dev.rig.wire import Type
from tests.functional.lib.moves import (LOAD, loaded_source, move,
                                        start_and_wait)

BOTH = MachineConfig((DiskConfig('vd0'), DiskConfig('vd1', fmt='qcow2')))
SYNC_POINTS = ['sync-point', 'sync-point']
# What loaded_source() puts on each disk
DATA = 32 * MIB


# What query-wsm says

def bases(vm: Vm) -> list[Json]:
    return [disk.get('basis', {}) for disk in query(vm)['disks']]


def kinds(vm: Vm) -> list[str]:
    """What each disk's migration built on."""
    return [str(basis.get('kind')) for basis in bases(vm)]


def expect_kinds(vm: Vm, wanted: list[str], *words: str) -> None:
    """The disks' bases; the reason of each has one of @words, if any."""
    require(kinds(vm) == wanted, f'{vm.name}: basis {bases(vm)}')
    for basis in bases(vm):
        require(not words or any(word in basis['reason'] for word in words),
                f'{vm.name}: the reason has none of {words}: {basis}')


def expect_sent(vm: Vm, most: int, least: int = 0) -> None:
    sent = disk_total(vm, 'sent')
    require(least <= sent <= most, f'{vm.name}: {sent / MIB:.2f} MiB sent, '
            f'not {least / MIB:.2f} to {most / MIB:.2f}')


def states(vm: Vm) -> list[str]:
    """What each image is good for."""
    return [image['state'] for image in query(vm)['images']]


def no_record_of(vm: Vm) -> list[Optional[str]]:
    """Why there can be no record, image by image."""
    return [image.get('no-record') for image in query(vm)['images']]


def all_there_untold(scene: Scene) -> tuple[Vm, Vm, Relay]:
    """The destination has everything, and the source has yet to hear it."""
    source = loaded_source(scene)
    destination = scene.destination()
    relay = scene.make_relay(destination)
    start_and_wait(source, relay.uri, 'postcopy', x_push_delay=50)
    relay.hold_at(Type.SYNC)
    source.qmp.cmd('wsm-set-options', x_push_delay=0)
    relay.wait_held()
    wait_until(lambda: set(states(destination)) == {'current'},
               'the images are complete')
    return source, destination, relay


def points(vm: Vm) -> list[list[str]]:
    """The sync points of each image, oldest first."""
    return [[point['id'] for point in image['points']]
            for image in query(vm)['images']]


def point_id(session: str, number: int) -> str:
    """The sync point of a session for its disk of this number."""
    return str(uuid.UUID(int=uuid.UUID(session).int ^ number))


def session_points(vm: Vm) -> list[str]:
    """The sync points that the session of @vm makes, disk by disk."""
    info = query(vm)
    return [point_id(info['session'], number)
            for number in range(len(info['disks']))]


# Images

def record(image: Image) -> Path:
    return Path(f'{image.path}.wsm')


def qemu_io(vm: Vm, disk: int, line: str) -> None:
    """Write through the guest's device, as the monitor's user may."""
    device = f'/machine/peripheral/{vm.config.disks[disk].id}/virtio-backend'
    before = vm.stderr().count('wrote')
    text = vm.qmp.hmp(f'qemu-io -d {device} "{line}"')
    require(not text, f'qemu-io {line}: {text}')
    require(vm.stderr().count('wrote') - before == line.startswith('write'),
            f'qemu-io {line}: {vm.stderr()}')


def resize(image: Image, size: int) -> None:
    run(tool('qemu-img'), 'resize', '-q', '-f', image.fmt, str(image.path),
        str(size))


# Steps

def away(scene: Scene, **load: int) -> tuple[Vm, Vm]:
    """A guest that has moved to blank images; it is idle there."""
    here = loaded_source(scene, **load)
    there = scene.destination()
    move(scene, here, there)
    expect_kinds(here, ['full'] * len(scene.config.disks), 'blank')
    return here, there


def onto(scene: Scene, source: Vm, images: list[Image], name: str,
         load: Optional[dict[str, int]] = None, **options: Any) -> Vm:
    """Move the guest to images that are there, with @load (LOAD)."""
    destination = scene.destination(images=images, name=name)
    source.set_params(downtime_limit=2000)
    load = LOAD if load is None else load
    if load:
        scene.guest.start(**load)
    move(scene, source, destination, **options)
    return destination


def back(scene: Scene, source: Vm, left: Vm, name: str,
         load: Optional[dict[str, int]] = None, **options: Any) -> Vm:
    """Move the guest to the images of @left, which is ended first."""
    left.quit()
    return onto(scene, source, left.images, name, load, **options)


def save(vm: Vm, name: str = 'saved') -> Path:
    """The RAM of an idle guest; it runs on, idle."""
    path = vm.folder / name
    vm.set_caps(WSM, on=False)
    vm.qmp.cmd('stop')
    vm.qmp.cmd('migrate', uri=f'file:{path}')
    vm.wait_migration('completed')
    # Until then QEMU calls it not finalized yet
    wait_until(lambda: vm.status() == 'postmigrate', f'{vm.name}: postmigrate')
    vm.qmp.cmd('cont')
    return path


def wake(scene: Scene, images: list[Image], state: Path, name: str) -> Vm:
    """Let the guest of save() go on in a new QEMU."""
    vm = scene.reopen(name, images, state=state)
    vm.qmp.cmd('cont')
    vm.wait_running()
    scene.guest.wait_progress(beats=10)
    return vm


def expect_refused(vm: Vm, *words: str) -> None:
    """`cont` says why this copy is not run, and it does not run."""
    vm.qmp.expect_error('cont', *words)
    require(vm.status() in ('paused', 'prelaunch'), f'it is {vm.status()}')


def break_off_late(source: Vm, uri: str) -> None:
    """A migration of which most of one disk's data has been sent."""
    begin(source, uri, bandwidth=8 * MIB, max_residue=0)
    wait_total(source, 'sent', DATA * 3 // 4)


def refuse_then_adopt(scene: Scene, source: Vm, left: Vm) -> None:
    """Images of unknown state are not written to until somebody says so."""
    refusing = scene.destination(images=left.images, name='refusing')
    begin(source, scene.uri(refusing))
    source.wait_migration('failed')
    text = source.migration()['error-desc']
    require('only complete one' in text and 'torn' in text, text)
    has_ended(refusing)
    adopting = scene.reopen('adopting', left.images, scene.other_guest(),
                            paused=True)
    adopting.qmp.cmd('wsm-adopt')
    adopting.quit()


def has_ended(vm: Vm) -> None:
    """A destination whose migration failed ends by itself."""
    wait_until(lambda: not vm.alive(), f'{vm.name} ended')
