# SPDX-License-Identifier: GPL-2.0-or-later
"""Maps of missing blocks on block nodes: option maps."""

import contextlib
import shutil
from functools import partial
from pathlib import Path
from typing import Optional

from dev.rig.basics import require
from dev.rig.image import MIB, Image
from dev.rig.qmp import Json
from dev.rig.scene import (WSM, Scene, begin, disk_total, enable, finish,
                           query)
from dev.rig.vm import DiskConfig, MachineConfig, Vm
from tests.functional.lib.back import (expect_refused, has_ended, record,
                                       states)
from tests.functional.lib.mapfile import (crash_copy_of, map_path, merged,
                                          read_map)
from tests.functional.lib.mapnode import (MAP_BYTES, DeviceVm, MapNode,
                                          loop_device, map_node)
from tests.functional.lib.moves import (LOAD, end, expect_moved,
                                        expect_unharmed, loaded_source,
                                        move)
from tests.functional.lib.registry import add, test
from tests.functional.lib.rejoin import (Crashed, expect_not_overwritten,
                                         fetch_rest)
from tests.functional.test_crash_safe import in_postcopy

TWO = MachineConfig((DiskConfig('vd0'), DiskConfig('vd1')))


def set_maps(vm: Vm, *maps: Json, crash_safe: str = 'on') -> None:
    vm.qmp.cmd('wsm-set-options', crash_safe=crash_safe, maps=list(maps))


def tells_on_node(scene: Scene, fmt: str) -> None:
    """Map, image and the source's image make the disk; no file is beside."""
    node = map_node(scene, fmt=fmt)
    destination = scene.destination()
    node.add(destination)
    set_maps(destination, node.of('vd0'))
    source, _ = in_postcopy(scene, destination)
    scene.guest.wait_progress(writes=200)
    scene.guest.stop()
    scene.guest.command('flush')
    destination.freeze(True)
    found = read_map(node.raw())
    image = crash_copy_of(destination.images[0], scene.folder)
    destination.freeze(False)
    require(len(found.missing) > 0 and found.records > 0,
            f'missing: {len(found.missing)}, records: {found.records}')
    require(not map_path(destination.images[0]).exists(), 'a map is beside')
    crashed = merged(found, image, source.images[0], scene.folder / 'crash.raw')

    source.qmp.cmd('wsm-set-options', x_push_delay=0)
    finish(source, destination)
    expect_moved(scene, source, destination)
    end(source, destination)
    require(not read_map(node.raw()).missing, 'something is missing yet')
    crashed.compare(destination.images[0])


for each in ('raw', 'qcow2'):
    add(f'map-on-{each}-node', partial(tells_on_node, fmt=each))


@test(TWO)
def map_node_of_one_disk(scene: Scene) -> None:
    """One disk's map is on a node, the other's beside its image."""
    node = map_node(scene)
    source = loaded_source(scene, **LOAD)
    destination = scene.destination()
    node.add(destination)
    set_maps(destination, node.of('vd1'))
    move(scene, source, destination)
    require(not read_map(node.raw()).missing, 'something is missing yet')
    for image in destination.images:
        require(not map_path(image).exists(), 'the map is there')
    end(source, destination)


def reuse(scene: Scene, node: MapNode, images: list[Image], vm: Vm) -> None:
    """The map of a migration that ended is in nobody's way."""
    back = scene.destination(images=images, name='destination-2')
    node.add(back)
    set_maps(back, node.of('vd0'))
    vm.set_params(downtime_limit=2000)
    move(scene, vm, back)
    end(vm, back)


@test()
def map_node_again(scene: Scene) -> None:
    """A node with the map of a migration that has ended gets the next one."""
    node = map_node(scene)
    source = loaded_source(scene, **LOAD)
    destination = scene.destination()
    node.add(destination)
    set_maps(destination, node.of('vd0'))
    move(scene, source, destination)
    source.quit()
    destination.qmp.cmd('blockdev-del', node_name=node.name)
    reuse(scene, node, source.images, destination)


# Refusals

def refused(vm: Vm, maps: list[Json], *words: str) -> None:
    vm.qmp.expect_error('wsm-set-options', *words, maps=maps)
    require(vm.qmp.cmd('query-wsm-options')['maps'] == [], 'it was set')


