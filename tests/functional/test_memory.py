# SPDX-License-Identifier: GPL-2.0-or-later
"""Memory that the migration itself takes."""

from dev.rig.basics import require
from dev.rig.image import GIB, MIB
from dev.rig.meter import CODE_CACHE, Meter, preallocated
from dev.rig.scene import Scene, begin, finish, wait_phase
from dev.rig.vm import DiskConfig, MachineConfig
from tests.functional.lib.moves import LOAD, end, expect_moved, fill_half
from tests.functional.lib.registry import test

ALLOWED = 64 * MIB
# One bit for each 4 KiB, on some levels, for tracking and for sending
BITMAPS = 4 * (16 * GIB // 4096 // 8)


@test(preallocated(DiskConfig(size=16 * GIB)))
def memory_bound(scene: Scene) -> None:
    """Neither side grows by more than bitmaps and 64 MiB."""
    source = scene.source()
    scene.guest.region(0, 0, 96 * MIB)
    scene.guest.fill(0, 0, 96 * MIB)
    scene.guest.start(**{**LOAD, 'rate': 0})
    scene.guest.wait_progress(writes=3000)
    destination = scene.destination()
    with Meter(source) as here, Meter(destination) as there:
        begin(source, scene.uri(destination), x_push_delay=10)
        finish(source, destination)
    expect_moved(scene, source, destination)
    require(here.growth <= ALLOWED + BITMAPS,
            f'the source grew by {here.growth} bytes')
    require(there.growth <= ALLOWED + BITMAPS + CODE_CACHE * MIB,
            f'the destination grew by {there.growth} bytes')
    end(source, destination)


@test(MachineConfig((DiskConfig(size=64 * MIB),)))
def many_migrations(scene: Scene) -> None:
    """Ten cancelled migrations leave no memory and no file behind."""
    source = scene.source()
    fill_half(scene)
    scene.guest.start(**LOAD)
    growth = 0
    for attempt in range(10):
        destination = scene.destination(name=f'destination-{attempt}')
        begin(source, scene.uri(destination), bandwidth=4 * MIB)
        wait_phase(source, 'disk-precopy')
        source.qmp.cmd('migrate_cancel')
        source.wait_migration('cancelled')
        destination.close()
        if attempt == 1:
            first = source.resident_bytes()
        elif attempt > 1:
            growth = source.resident_bytes() - first
    require(growth < ALLOWED // 2, f'the source grew by {growth} bytes')
