# SPDX-License-Identifier: GPL-2.0-or-later
"""Images with backing files: the whole content counts, the top is written."""

import shutil

from dev.rig.basics import require, run, tool
from dev.rig.image import MIB, Image
from dev.rig.scene import Scene, disk_total, query
from dev.rig.vm import DiskConfig, MachineConfig, Vm
from tests.functional.lib.back import (DATA, expect_kinds, expect_sent, onto,
                                       save, wake)
from tests.functional.lib.moves import LOAD, end, fill_half
from tests.functional.lib.registry import test

QCOW2 = MachineConfig((DiskConfig(fmt='qcow2'),))


def overlay(scene: Scene, name: str, base: Image) -> Image:
    """An empty image on top of a copy of @base."""
    copy = scene.folder / f'{name}-base.qcow2'
    shutil.copyfile(base.path, copy)
    image = Image(scene.folder / f'{name}.qcow2', 'qcow2', base.size)
    run(tool('qemu-img'), 'create', '-q', '-f', 'qcow2', '-F', 'qcow2',
        '-b', str(copy), str(image.path))
    return image


def source_on_base(scene: Scene) -> tuple[Vm, Image]:
    """A guest with data in its image's backing file, and its base."""
    first = scene.source()
    fill_half(scene)
    scene.guest.command('flush')
    state = save(first)
    first.quit()
    base = first.images[0]
    source = wake(scene, [overlay(scene, 'top', base)], state, 'on-base')
    scene.guest.fill(0, 8 * MIB, MIB)
    scene.guest.command('flush')
    return source, base


@test(QCOW2)
def backing_on_both_sides(scene: Scene) -> None:
    """The same base there: only the top layer's difference is sent."""
    source, base = source_on_base(scene)
    top = overlay(scene, 'other', base)
    destination = onto(scene, source, [top], 'destination', load={})
    expect_kinds(source, ['content'], 'no sync point')
    expect_sent(source, 2 * MIB, least=MIB)
    require(disk_total(source, 'equal') >= DATA - 2 * MIB,
            f'{query(source)["disks"]}')
    require(top.allocated() < 8 * MIB, f'{top.allocated()} bytes on top')
    source.quit()
    last = onto(scene, destination, source.images, 'destination-2')
    expect_kinds(destination, ['sync-point'])
    expect_sent(destination, DATA)
    end(destination, last)
    old = (scene.folder / 'other-base.qcow2').read_bytes()
    require(old == base.path.read_bytes(), 'the base was written to')


@test(QCOW2)
def backing_on_one_side(scene: Scene) -> None:
    """No base there: the content of the whole chain is sent."""
    source, _ = source_on_base(scene)
    destination = onto(scene, source, scene.new_images('destination'),
                       'destination', LOAD)
    expect_kinds(source, ['full'], 'blank')
    expect_sent(source, 4 * DATA, least=DATA)
    source.quit()
    last = onto(scene, destination, source.images, 'destination-2')
    expect_kinds(destination, ['sync-point'])
    expect_sent(destination, DATA)
    end(destination, last)