def fill(path: Path, at: int, data: bytes) -> None:
    with open(path, 'rb+') as file:
        file.seek(at)
        file.write(data)


@test(TWO)
def map_node_refused(scene: Scene) -> None:
    """Whatever is not fit for a map is refused at once, with what to do."""
    vm = scene.destination(uri='defer')
    node = map_node(scene).add(vm)
    beside = map_node(scene, 'beside').add(vm)
    refused(vm, [node.of('vd7')], "disk 'vd7'", "'maps'", 'no disk')
    refused(vm, [{'disk': 'vd0', 'node': 'map7'}], "'map7'", "'vd0'",
            'no such node', 'blockdev-add')
    for size, text in ((MAP_BYTES - 4096, 'must have from 4194304'),
                       ((1 << 30) + 4096, "driver raw with 'size'")):
        wrong = MapNode(f'map-{size}', scene.folder / f'map-{size}')
        wrong.create(size).add(vm)
        refused(vm, [wrong.of('vd0')], str(size), text)
    map_node(scene, 'read').add(vm, read_only=True)
    refused(vm, [{'disk': 'vd0', 'node': 'read'}], 'read-only')
    refused(vm, [{'disk': 'vd0', 'node': 'node-vd1'}], "disk 'vd1' itself")
    refused(vm, [{'disk': 'vd0', 'node': 'node-vd0-file'}],
            "disk 'vd0' itself")
    vm.qmp.cmd('blockdev-add', driver='raw', node_name='above', file='beside')
    refused(vm, [beside.of('vd0')], 'in use by', 'above')
    refused(vm, [node.of('vd0'), node.of('vd1')], 'two disks')
    refused(vm, [node.of('vd0'), {'disk': 'vd0', 'node': 'above'}],
            'one map')
    for at in (0, 8192, MAP_BYTES - 1):
        data = map_node(scene, f'data-{at}')
        fill(data.path, at, b'x')
        data.add(vm)
        refused(vm, [data.of('vd0')], 'no map', 'with zeroes')
        require(data.path.read_bytes()[at:at + 1] == b'x', 'it was changed')
    vm.qmp.cmd('wsm-set-options', maps=[node.of('vd0')])
    vm.qmp.cmd('wsm-set-options', maps=[])


@test()
def map_node_gone(scene: Scene) -> None:
    """The node was fit when it was named, and is not when START comes."""
    source = loaded_source(scene)
    destination = scene.destination()
    node = map_node(scene).add(destination)
    set_maps(destination, node.of('vd0'))
    destination.qmp.cmd('blockdev-del', node_name=node.name)
    begin(source, scene.uri(destination))
    source.wait_migration('failed')
    text = source.migration()['error-desc']
    for word in ("'map0'", 'no such node', "'vd0'", "'crash-safe' is 'on'"):
        require(word in text, f'no "{word}": {text}')
    expect_unharmed(scene, source)
    has_ended(destination)


# After a crash

def crash(scene: Scene, node: MapNode,
          images: Optional[list[Image]] = None) -> Crashed:
    """The guest has written and flushed at the destination; it dies."""
    destination = scene.destination(images=images)
    node.add(destination)
    set_maps(destination, node.of('vd0'))
    source, _ = in_postcopy(scene, destination)
    scene.guest.wait_progress(writes=100)
    scene.guest.stop()
    scene.guest.command('flush')
    require(disk_total(destination, 'missing') > 0, 'nothing is missing')
    uri = scene.uri(destination)
    destination.kill()
    found = [read_map(node.raw())]
    found += [read_map(map_path(image)) for image in destination.images[1:]]
    require(all(map_.missing for map_ in found), 'nothing is missing')
    expected = [
        merged(map_, crash_copy_of(ours, scene.folder), theirs,
               scene.folder / f'{ours.path.name}.expected')
        for map_, ours, theirs in zip(found, destination.images,
                                      source.images)]
    return Crashed(source, destination.images, expected, uri)


