# SPDX-License-Identifier: GPL-2.0-or-later
"""Maps of missing blocks that cannot be made, or kept up."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

from dev.rig.basics import require, run, wait_until
from dev.rig.image import MIB
from dev.rig.qmp import Json
from dev.rig.scene import (Scene, begin, disk_total, finish, query,
                           wait_phase)
from dev.rig.vm import DiskConfig, MachineConfig, Vm
from tests.functional.lib.back import expect_refused, has_ended, states
from tests.functional.lib.closed import close_folder, without_attributes
from tests.functional.lib.mapfile import map_path
from tests.functional.lib.mapnode import MapNode, map_node, protocol
from tests.functional.lib.moves import (LOAD, SLOW_DISK, end, expect_moved,
                                        expect_unharmed, loaded_source)
from tests.functional.lib.registry import add, test
from tests.functional.lib.rescue import LONG_POSTCOPY

TWO = MachineConfig((DiskConfig('vd0'), DiskConfig('vd1')))
STOPS = MachineConfig((DiskConfig('vd0', extra=(('werror', 'stop'),)),))

# A destination that has no place for the map of one of its disks, and why
Make = Callable[[Scene], tuple[Vm, str]]
CRASH = 'If this host crashes in post-copy'


# It cannot be made

def closed(scene: Scene) -> tuple[Vm, str]:
    close_folder(scene)
    return scene.destination(), 'Permission denied'


def closed_to_all(scene: Scene) -> tuple[Vm, str]:
    """Nor can there be a record."""
    close_folder(scene)
    config = without_attributes(scene, scene.config)
    return scene.destination(config=config), 'Permission denied'


def is_a_folder(scene: Scene) -> tuple[Vm, str]:
    destination = scene.destination('defer')
    map_path(destination.images[-1]).mkdir()
    destination.qmp.cmd('migrate-incoming', uri='tcp:127.0.0.1:0')
    return destination, "'vd1'" if len(scene.config.disks) == 2 else 'rename'


def full(scene: Scene) -> tuple[Vm, str]:
    """The image has all its blocks, and there are no more than for that."""
    images = scene.new_images('destination')
    for image in images:
        with open(image.path, 'rb+') as file:
            os.posix_fallocate(file.fileno(), 0, image.size)
    return scene.destination(images=images), 'No space left'


@contextmanager
def small_folder(scene: Scene, size: int) -> Iterator[None]:
    folder = scene.folder / 'small'
    folder.mkdir()
    run('mount', '-t', 'tmpfs', '-o', f'size={size}', 'none', str(folder))
    scene.image_folder = folder
    try:
        yield
    finally:
        for vm in scene.vms:
            vm.close()
        run('umount', str(folder))


def cannot_be(scene: Scene, make: Make, wanted: str) -> None:
    """Automatic: a warning that says why; on: refused, and it says why."""
    source = loaded_source(scene, **LOAD)
    destination, why = make(scene)
    destination.qmp.cmd('wsm-set-options', crash_safe=wanted)
    if wanted == 'auto':
        goes_on(scene, source, destination, why)
    else:
        is_refused(scene, source, destination, why)


def goes_on(scene: Scene, source: Vm, destination: Vm, why: str) -> None:
    begin(source, scene.uri(destination))
    wait_phase(destination, 'disk-precopy')
    info = query(destination)['crash-safe']
    require(info['state'] == 'off' and why in info['why'], str(info))
    finish(source, destination)
    expect_moved(scene, source, destination)
    text = destination.stderr()
    require(text.count(CRASH) == 1 and why in text, text)
    for image in destination.images:
        require(not map_path(image).is_file(), 'a map is left')
    end(source, destination)


def is_refused(scene: Scene, source: Vm, destination: Vm, why: str) -> None:
    before = [image.path.read_bytes() for image in destination.images]
    begin(source, scene.uri(destination))
    source.wait_migration('failed')
    for text in (source.migration()['error-desc'], query(source)['error']):
        for word in ("'crash-safe' is 'on'", 'destination', why):
            require(word in text, f'no "{word}": {text}')
    require(disk_total(source, 'sent', 'zero') == 0, 'blocks were sent')
    expect_unharmed(scene, source)
    has_ended(destination)
    for image, data in zip(destination.images, before):
        require(image.path.read_bytes() == data, 'the image was written to')
        require(not map_path(image).is_file(), 'a map is left')


def no_space(scene: Scene, wanted: str) -> None:
    size = scene.config.disks[0].size
    source = loaded_source(scene, **LOAD)
    with small_folder(scene, size + 2 * MIB):
        destination, why = full(scene)
        destination.qmp.cmd('wsm-set-options', crash_safe=wanted)
        if wanted == 'auto':
            goes_on(scene, source, destination, why)
        else:
            is_refused(scene, source, destination, why)


for each in ('auto', 'on'):
    add(f'no-map-closed-{each}', partial(cannot_be, make=closed, wanted=each))
    add(f'no-map-no-record-{each}',
        partial(cannot_be, make=closed_to_all, wanted=each))
    add(f'no-map-folder-{each}',
        partial(cannot_be, make=is_a_folder, wanted=each))
    add(f'no-map-of-second-{each}',
        partial(cannot_be, make=is_a_folder, wanted=each), TWO)
    add(f'no-map-full-{each}', partial(no_space, wanted=each))


# It cannot be kept up

def breaking(node: MapNode, error: Json) -> Json:
    """A node above @node that fails; its state counts the writes."""
    return {'driver': 'raw', 'node-name': 'breaking', 'file': {
        'driver': 'blkdebug', 'image': protocol(node.path),
        'inject-error': [error], 'set-state': [
            {'event': 'write_aio', 'state': state, 'new_state': state + 1}
            for state in range(1, LATE)]}}


def with_broken_map(scene: Scene, node: Json) -> tuple[Vm, Vm]:
    """Post-copy, with a map that can be written for some time."""
    source = loaded_source(scene, **LOAD)
    destination = scene.destination('defer')
    destination.qmp.cmd('blockdev-add', node)
    destination.qmp.cmd('wsm-set-options', crash_safe='on',
                        maps=[{'disk': 'vd0', 'node': 'breaking'}])
    destination.qmp.cmd('migrate-incoming', uri='tcp:127.0.0.1:0')
    begin(source, scene.uri(destination), **{**SLOW_DISK, **LONG_POSTCOPY})
    wait_phase(destination, 'postcopy')
    return source, destination


def expect_lost(vm: Vm, why: str) -> None:
    event = vm.qmp.event('WSM_MAP', lambda data: bool(data['state'] == 'lost'))
    info = query(vm)['crash-safe']
    for text in (event['why'], info['why'], vm.stderr()):
        require("map of disk 'vd0'" in text and why in text, text)
    require(info['state'] == 'lost', str(info))


# Creating it takes 5 writes, the commit 2; each mark, and a void head, one
LATE = 20
ONCE: Json = {'event': 'write_aio', 'iotype': 'write', 'once': True,
              'state': LATE}


@test(TWO)
def map_lost(scene: Scene) -> None:
    """A map that cannot be written is void, as are all; the guest goes on."""
    node = map_node(scene)
    source, destination = with_broken_map(scene, breaking(node, ONCE))
    expect_lost(destination, 'Input/output error')
    require(disk_total(destination, 'missing') > 0, 'nothing is missing')
    scene.guest.wait_progress(writes=100)
    scene.guest.command('flush')
    source.qmp.cmd('wsm-set-options', x_push_delay=0)
    finish(source, destination)
    expect_moved(scene, source, destination)
    end(source, destination)
    require(not any(node.path.read_bytes()), 'the void map is still there')
    require(not map_path(destination.images[1]).exists(), 'a map is left')


@test(TWO)
def map_lost_and_killed(scene: Scene) -> None:
    """Nobody believes a map that could not be written."""
    node = map_node(scene)
    _, destination = with_broken_map(scene, breaking(node, ONCE))
    expect_lost(destination, 'Input/output error')
    scene.guest.command('flush')
    destination.kill()
    vm = scene.reopen('again', destination.images, scene.other_guest(),
                      paused=True)
    node.add(vm)
    vm.qmp.cmd('wsm-set-options', maps=[node.of('vd0')])
    expect_refused(vm, 'is not known', 'could not write it any more')
    require(states(vm) == ['arriving'] * 2, str(states(vm)))
    vm.qmp.expect_error('wsm-rejoin', 'could not write it any more',
                        uri='tcp:127.0.0.1:0')
    vm.quit()


@test(STOPS)
def map_not_even_void(scene: Scene) -> None:
    """Not even a void one can be written: the guest's flush fails.

    The guest is stopped by its disk's werror, and nothing was acknowledged.
    """
    node = map_node(scene)
    always = {**ONCE, 'once': False}
    source, destination = with_broken_map(scene, breaking(node, always))
    event = destination.qmp.event('BLOCK_IO_ERROR')
    require(event['node-name'] or event['device'] == '', str(event))
    wait_until(lambda: destination.status() == 'io-error',
               'the guest is stopped')
    info = query(destination)['crash-safe']
    require(info['state'] == 'on' and "map of disk 'vd0'" in info['why'],
            str(info))
    # Again, and again
    destination.qmp.cmd('cont')
    wait_until(lambda: destination.status() == 'io-error',
               'the guest is stopped')
    require(source.alive(), 'the source has ended')
    destination.kill()
