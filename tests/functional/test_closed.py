# SPDX-License-Identifier: GPL-2.0-or-later
"""Records where QEMU may not create files: libvirt's folder of images."""

import os
from dataclasses import replace
from typing import Any, Callable

from dev.rig.basics import require, run
from dev.rig.image import Image
from dev.rig.scene import Scene, disk_total, query
from dev.rig.vm import DiskConfig, MachineConfig, Vm
from tests.functional.lib.back import (BOTH, SYNC_POINTS, away, back,
                                       expect_kinds, expect_refused,
                                       no_record_of, onto, points, record,
                                       refuse_then_adopt, states)
from tests.functional.lib.closed import (ATTRIBUTE, POWERLESS, close_folder,
                                         has_attribute, without_attributes)
from tests.functional.lib.moves import end, loaded_source, move
from tests.functional.lib.registry import add, test
from tests.functional.test_records import NO_RECORD, DescriptorVm, expect_told
from tests.functional.test_resume import resume_after_source_killed
from tests.functional.test_stale import (source_killed_in_doubt,
                                         stale_copy_refused)

RAW = MachineConfig((DiskConfig('vd0'),))


def expect_in_attributes(images: list[Image]) -> None:
    for image in images:
        require(has_attribute(image), f'no attribute of {image.path}')
        require(not record(image).exists(), f'a file beside {image.path}')


def expect_untold(vm: Vm) -> None:
    require(no_record_of(vm) == [None] * len(vm.images) and
            NO_RECORD not in vm.stderr(),
            f'{vm.name}: {no_record_of(vm)}, {vm.stderr()}')


def away_and_back(scene: Scene) -> None:
    """The stale copy is refused, the way back is quick, and so on."""
    here, there = away(scene)
    expect_in_attributes(here.images)
    for vm in (here, there):
        expect_untold(vm)
    require(not any(map(has_attribute, there.images)), 'they are current')
    here.quit()
    stale = scene.reopen('stale', here.images, scene.other_guest())
    expect_refused(stale, 'handed over to 127.0.0.1', 'this copy is stale')
    require('The guest was not started' in stale.stderr(), stale.stderr())
    stale.quit()
    last = onto(scene, there, here.images, 'destination-2')
    expect_kinds(there, SYNC_POINTS)
    end(there, last)
    expect_in_attributes(there.images)
    # The raw one keeps its sync points in it, the qcow2 one needs none
    require([has_attribute(image) for image in last.images] == [True, False],
            'attributes of current images')
    for name in ('again', 'once-more'):
        again = scene.reopen(name, last.images, scene.other_guest())
        again.wait_running()
        require(states(again) == ['current'] * 2, f'{states(again)}')
        require([len(ids) for ids in points(again)] == [2, 2],
                f'{points(again)}')
        require(not any(map(has_attribute, last.images)), 'they are in use')
        again.quit()


@test(BOTH)
def closed_folder(scene: Scene) -> None:
    """As under libvirt: root's folder of mode 0711."""
    close_folder(scene)
    away_and_back(scene)


class HandedVm(DescriptorVm):
    """Gets descriptors of images that it finds under no name."""

    def _popen(self, argv: list[str], stderr: Any) -> Any:
        return super()._popen(POWERLESS + argv, stderr)


@test(BOTH)
def images_without_a_name(scene: Scene) -> None:
    """/dev/fdset/N, and a folder that QEMU may not even pass."""
    close_folder(scene)
    scene.vm_type = HandedVm
    scene.image_folder = scene.folder / 'secret'
    scene.image_folder.mkdir(mode=0)
    away_and_back(scene)


def in_closed_folder(function: Callable[[Scene], None]
                     ) -> Callable[[Scene], None]:
    def closed(scene: Scene) -> None:
        close_folder(scene)
        function(scene)
    closed.__doc__ = f'Closed folder: {function.__doc__}'
    return closed


add('closed-folder-stale-copy', in_closed_folder(stale_copy_refused), BOTH)
add('closed-folder-killed-in-doubt', in_closed_folder(source_killed_in_doubt),
    BOTH)
add('closed-folder-resume', in_closed_folder(resume_after_source_killed), BOTH)


@test(BOTH)
def closed_folder_torn(scene: Scene) -> None:
    """An attribute that is cut off: the image is not run, nor written to."""
    close_folder(scene)
    here, there = away(scene)
    here.quit()
    for image in here.images:
        text = os.getxattr(image.path, ATTRIBUTE)
        os.setxattr(image.path, ATTRIBUTE, text[:-20])
    stale = scene.reopen('stale', here.images, scene.other_guest())
    expect_refused(stale, 'not known', "attribute 'user.wsm' of", 'torn',
                   'wsm-adopt')
    require(states(stale) == ['leaving'] * 2, f'{states(stale)}')
    stale.quit()
    refuse_then_adopt(scene, there, here)
    last = onto(scene, there, here.images, 'destination-2')
    expect_kinds(there, ['content'] * 2, 'no sync point')
    require(disk_total(there, 'equal') > 0, f'{query(there)["disks"]}')
    end(there, last)


@test(RAW)
def closed_folder_opened(scene: Scene) -> None:
    """From an attribute to a file, when the next record is due."""
    close_folder(scene)
    here, there = away(scene)
    scene.folder.chmod(0o755)
    last = back(scene, there, here, 'destination-2')
    expect_kinds(there, ['sync-point'])
    # Written when the folder was open already
    require(record(there.images[0]).exists(), 'no record file')
    for image in there.images + last.images:
        require(not has_attribute(image), f'an attribute of {image.path}')
    end(there, last)
    require(record(last.images[0]).exists(), 'no sync points in a file')


@test(BOTH)
def copies_of_a_stale_image(scene: Scene) -> None:
    """What takes attributes along copies the state, too."""
    close_folder(scene)
    here, there = away(scene)
    there.kill()
    here.quit()
    for name, option, stale in (('all', '--preserve=all', True),
                                ('data', '--preserve=mode', False)):
        copies = []
        for image in here.images:
            copy = replace(image, path=scene.folder / f'{name}-{image.fmt}')
            run('cp', option, str(image.path), str(copy.path))
            copies.append(copy)
        vm = scene.reopen(name, copies, scene.other_guest())
        if stale:
            expect_refused(vm, 'this copy is stale')
        else:
            vm.wait_running()
        vm.quit()


@test(RAW)
def closed_folder_no_attributes(scene: Scene) -> None:
    """Neither goes: query-wsm says so at once, stderr when it matters."""
    close_folder(scene)
    scene.config = without_attributes(scene, scene.config)
    here = loaded_source(scene)
    there = scene.destination()
    for vm in (here, there):
        expect_told(vm, "cannot set attribute 'user.wsm'", times=0)
        expect_told(vm, 'cannot create files in', times=0)
    move(scene, here, there)
    for vm in (here, there):
        expect_told(vm, 'cannot create files in')
    require(not has_attribute(here.images[0]), 'an attribute')
    end(here, there)
