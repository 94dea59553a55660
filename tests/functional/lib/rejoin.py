# SPDX-License-Identifier: GPL-2.0-or-later
"""A destination that is killed in post-copy, and wsm-rejoin for its images."""

from dataclasses import dataclass
from typing import Any

from dev.rig.basics import require, wait_until
from dev.rig.image import Image
from dev.rig.scene import (Scene, begin, disk_total, query, wait_phase)
from dev.rig.vm import Vm
from tests.functional.lib.back import record, states
from tests.functional.lib.mapfile import (crash_copy, map_path, merged,
                                          read_map)
from tests.functional.lib.moves import LOAD, loaded_source
from tests.functional.lib.rescue import LONG_POSTCOPY, Serving
from tests.functional.lib.setups import Setup, nothing


@dataclass
class Crashed:
    """What is left of a migration whose destination was killed in post-copy.

    EXPECTED is what the disks must be: the guest had flushed all of it.
    """
    source: Vm
    images: list[Image]
    expected: list[Image]
    uri: str                            # where the destination was


def maps_are_written(destination: Vm) -> bool:
    return str(query(destination)['crash-safe']['state']) == 'on'


def crashed_disks(scene: Scene, source: Vm, destination: Vm) -> list[Image]:
    """What maps and both images say, read by the tests' own reader."""
    disks = []
    for ours, theirs in zip(destination.images, source.images):
        image, copy = crash_copy(ours, scene.folder)
        disks.append(merged(read_map(copy), image, theirs,
                            scene.folder / f'{ours.path.name}.expected'))
    return disks


def in_postcopy(scene: Scene, setup: Setup = nothing,
                **options: Any) -> tuple[Vm, Vm]:
    """Post-copy, and the maps are written."""
    source = loaded_source(scene, **{**LOAD, 'rate': 0})
    destination = scene.destination('defer', crash_safe='on')
    setup(scene, source, destination)
    destination.qmp.cmd('migrate-incoming', uri='tcp:127.0.0.1:0')
    begin(source, scene.uri(destination), **{**LONG_POSTCOPY, **options})
    wait_phase(destination, 'postcopy')
    wait_until(lambda: maps_are_written(destination), 'the maps are written')
    return source, destination


def destination_killed(scene: Scene, setup: Setup = nothing,
                       **options: Any) -> Crashed:
    """The guest has written and flushed at the destination; it dies."""
    source, destination = in_postcopy(scene, setup, **options)
    uri = scene.uri(destination)
    scene.guest.wait_progress(writes=100)
    scene.guest.stop()
    scene.guest.command('flush')
    require(disk_total(destination, 'missing') > 0, 'nothing is missing')
    destination.kill()
    expected = crashed_disks(scene, source, destination)
    return Crashed(source, destination.images, expected, uri)


def rejoin(scene: Scene, crashed: Crashed, name: str = 'destination-2',
           uri: str = '') -> Vm:
    """A new QEMU has the images, and listens where the one before did."""
    vm = scene.reopen(name, crashed.images, paused=True)
    require(set(states(vm)) <= {'arriving', 'current'} and
            'arriving' in states(vm), f'{states(vm)}')
    vm.qmp.cmd('wsm-rejoin', uri=uri or crashed.uri)
    return vm


def expect_whole(vm: Vm, crashed: Crashed, sent: int = 0) -> None:
    """Nothing is missing, for good; the guest has not run yet.

    If SENT is not 0, no more bytes have been sent.
    """
    wait_phase(vm, 'completed')
    require(not sent or disk_total(vm, 'sent') <= sent, 'sent in vain')
    require(disk_total(vm, 'missing') == 0, 'something is missing')
    require(set(states(vm)) == {'current'}, f'{states(vm)}')
    for image in vm.images:
        require(not record(image).exists(), f'a record of {image.path}')
        require(not map_path(image).exists(), f'a map of {image.path}')
    vm.quit()
    for image, expected in zip(crashed.images, crashed.expected):
        expected.compare(image)


def served(crashed: Crashed, *options: str) -> Serving:
    """The source's QEMU is gone, and its images are served."""
    if crashed.source.alive():
        crashed.source.kill()
    return Serving(crashed.source.images, *options)
