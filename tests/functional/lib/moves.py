# SPDX-License-Identifier: GPL-2.0-or-later
"""Steps that many tests share."""

from typing import Any, Optional

from dev.rig.basics import require, wait_until
from dev.rig.image import MIB
from dev.rig.scene import (Scene, begin, disk_total, expect_clean, finish,
                           query, wait_phase, wait_total)
from dev.rig.vm import Vm

# All kinds of requests at a rate that leaves the host room
LOAD = {'writers': 2, 'rate': 400, 'readers': 1, 'rrate': 100, 'full': 6,
        'part': 3, 'big': 1, 'flush': 50}
DISCARD_LOAD = {**LOAD, 'discard': 2, 'zero': 2}

# Make phases last: disk data and RAM take seconds instead of a moment
SLOW_DISK: dict[str, Any] = {'bandwidth': 8 * MIB}
SLOW_PUSH: dict[str, Any] = {'x_push_delay': 20}
# RAM that never converges, so that RAM pre-copy lasts until it is allowed to
BUSY_RAM = {'mem': 64, 'mrate': 20000}


def fill_half(scene: Scene) -> None:
    """Data in the first half of every disk, the rest stays a hole."""
    for disk, sectors in enumerate(scene.guest.sectors()):
        scene.guest.fill(disk, 0, sectors // 2 * 512)


def loaded_source(scene: Scene, **load: int) -> Vm:
    """A source whose disks have data and whose guest is at work."""
    source = scene.source()
    fill_half(scene)
    scene.guest.start(**(load or LOAD))
    return source


def hold_ram_phase(source: Vm) -> None:
    source.set_params(downtime_limit=1, max_bandwidth=48 * MIB)


def release_ram_phase(source: Vm) -> None:
    source.set_params(downtime_limit=2000, max_bandwidth=1 << 40)


def expect_moved(scene: Scene, source: Vm, destination: Vm) -> None:
    """The guest lives at the destination, with every block as it was."""
    destination.wait_running()
    scene.guest.wait_progress(beats=10)
    scene.guest.stop()
    scene.guest.verify()
    scene.guest.command('flush')
    require(source.status() == 'postmigrate',
            f'source is {source.status()}')


def end(source: Vm, destination: Vm) -> None:
    """End both; no image may stay locked or be damaged."""
    source.quit()
    destination.quit()
    for image in source.images + destination.images:
        require(not image.is_locked(), f'{image.path} is still locked')
        image.check()


def expect_postcopy(source: Vm) -> None:
    """Blocks were really missing at the freeze, and sent after it."""
    require(phase_ms(source, 'postcopy') is not None,
            'there was no post-copy')
    require(disk_total(source, 'pushed', 'pulled') > 0,
            'no block was sent in post-copy')


def phase_ms(vm: Vm, phase: str) -> Optional[int]:
    for entry in query(vm)['phases']:
        if entry['phase'] == phase:
            return int(entry['ms'])
    return None


def move(scene: Scene, source: Vm, destination: Vm,
         uri: Optional[str] = None, **options: Any) -> None:
    """A whole migration under load, to the end."""
    begin(source, uri or scene.uri(destination), **options)
    finish(source, destination)
    expect_moved(scene, source, destination)


def expect_unharmed(scene: Scene, source: Vm) -> None:
    """The migration did not happen, and the guest does not care."""
    wait_until(lambda: source.status() == 'running',
               f'source runs again, it is {source.status()}')
    scene.guest.wait_progress(beats=10)
    expect_clean(source)


def second_try(scene: Scene, source: Vm, **options: Any) -> Vm:
    """After a failure everything works, to a destination that is new."""
    release_ram_phase(source)
    destination = scene.destination(name='destination-2')
    options = {'bandwidth': 0, 'x_push_delay': 0, **options}
    move(scene, source, destination, **options)
    end(source, destination)
    return destination


def start_and_wait(source: Vm, uri: str, phase: str,
                   **options: Any) -> None:
    """Begin a migration and wait for a phase of it."""
    begin(source, uri, **options)
    wait_phase(source, phase)


def resent(source: Vm) -> int:
    """Bytes that were sent more often than the disks have data."""
    return disk_total(source, 'sent', 'zero') - disk_total(source, 'size')


def running_migration(scene: Scene) -> tuple[Vm, Vm, str]:
    """A migration in disk pre-copy, and its session."""
    source = loaded_source(scene)
    destination = scene.destination()
    begin(source, scene.uri(destination), bandwidth=2 * MIB, **SLOW_PUSH)
    wait_phase(source, 'disk-precopy')
    wait_total(source, 'sent')
    return source, destination, str(query(source)['session'])


def to_the_end(scene: Scene, source: Vm, destination: Vm) -> None:
    """What was done to a migration that was slow was of no avail."""
    source.qmp.cmd('wsm-set-options', bandwidth=0)
    finish(source, destination)
    expect_moved(scene, source, destination)
    end(source, destination)
