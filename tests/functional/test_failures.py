# SPDX-License-Identifier: GPL-2.0-or-later
"""Cancel and failure before the handover: the source runs on, unharmed."""

from dev.rig.basics import require, wait_until
from dev.rig.qmp import QmpClosed
from dev.rig.relay import BLOCK, MAIN
from dev.rig.scene import Scene, begin, finish, query, wait_phase, wait_total
from dev.rig.vm import DiskConfig, MachineConfig, Vm
from dev.rig.wire import Type
from tests.functional.lib.moves import (BUSY_RAM, LOAD, SLOW_DISK, SLOW_PUSH,
                                        end, expect_moved, expect_unharmed,
                                        fill_half, hold_ram_phase,
                                        loaded_source, release_ram_phase,
                                        second_try, start_and_wait)
from tests.functional.lib.registry import add, test

TWO_DISKS = MachineConfig((DiskConfig('vd0'),
                           DiskConfig('vd1', fmt='qcow2')))


def source_in_phase(scene: Scene, phase: str) -> tuple[Vm, Vm]:
    """A migration that stays in disk-precopy or ram-precopy."""
    source = scene.source()
    fill_half(scene)
    scene.guest.start(**LOAD, **BUSY_RAM)
    destination = scene.destination()
    if phase == 'disk-precopy':
        start_and_wait(source, scene.uri(destination), phase,
                       bandwidth=1 << 20)
        wait_total(source, 'sent')
    else:
        hold_ram_phase(source)
        start_and_wait(source, scene.uri(destination), phase)
    return source, destination


def expect_phase(vm: Vm, phase: str) -> None:
    require(query(vm)['phase'] == phase,
            f'{vm.name}: phase is {query(vm)["phase"]}, not {phase}')


def cancel_in(phase: str) -> None:
    def function(scene: Scene) -> None:
        source, destination = source_in_phase(scene, phase)
        source.qmp.cmd('migrate_cancel')
        source.wait_migration('cancelled')
        expect_phase(source, 'cancelled')
        expect_unharmed(scene, source)
        destination.close()
        second_try(scene, source)

    function.__doc__ = f'migrate_cancel in {phase}, then again.'
    add(f'cancel-in-{phase}', function, TWO_DISKS)


def destination_killed_in(phase: str) -> None:
    def function(scene: Scene) -> None:
        source, destination = source_in_phase(scene, phase)
        destination.kill()
        source.wait_migration('failed')
        expect_phase(source, 'failed')
        require(query(source).get('error'), 'no error is shown')
        expect_unharmed(scene, source)
        second_try(scene, source)

    function.__doc__ = f'The destination dies in {phase}.'
    add(f'destination-killed-in-{phase}', function, TWO_DISKS)


for name in ('disk-precopy', 'ram-precopy'):
    cancel_in(name)
    destination_killed_in(name)


@test()
def cancel_at_once(scene: Scene) -> None:
    """migrate_cancel right behind migrate, wherever it hits."""
    source = loaded_source(scene)
    for attempt in range(3):
        destination = scene.destination(name=f'destination-c{attempt}')
        begin(source, scene.uri(destination), **SLOW_DISK)
        source.qmp.cmd('migrate_cancel')
        source.wait_migration('cancelled')
        expect_unharmed(scene, source)
        destination.close()
    second_try(scene, source)


@test()
def cancel_in_setup(scene: Scene) -> None:
    """migrate_cancel while the destination does not answer HELLO."""
    source = loaded_source(scene)
    destination = scene.destination()
    relay = scene.make_relay(destination)
    relay.hold_at(Type.HELLO)
    begin(source, relay.uri)
    relay.wait_held()
    source.qmp.cmd('migrate_cancel')
    source.wait_migration('cancelled')
    expect_unharmed(scene, source)
    destination.close()
    second_try(scene, source)


@test()
def paused_while_cancelled(scene: Scene) -> None:
    """A guest that the user paused stays paused after a cancel."""
    source, destination = source_in_phase(scene, 'disk-precopy')
    source.qmp.cmd('stop')
    source.qmp.cmd('migrate_cancel')
    source.wait_migration('cancelled')
    require(source.status() == 'paused', f'source is {source.status()}')
    source.qmp.cmd('cont')
    expect_unharmed(scene, source)
    destination.close()
    second_try(scene, source)


def freeze_held_at_ready(scene: Scene, timeout_ms: int) -> tuple[Vm, Vm]:
    """The destination is ready, but the source is not told."""
    source = loaded_source(scene)
    destination = scene.destination()
    relay = scene.make_relay(destination)
    relay.hold_at(Type.READY)
    begin(source, relay.uri, switchover_timeout=timeout_ms)
    wait_phase(source, 'freeze')
    relay.wait_held()
    return source, destination


def expect_not_running(scene: Scene, destination: Vm) -> None:
    """Whatever the destination is, it is not a second guest."""
    try:
        status = destination.status()
    except QmpClosed:
        status = 'ended'
    require(status != 'running', 'the guest runs on both sides')
    destination.close()
    scene.guest.wait_progress(writes=10)


@test()
def no_ready(scene: Scene) -> None:
    """READY is lost: the source resumes the guest, the destination not."""
    source, destination = freeze_held_at_ready(scene, 1500)
    source.wait_migration('failed')
    expect_unharmed(scene, source)
    for relay in scene.relays:
        relay.hold_at()
        for connection in relay.of_kind(BLOCK):
            connection.resume()
    expect_not_running(scene, destination)
    second_try(scene, source)