def expect_no_start(scene: Scene, images: list[Image], *maps: MapNode) -> None:
    """No migration overwrites the guest's disk."""
    destination = scene.destination(images=images, name='destination-2')
    for node in maps:
        node.add(destination)
    set_maps(destination, *(node.of('vd0') for node in maps))
    expect_not_overwritten(scene, destination)
    scene.vms.remove(destination)
    shutil.rmtree(destination.folder)


def reopened(scene: Scene, name: str, images: list[Image],
             node: MapNode) -> Vm:
    vm = scene.reopen(name, images, scene.other_guest(), paused=True)
    node.add(vm)
    return vm


def adopt(scene: Scene, images: list[Image], node: MapNode) -> None:
    """Then the map is gone, too."""
    vm = reopened(scene, 'adopt', images, node)
    set_maps(vm, node.of('vd0'))
    vm.qmp.cmd('wsm-adopt', missing='stale')
    require(not any(node.raw().read_bytes()), 'the map is still there')
    vm.qmp.cmd('cont')
    vm.quit()


def expect_arriving(vm: Vm, node: MapNode) -> None:
    missing = len(read_map(node.raw()).missing) * 4096
    expect_refused(vm, f'{missing} bytes', 'wsm-rejoin')
    require(set(states(vm)) == {'arriving'}, str(states(vm)))
    require(query(vm)['images'][0]['missing'] == missing, 'missing')


def expect_not_sent(vm: Vm) -> None:
    """What misses blocks is not migrated, with a guest that is paused."""
    enable(vm)
    vm.qmp.expect_error('migrate', "disk 'vd0'", 'wsm-rejoin',
                        uri='tcp:127.0.0.1:9')
    require(query(vm)['role'] == 'none', 'a migration began')
    vm.set_caps(WSM, on=False)


def rejoin(scene: Scene, crashed: Crashed, node: MapNode) -> None:
    """It goes on, with the same map."""
    vm = reopened(scene, 'rejoin', crashed.images, node)
    set_maps(vm, node.of('vd0'))
    vm.qmp.cmd('wsm-rejoin', uri=crashed.uri)
    vm.qmp.expect_error('wsm-set-options', 'cannot be set while', maps=[])
    fetch_rest(vm, crashed)
    require(not read_map(node.raw()).missing, 'something is missing yet')


@test(TWO)
def map_node_after_crash(scene: Scene) -> None:
    """A new QEMU must be told the node; then it knows what is missing."""
    node = map_node(scene)
    crashed = crash(scene, node)
    before = node.raw().read_bytes()
    vm = reopened(scene, 'again', crashed.images, node)
    expect_refused(vm, "'map0'", "option 'maps'")
    vm.qmp.expect_error('wsm-rejoin', "'map0'", "option 'maps'",
                        uri='tcp:127.0.0.1:0')
    refused(vm, [node.of('vd1')], 'map of another disk', 'peripheral/vd0')
    set_maps(vm, node.of('vd0'))
    expect_arriving(vm, node)
    expect_not_sent(vm)
    vm.quit()
    expect_no_start(scene, crashed.images)
    expect_no_start(scene, crashed.images, node)
    require(node.raw().read_bytes() == before, 'the map was changed')
    rejoin(scene, crashed, node)


@test()
def map_node_adopted(scene: Scene) -> None:
    """The guest's disk is given up: nothing of the map is left."""
    node = map_node(scene)
    crashed = crash(scene, node)
    adopt(scene, crashed.images, node)


@test()
def map_node_of_block_device(scene: Scene) -> None:
    """A disk on a block device has no record: its map counts by itself."""
    scene.vm_type = DeviceVm
    size = scene.config.disks[0].size
    with contextlib.ExitStack() as stack:
        disk, place = (stack.enter_context(loop_device(
            scene.folder / name, bytes_)) for name, bytes_ in (
                ('disk', size), ('map', 8 * MIB)))
        node = MapNode('map0', place)
        crashed = crash(scene, node, [Image(disk, 'raw', size)])
        require(not record(crashed.images[0]).exists(), 'a record in /dev')
        vm = reopened(scene, 'again', crashed.images, node)
        set_maps(vm, node.of('vd0'))
        expect_arriving(vm, node)
        vm.quit()
        expect_no_start(scene, crashed.images, node)
        rejoin(scene, crashed, node)
