# SPDX-License-Identifier: GPL-2.0-or-later
"""Steps of tests whose memory is sent by reference."""

from dataclasses import replace
from typing import Any

from dev.rig.basics import require
from dev.rig.image import MIB
from dev.rig.scene import Scene, query
from dev.rig.vm import MachineConfig, Vm
from tests.functional.lib import setups
from tests.functional.lib.moves import end, expect_moved, fill_half

KEPT = 16 * MIB
# As much as there is for the guest behind what firmware and cards have
LOW_MEMORY = 640 * 1024


def steady(source: Vm) -> None:
    """
    Let memory take its time.

    On a link that takes all of it at once QEMU would stop the guest before it
    has gone through its memory, and from then on nothing is referred to.
    """
    source.qmp.cmd('migrate-set-parameters', {'max-bandwidth': 32 * MIB,
                                              'downtime-limit': 50})


def source_with_cache(scene: Scene, kept: int = KEPT) -> Vm:
    """A source whose guest has blocks of its disk in memory."""
    source = scene.source()
    steady(source)
    fill_half(scene)
    scene.guest.keep(0, 0, kept)
    return source


def listening(scene: Scene, source: Vm, setup: setups.Setup = setups.multifd(),
              **options: Any) -> Vm:
    destination = scene.destination('defer', **options)
    setup(scene, source, destination)
    destination.qmp.cmd('migrate-incoming', uri='tcp:127.0.0.1:0')
    return destination


def memory(vm: Vm) -> dict[str, int]:
    """The counters of query-wsm that are about memory by reference."""
    info: dict[str, int] = query(vm)['memory']
    return info


def of_kind(vm: Vm, kind: str) -> dict[str, int]:
    """The counters of one kind; all are 0 if there is nothing of it."""
    info: list[dict[str, Any]] = query(vm)['memory']['kinds']
    nothing = {'referenced': 0, 'missed': 0, 'wrong': 0, 'late': 0}
    return next((entry for entry in info if entry['kind'] == kind), nothing)


# The guest overwrites some of the blocks meanwhile
def expect_referenced(source: Vm, destination: Vm,
                      least: int = KEPT // 2) -> None:
    """So much was sent by reference, and the two sides agree on that."""
    here, there = memory(source), memory(destination)
    require(here['referenced'] >= least, f'{here} is less than {least}')
    for name in ('referenced', 'inline', 'packed', 'missed', 'asked'):
        require(here[name] == there[name],
                f'{name}: {here} and {there} differ')
    require(there['missing'] == 0, f'{there}: memory is missing')


def expect_same_memory(source: Vm, destination: Vm) -> None:
    """All memory is the same on both sides, of which none runs the guest."""
    images = []
    for vm in (source, destination):
        require(vm.status() in ('postmigrate', 'paused'),
                f'{vm.name} is {vm.status()}')
        path = vm.folder / 'memory'
        for start, size in ((0, LOW_MEMORY),
                            (MIB, vm.config.memory * MIB - MIB)):
            vm.qmp.cmd('pmemsave', val=start, size=size, filename=str(path))
            images.append(path.read_bytes())
    require(images[:2] == images[2:], 'memory differs')


def moved(scene: Scene, source: Vm, destination: Vm) -> None:
    """The guest, which was paused at the destination, is as it was."""
    expect_same_memory(source, destination)
    destination.qmp.cmd('cont')
    expect_moved(scene, source, destination)
    require(scene.guest.command('kept') == 'ok', 'memory was changed')
    end(source, destination)


def paused(scene: Scene) -> MachineConfig:
    """A machine that stays paused when a guest was handed over to it."""
    return replace(scene.config, extra=scene.config.extra + ('-S',))