@test()
def destination_killed_when_ready(scene: Scene) -> None:
    """The destination dies after it has loaded the guest."""
    source, destination = freeze_held_at_ready(scene, 60000)
    destination.kill()
    source.wait_migration('failed')
    expect_unharmed(scene, source)
    second_try(scene, source)


@test()
def cancel_in_freeze(scene: Scene) -> None:
    """migrate_cancel while the guest stands still."""
    source, destination = freeze_held_at_ready(scene, 60000)
    source.qmp.cmd('migrate_cancel')
    source.wait_migration('cancelled', 'failed')
    expect_unharmed(scene, source)
    expect_not_running(scene, destination)
    second_try(scene, source)


@test()
def main_stream_cut_in_precopy(scene: Scene) -> None:
    """The main stream breaks in RAM pre-copy: the migration fails."""
    source = loaded_source(scene, **LOAD, **BUSY_RAM)
    destination = scene.destination()
    relay = scene.make_relay(destination)
    hold_ram_phase(source)
    start_and_wait(source, relay.uri, 'ram-precopy')
    relay.cut(MAIN)
    source.wait_migration('failed')
    expect_unharmed(scene, source)
    destination.close()
    second_try(scene, source)


@test()
def go_delayed(scene: Scene) -> None:
    """GO is on its way for long: nobody runs, then the destination."""
    source = loaded_source(scene)
    destination = scene.destination()
    relay = scene.make_relay(destination)
    relay.hold_at(Type.GO)
    begin(source, relay.uri, switchover_timeout=60000)
    held = relay.wait_held()
    require(source.status() != 'running', 'the source runs after GO')
    require(destination.status() != 'running',
            'the destination runs without GO')
    relay.hold_at()
    held.resume()
    finish(source, destination)
    expect_moved(scene, source, destination)
    end(source, destination)


@test()
def go_lost(scene: Scene) -> None:
    """The channel breaks with GO in it: it is sent again."""
    source = loaded_source(scene)
    destination = scene.destination()
    relay = scene.make_relay(destination)
    relay.hold_at(Type.GO)
    begin(source, relay.uri)
    held = relay.wait_held()
    relay.hold_at()
    held.cut()
    finish(source, destination)
    expect_moved(scene, source, destination)
    end(source, destination)


@test()
def source_killed_in_precopy(scene: Scene) -> None:
    """The source dies before the handover: the destination never runs."""
    source, destination = source_in_phase(scene, 'disk-precopy')
    source.kill()
    wait_until(destination.gave_up, 'the destination notices')
    if destination.alive():
        require(destination.status() != 'running',
                'the destination runs a guest that it does not have')


@test()
def write_error_at_destination(scene: Scene) -> None:
    """The destination's disk fails: so does the migration."""
    source = loaded_source(scene)
    node = {'driver': 'raw', 'node-name': 'broken', 'file': {
        'driver': 'blkdebug', 'inject-error': [
            {'event': 'none', 'iotype': 'write', 'once': False}],
        'image': 'node-vd0-file'}}
    destination = scene.destination('defer')
    destination.qmp.cmd('blockdev-add', node)
    destination.qmp.cmd('qom-set', path='/machine/peripheral/vd0',
                        property='drive', value='broken')
    destination.qmp.cmd('migrate-incoming', uri='tcp:127.0.0.1:0')
    begin(source, scene.uri(destination))
    source.wait_migration('failed')
    require('vd0' in query(source).get('error', ''),
            f'the error names no disk: {query(source).get("error")}')
    expect_unharmed(scene, source)
    destination.close()
    second_try(scene, source)


@test()
def destination_quits_early(scene: Scene) -> None:
    """A user ends the destination in good order during disk pre-copy."""
    source, destination = source_in_phase(scene, 'disk-precopy')
    destination.quit()
    source.wait_migration('failed')
    expect_unharmed(scene, source)
    for image in destination.images:
        require(not image.is_locked(), f'{image.path} is still locked')
    release_ram_phase(source)
    second_try(scene, source, **SLOW_PUSH)


@test()
def yank(scene: Scene) -> None:
    """yank ends the migration even if the network is stuck."""
    source = loaded_source(scene)
    destination = scene.destination()
    relay = scene.make_relay(destination)
    begin(source, relay.uri, bandwidth=1 << 20)
    wait_total(source, 'sent')
    for connection in relay.wait_open(BLOCK) + relay.wait_open(MAIN):
        connection.stall()
    source.qmp.cmd('yank', instances=[{'type': 'migration'}])
    source.wait_migration('failed')
    expect_unharmed(scene, source)
    destination.close()
    second_try(scene, source)


@test()
def cancel_on_stuck_link(scene: Scene) -> None:
    """migrate_cancel while nothing is forwarded."""
    source = loaded_source(scene)
    destination = scene.destination()
    relay = scene.make_relay(destination)
    begin(source, relay.uri, bandwidth=1 << 20)
    wait_total(source, 'sent')
    for connection in relay.wait_open(BLOCK) + relay.wait_open(MAIN):
        connection.stall()
    source.qmp.cmd('migrate_cancel')
    source.wait_migration('cancelled')
    expect_unharmed(scene, source)
    destination.close()
    second_try(scene, source)
