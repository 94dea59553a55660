# SPDX-License-Identifier: GPL-2.0-or-later
"""A destination that is killed in post-copy, and wsm-rejoin for its images."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Optional

from dev.common import ROOT
from dev.rig.basics import QEMU, require, wait_until
from dev.rig.image import Image
from dev.rig.scene import (Scene, begin, disk_total, query, wait_phase)
from dev.rig.vm import Vm
from tests.functional.lib.back import has_ended, record, states
from tests.functional.lib.mapfile import (crash_copy, map_path, merged,
                                          read_map)
from tests.functional.lib.moves import LOAD, loaded_source
from tests.functional.lib.rescue import LONG_POSTCOPY, Running, Serving
from tests.functional.lib.setups import Setup, nothing
from tests.functional.lib.tls import NAME, use_x509

TOOL = ROOT / 'scripts/wsm-finish'


@dataclass
class Crashed:
    """What is left of a migration whose destination was killed in post-copy.

    EXPECTED is what the disks must be: the guest had flushed all of it.
    """
    source: Vm
    images: list[Image]
    expected: list[Image]
    uri: str                            # where the destination was
    tls: Optional[Path] = None          # certificates of both sides

    def tls_options(self) -> list[str]:
        """Of wsm-serve and wsm-finish."""
        return ['--tls-creds', str(self.tls)] if self.tls else []


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


def begin_with_maps(source: Vm, destination: Vm, uri: str,
                    **options: Any) -> None:
    """Post-copy, which is long, and the maps are written."""
    begin(source, uri, **{**LONG_POSTCOPY, **options})
    wait_phase(destination, 'postcopy')
    wait_until(lambda: maps_are_written(destination), 'the maps are written')


def in_postcopy(scene: Scene, setup: Setup = nothing,
                **options: Any) -> tuple[Vm, Vm]:
    """Post-copy, and the maps are written."""
    source = loaded_source(scene, **{**LOAD, 'rate': 0})
    destination = scene.destination('defer', crash_safe='on')
    setup(scene, source, destination)
    destination.qmp.cmd('migrate-incoming', uri='tcp:127.0.0.1:0')
    begin_with_maps(source, destination, scene.uri(destination), **options)
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
    tls = scene.folder / 'tls'
    return Crashed(source, destination.images, expected, uri,
                   tls if tls.exists() else None)


def reopen(scene: Scene, crashed: Crashed, name: str = 'destination-2') -> Vm:
    """A new QEMU has the images."""
    vm = scene.reopen(name, crashed.images, paused=True)
    require(set(states(vm)) <= {'arriving', 'current'} and
            'arriving' in states(vm), f'{states(vm)}')
    if crashed.tls:
        use_x509(vm, crashed.tls, 'server')
    return vm


def rejoin(scene: Scene, crashed: Crashed, name: str = 'destination-2',
           uri: str = '') -> Vm:
    """A new QEMU has the images, and listens where the one before did."""
    vm = reopen(scene, crashed, name)
    vm.qmp.cmd('wsm-rejoin', uri=uri or crashed.uri)
    return vm


def expect_no_rest(crashed: Crashed) -> None:
    """No record, no map."""
    for image in crashed.images:
        require(not record(image).exists(), f'a record of {image.path}')
        require(not map_path(image).exists(), f'a map of {image.path}')


def expect_same(crashed: Crashed) -> None:
    """The disks are what they must be, and nobody has them open."""
    for image, expected in zip(crashed.images, crashed.expected):
        require(not image.is_locked(), f'{image.path} is in use')
        image.check()
        expected.compare(image)


def expect_whole(vm: Vm, crashed: Crashed, sent: int = 0) -> None:
    """Nothing is missing, for good; the guest has not run yet.

    If SENT is not 0, no more bytes have been sent.
    """
    wait_phase(vm, 'completed')
    require(not sent or disk_total(vm, 'sent') <= sent, 'sent in vain')
    require(disk_total(vm, 'missing') == 0, 'something is missing')
    require(set(states(vm)) == {'current'}, f'{states(vm)}')
    expect_no_rest(crashed)
    vm.quit()
    expect_same(crashed)


def served(crashed: Crashed, *options: str, uri: str = '') -> Serving:
    """The source's QEMU is gone, and its images are served."""
    if crashed.source.alive():
        crashed.source.kill()
    tls = crashed.tls_options()
    if tls:
        tls += ['--tls-hostname', NAME]
    where = ['--to', uri] if uri else []
    return Serving(crashed.source.images, *where, *tls, *options)


def fetch_rest(vm: Vm, crashed: Crashed, sent: int = 0, uri: str = '') -> None:
    """The source's images are served until nothing is missing."""
    with served(crashed, uri=uri) as serving:
        serving.wait(0)
    expect_whole(vm, crashed, sent)


def expect_not_overwritten(scene: Scene, destination: Vm) -> None:
    """No migration of another guest overwrites the guest's disk."""
    other = Scene(scene.config, scene.binary)
    try:
        source = other.source()
        begin(source, scene.uri(destination))
        source.wait_migration('failed')
        text = source.migration()['error-desc']
        require('is the disk of a guest that came there' in text, text)
    finally:
        other.close()
    has_ended(destination)


class Finishing(Running):
    """wsm-finish of the images of a destination."""

    def __init__(self, crashed: Crashed, *options: str, uri: str = '',
                 images: Optional[list[Image]] = None) -> None:
        chosen = crashed.images if images is None else images
        super().__init__(str(TOOL), '--qemu', str(QEMU),
                         '--listen', uri or crashed.uri,
                         *crashed.tls_options(), *options,
                         *(str(image.path) for image in chosen))
