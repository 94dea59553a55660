# SPDX-License-Identifier: GPL-2.0-or-later
"""QEMU is told to end while the other side still needs it."""

from dev.rig.basics import require, wait_until
from dev.rig.qmp import QmpClosed
from dev.rig.scene import Scene, begin, disk_total, finish, query, wait_phase
from dev.rig.vm import DiskConfig, MachineConfig, Vm
from tests.functional.lib.hold import FlushGate
from tests.functional.lib.moves import (BUSY_RAM, LOAD, SLOW_DISK, end,
                                        expect_moved, hold_ram_phase,
                                        loaded_source, release_ram_phase)
from tests.functional.lib.registry import test
from tests.functional.lib.rejoin import (Crashed, crashed_disks, fetch_rest,
                                         in_postcopy, rejoin)

LONG_POSTCOPY = {'x_push_delay': 200, 'max_residue': 30000}


def paused_in_postcopy(scene: Scene) -> tuple[Vm, Vm]:
    """A guest that is stopped, so that at the end both images are equal."""
    source = loaded_source(scene, **{**LOAD, 'rate': 0}, **BUSY_RAM)
    destination = scene.destination()
    hold_ram_phase(source)
    begin(source, scene.uri(destination), **{**SLOW_DISK, **LONG_POSTCOPY})
    wait_phase(source, 'ram-precopy')
    wait_until(lambda: disk_total(source, 'dirty') > 1 << 20,
               'some blocks are dirty')
    source.qmp.cmd('stop')
    release_ram_phase(source)
    wait_phase(destination, 'postcopy')
    require(disk_total(destination, 'missing') > 0, 'nothing is missing')
    return source, destination


def quit_and_check(source: Vm, destination: Vm, first: Vm) -> None:
    try:
        first.qmp.cmd('quit')
    except QmpClosed:
        pass
    wait_until(lambda: 'still on their way' in first.stderr(),
               f'{first.name} waits for blocks')
    require(first.alive(), f'{first.name} ended, though blocks are missing')
    other = destination if first is source else source
    other.qmp.cmd('wsm-set-options', x_push_delay=0)
    require(first.wait_exit() == 0, f'{first.name}: {first.stderr()}')
    other.wait_migration('completed')
    require(query(other)['phase'] == 'completed', 'not completed')
    other.quit()
    for ours, theirs in zip(source.images, destination.images):
        ours.compare(theirs)


@test()
def destination_quits_in_postcopy(scene: Scene) -> None:
    """"quit" at the destination waits for the blocks that are missing."""
    source, destination = paused_in_postcopy(scene)
    quit_and_check(source, destination, destination)


@test()
def source_quits_in_postcopy(scene: Scene) -> None:
    """"quit" at the source waits until the destination has all blocks."""
    source, destination = paused_in_postcopy(scene)
    source.qmp.cmd('wsm-set-options', x_push_delay=20)
    quit_and_check(source, destination, source)


def held_at_last_flush(scene: Scene,
                       sync: bool = False) -> tuple[FlushGate, Vm, Vm]:
    """Nothing is missing any more, but it is not durable either.

    With @sync it is, but the records still say that blocks are missing.
    """
    gate = FlushGate(scene.folder, sync)
    source = loaded_source(scene, **{**LOAD, 'flush': 0})
    destination = scene.destination(config=gate.machine(scene.config))
    begin(source, scene.uri(destination), **{**SLOW_DISK, **LONG_POSTCOPY})
    wait_phase(destination, 'postcopy')
    require(disk_total(destination, 'missing') > 0, 'nothing is missing')
    gate.shut()
    source.qmp.cmd('wsm-set-options', x_push_delay=0)
    wait_until(gate.held, 'the destination flushes')
    return gate, source, destination


def expect_work_while_held(scene: Scene, before: str,
                           sync: bool = False) -> None:
    """The guest works while the end is held up, and it is not over."""
    gate, source, destination = held_at_last_flush(scene, sync)
    scene.guest.wait_progress(writes=200)
    require(query(destination)['phase'] == 'postcopy',
            f'completed before {before}')
    gate.open()
    finish(source, destination)
    expect_moved(scene, source, destination)
    end(source, destination)


@test()
def guest_works_while_last_flush(scene: Scene) -> None:
    """The destination's last flush takes long: the guest does not wait."""
    expect_work_while_held(scene, 'everything was flushed')


@test()
def guest_works_while_records_go(scene: Scene) -> None:
    """To remove the records takes long: guest and monitor do not wait."""
    expect_work_while_held(scene, 'the records were gone', sync=True)


@test()
def destination_quits_in_last_flush(scene: Scene) -> None:
    """"quit" in the destination's last flush: the source gets to know."""
    gate, source, destination = held_at_last_flush(scene)
    try:
        destination.qmp.cmd('quit')
    except QmpClosed:
        pass
    wait_until(lambda: 'still on their way' in destination.stderr(),
               'the destination waits for its flush')
    gate.open()
    require(destination.wait_exit() == 0, destination.stderr())
    source.wait_migration('completed')
    require(query(source)['phase'] == 'completed', 'not completed')
    source.quit()


def left_behind(scene: Scene) -> Crashed:
    """The source is gone, and the user ends the destination."""
    source, destination = in_postcopy(scene)
    scene.guest.wait_progress(writes=100)
    scene.guest.stop()
    uri = scene.uri(destination)
    source.kill()
    try:
        destination.qmp.cmd('quit')
    except QmpClosed:
        pass
    require(destination.wait_exit() == 0, destination.stderr())
    text = destination.stderr()
    for word in ('still on their way', 'cannot be reached', 'wsm-rejoin',
                 'wsm-serve'):
        require(word in text, f'no "{word}": {text}')
    expected = crashed_disks(scene, source, destination)
    return Crashed(source, destination.images, expected, uri)


@test(MachineConfig((DiskConfig('vd0', iothread='io0'),
                     DiskConfig('vd1', fmt='qcow2')), iothreads=('io0',)))
def destination_quits_without_source(scene: Scene) -> None:
    """With maps it need not wait for ever: another QEMU goes on.

    All that the guest has written is there, flushed or not, and all that had
    arrived is marked.
    """
    crashed = left_behind(scene)
    for image in crashed.images:
        require(not image.is_locked(), f'{image.path} is still locked')
        image.check()
    vm = rejoin(scene, crashed)
    fetch_rest(vm, crashed)
