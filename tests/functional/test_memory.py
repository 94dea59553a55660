# SPDX-License-Identifier: GPL-2.0-or-later
"""Memory that the migration itself takes."""

import threading

from lib.common import POLL_SECONDS, require
from lib.image import GIB, MIB
from lib.moves import LOAD, end, expect_moved, fill_half
from lib.registry import test
from lib.scene import Scene, begin, finish, wait_phase
from lib.vm import DiskConfig, MachineConfig, Vm

MEMORY = 256
CODE_CACHE = 32
ALLOWED = 64 * MIB
# One bit for each 4 KiB, on some levels, for tracking and for sending
BITMAPS = 4 * (16 * GIB // 4096 // 8)


def preallocated(disk: DiskConfig) -> MachineConfig:
    """All of the guest's RAM is resident from the start."""
    return MachineConfig(
        (disk,), machine='pc,memory-backend=ram',
        extra=('-object', f'memory-backend-ram,id=ram,size={MEMORY}M,'
                          'prealloc=on'),
        accel=f'tcg,thread=multi,tb-size={CODE_CACHE}')


class Meter:
    """Samples the resident memory of a QEMU; use as a context."""

    def __init__(self, vm: Vm) -> None:
        self._vm = vm
        self._stop = threading.Event()
        self._first = vm.resident_bytes()
        self.growth = 0
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> 'Meter':
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stop.wait(POLL_SECONDS):
            now = self._vm.resident_bytes()
            self.growth = max(self.growth, now - self._first)


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
        begin(source, scene.uri(destination), push_delay=10)
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
