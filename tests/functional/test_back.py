# SPDX-License-Identifier: GPL-2.0-or-later
"""Moving back, and on: only what changed is sent."""

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

from dev.rig.basics import require, run, tool
from dev.rig.image import MIB, Image
from dev.rig.scene import Scene, begin, disk_total, finish, query
from dev.rig.vm import DiskConfig, MachineConfig, Vm
from tests.functional.lib.back import (BOTH, DATA, SYNC_POINTS, away, back,
                                       bases, expect_kinds, expect_sent, onto,
                                       points, resize, save, session_points,
                                       wake)
from tests.functional.lib.moves import (LOAD, SLOW_PUSH, end, expect_moved,
                                        expect_postcopy, fill_half,
                                        loaded_source, move)
from tests.functional.lib.registry import add, test


@test(BOTH)
def ten_times(scene: Scene) -> None:
    """Ten moves between two hosts under load, each one incremental."""
    here, there = away(scene)
    total = disk_total(here, 'sent')
    for number in range(10):
        here, there = there, back(scene, there, here, f'destination-{number}')
        expect_kinds(here, SYNC_POINTS, 'both sides know')
        expect_sent(here, total // 2, least=1)
        kept = min(8, number + 2)
        require([len(ids) for ids in points(there)] == [kept] * 2,
                f'way {number}: points {points(there)}')
    end(here, there)


def three_hosts(last: str) -> None:
    def function(scene: Scene) -> None:
        first, second = away(scene)
        total = disk_total(first, 'sent')
        made = {'a': session_points(first)}
        first.quit()
        third = onto(scene, second, scene.new_images('third'),
                     'destination-c')
        expect_kinds(second, ['full'] * 2, 'blank')
        made['b'] = session_points(second)
        second.quit()
        old = {'a': first, 'b': second}[last]
        fourth = onto(scene, third, old.images, 'destination-d')
        expect_kinds(third, SYNC_POINTS)
        expect_sent(third, total // 2, least=1)
        used = [basis['point'] for basis in bases(third)]
        require(used == made[last], f'{used}, {made}')
        end(third, fourth)

    way = ' -> '.join('abc' + last).upper()
    function.__doc__ = f'{way}: the last way is incremental.'
    add(f'three-hosts-{last}', function, BOTH)


three_hosts('a')
three_hosts('b')


@test(BOTH)
def postcopy_on_the_way_back(scene: Scene) -> None:
    """The guest needs blocks at once that only the other host has."""
    here, there = away(scene)
    again = back(scene, there, here, 'destination-2', max_residue=30000,
                 **SLOW_PUSH)
    expect_kinds(there, SYNC_POINTS)
    expect_postcopy(there)
    there, again = again, back(scene, again, there, 'destination-3')
    expect_kinds(there, SYNC_POINTS)
    end(there, again)


def saved_away(scene: Scene) -> tuple[Vm, Vm, Path]:
    """Away, written there, and ended; the guest's RAM is saved."""
    here, there = away(scene)
    scene.guest.fill(0, 0, MIB)
    state = save(there)
    there.qmp.cmd('stop')
    there.quit()
    return here, there, state


@test(BOTH)
def restart_between(scene: Scene) -> None:
    """QEMU ends at the destination and starts anew; then back."""
    here, there, state = saved_away(scene)
    again = wake(scene, there.images, state, 'again')
    require([len(ids) for ids in points(again)] == [1, 1],
            f'after the restart: {points(again)}')
    scene.guest.fill(1, 2 * MIB, MIB)
    last = back(scene, again, here, 'destination-2', load={})
    expect_kinds(again, SYNC_POINTS)
    expect_sent(again, 4 * MIB, least=2 * MIB)
    end(again, last)


@test(BOTH)
def paused_between(scene: Scene) -> None:
    """Saved, loaded in a new QEMU, and sent back without ever running."""
    here, there, state = saved_away(scene)
    again = scene.reopen('again', there.images, state=state)
    here.quit()
    last = scene.destination(images=here.images, name='destination-2')
    begin(again, scene.uri(last))
    finish(again, last)
    expect_kinds(again, SYNC_POINTS)
    expect_sent(again, 3 * MIB, least=MIB)
    require(last.status() == 'paused', f'it is {last.status()}')
    last.qmp.cmd('cont')
    expect_moved(scene, again, last)
    again = back(scene, last, again, 'destination-3')
    expect_kinds(last, SYNC_POINTS)
    end(last, again)


THREE = MachineConfig((DiskConfig('vd0'), DiskConfig('vd1', fmt='qcow2'),
                       DiskConfig('vd2')))


@test(THREE)
def different_bases(scene: Scene) -> None:
    """Each disk builds on what its own image is good for."""
    here, there = away(scene)
    here.quit()
    blank = scene.new_images('blank')
    copy = replace(here.images[2], path=scene.folder / 'copy.raw')
    shutil.copyfile(here.images[2].path, copy.path)
    images = [blank[0], here.images[1], copy]
    last = onto(scene, there, images, 'destination-2')
    expect_kinds(there, ['full', 'sync-point', 'content'],
                 'blank', 'both sides know', 'no sync point')
    sent = [disk['sent'] for disk in query(there)['disks']]
    require(sent[0] > DATA and max(sent[1:]) < DATA // 2, f'sent {sent}')
    require(query(there)['disks'][2]['equal'] > DATA // 2,
            f'{query(there)["disks"][2]}')
    end(there, last)


@test(BOTH)
def template_seeded(scene: Scene) -> None:
    """The destination has a copy of what the guest once was."""
    source = scene.source()
    fill_half(scene)
    scene.guest.command('flush')
    source.qmp.cmd('stop')
    images = scene.new_images('destination')
    for ours, theirs in zip(source.images, images):
        run(tool('qemu-img'), 'convert', '-U', '-n', '-f', ours.fmt, '-O',
            theirs.fmt, str(ours.path), str(theirs.path))
    source.qmp.cmd('cont')
    scene.guest.fill(0, 8 * MIB, MIB)
    for disk in range(2):
        scene.guest.region(disk, 0, 4 * MIB)
    destination = onto(scene, source, images, 'destination')
    for disk, sectors in enumerate(scene.guest.sectors()):
        scene.guest.region(disk, 0, sectors * 512)
    scene.guest.verify()
    expect_kinds(source, ['content'] * 2, 'no sync point')
    expect_sent(source, DATA, least=MIB)
    require(disk_total(source, 'compared') >= 2 * DATA and
            disk_total(source, 'equal') >= DATA, f'{query(source)["disks"]}')
    require(disk_total(destination, 'compared') >= 2 * DATA,
            f'{query(destination)["disks"]}')
    end(source, destination)


def write_image(image: Image, *ranges: str) -> None:
    """Write to an image that is not in use; of each range, offset and size."""
    for where in ranges:
        run(tool('qemu-io'), '-f', image.fmt, '-c', f'write -P 90 {where}',
            str(image.path))


@test(BOTH)
def fresh_images_are_blank(scene: Scene) -> None:
    """To images fresh from `qemu-img create` all is sent, nothing compared."""
    here, there = away(scene)
    for vm in (here, there):
        require(disk_total(vm, 'compared') == 0, f'{query(vm)["disks"]}')
    end(here, there)


@test(BOTH)
def only_data_is_compared(scene: Scene) -> None:
    """Where the destination has data the content is compared; only there."""
    source = loaded_source(scene)
    images = scene.new_images('destination')
    for image in images:
        # On what the source has, and on what is a hole there
        write_image(image, '1M 2M', '9M 64k', f'{DATA + MIB} 4M')
    destination = onto(scene, source, images, 'destination')
    expect_kinds(source, ['content'] * 2, 'no sync point')
    for vm in (source, destination):
        for disk in query(vm)['disks']:
            require(2 * MIB < disk['compared'] < 7 * MIB, f'{vm.name}: {disk}')
    require(disk_total(source, 'sent') >= 2 * DATA,
            f'{query(source)["disks"]}')
    for disk, sectors in enumerate(scene.guest.sectors()):
        scene.guest.region(disk, 0, sectors * 512)
    scene.guest.verify()
    end(source, destination)


@test()
def wishes(scene: Scene) -> None:
    """Option "basis": full and content are forced, sync-point refused."""
    def wish(kind: str) -> dict[str, Any]:
        return {'basis': [{'disk': 'vd0', 'kind': kind}]}

    here, there = away(scene)
    again = back(scene, there, here, 'destination-2', **wish('full'))
    expect_kinds(there, ['full'], "option 'basis'")
    expect_sent(there, 4 * DATA, least=DATA)
    there, again = again, back(scene, again, there, 'destination-3',
                               **wish('content'))
    expect_kinds(there, ['content'], "option 'basis'")
    expect_sent(there, DATA // 2)
    require(disk_total(there, 'equal') > 0, f'{query(there)["disks"]}')
    there.quit()
    refused(scene, again, **wish('sync-point'))
    last = onto(scene, again, there.images, 'destination-5',
                **wish('sync-point'))
    expect_kinds(again, ['sync-point'])
    end(again, last)


def refused(scene: Scene, source: Vm, **options: object) -> None:
    """To a blank image by a sync point: no."""
    blank = scene.destination(name='destination-blank')
    source.qmp.cmd('wsm-set-options', None, **options)
    source.qmp.cmd('migrate', uri=scene.uri(blank))
    source.wait_migration('failed')
    text = source.migration()['error-desc']
    require('vd0' in text and "asks for a sync point" in text and
            "destination's image has no sync point" in text, text)
    blank.close()


@test(BOTH)
def no_points(scene: Scene) -> None:
    """Option "sync-points" 0: none is kept, anywhere."""
    here = loaded_source(scene)
    there = scene.destination(sync_points=0)
    move(scene, here, there, sync_points=0)
    for vm in (here, there):
        require(points(vm) == [[], []], f'{vm.name}: {points(vm)}')
    again = back(scene, there, here, 'destination-2')
    expect_kinds(there, ['content'] * 2, 'no sync point')
    end(there, again)


def mine(vm: Vm) -> list[int]:
    """Bytes that the user's bitmap of each disk has."""
    nodes = {node['node-name']: node.get('dirty-bitmaps', [])
             for node in vm.qmp.cmd('query-named-block-nodes')}
    return [bitmap['count'] for disk in vm.config.disks
            for bitmap in nodes[f'node-{disk.id}']
            if bitmap.get('name') == 'mine']


def with_bitmaps(scene: Scene, source: Vm, destination: Vm) -> None:
    """A move with the capability dirty-bitmaps too."""
    for vm in (source, destination):
        vm.set_caps('dirty-bitmaps')
    destination.qmp.cmd('migrate-incoming', uri='tcp:127.0.0.1:0')
    scene.guest.start(**LOAD)
    begin(source, scene.uri(destination))
    source.wait_migration('completed')
    destination.wait_migration('completed')
    expect_moved(scene, source, destination)
    # That of the old qcow2 image is stored there, and not in memory any more
    require(len(mine(source)) == 1 and len(mine(destination)) == 2 and
            all(there >= here > 0 for here, there in
                zip(mine(source), mine(destination))),
            f'{mine(source)} became {mine(destination)}')


@test(BOTH)
def others_bitmaps(scene: Scene) -> None:
    """A bitmap of the user's travels with dirty-bitmaps, ours do not."""
    here = scene.source()
    fill_half(scene)
    for disk in scene.config.disks:
        here.qmp.cmd('block-dirty-bitmap-add', {
            'node': f'node-{disk.id}', 'name': 'mine',
            'persistent': disk.fmt == 'qcow2'})
    there = scene.destination('defer')
    with_bitmaps(scene, here, there)
    here.quit()
    again = scene.destination('defer', images=here.images,
                              name='destination-2')
    there.set_params(downtime_limit=2000)
    with_bitmaps(scene, there, again)
    expect_kinds(there, SYNC_POINTS)
    require([len(ids) for ids in points(again)] == [2, 2],
            f'{points(again)}')
    end(there, again)


@test(BOTH)
def resized_between(scene: Scene) -> None:
    """A sync point of a disk that had another size is not trusted."""
    here, there = away(scene)
    here.quit()
    for disk, image in zip(scene.config.disks, here.images):
        there.qmp.cmd('block_resize', {'node-name': f'node-{disk.id}',
                                       'size': disk.size + 16 * MIB})
        resize(image, disk.size + 16 * MIB)
    require(points(there) == [[], []], f'after block_resize: {points(there)}')
    last = onto(scene, there, here.images, 'destination-2')
    expect_kinds(there, ['content'] * 2, 'no sync point', 'the disk has')
    require(disk_total(there, 'equal') > 0, f'{query(there)["disks"]}')
    end(there, last)


@test(MachineConfig((DiskConfig('vd0'), DiskConfig('vd1'))))
def disks_exchanged(scene: Scene) -> None:
    """The old images come back in the wrong places: none is trusted."""
    here, there = away(scene)
    here.quit()
    again = onto(scene, there, here.images[::-1], 'destination-2')
    expect_kinds(there, ['content'] * 2, 'is the same')
    end(there, again)
