# SPDX-License-Identifier: GPL-2.0-or-later
"""The handover: who owns the guest, who says so, and when it is over."""

from dataclasses import replace
from typing import Any, Optional

from dev.rig.basics import require, wait_until
from dev.rig.image import MIB
from dev.rig.relay import BLOCK, MAIN, Relay
from dev.rig.scene import (Scene, begin, disk_total, expect_clean, finish,
                           query, wait_phase, wait_total)
from dev.rig.vm import MachineConfig, Vm
from dev.rig.wire import PREAMBLE, Message, Type, hello
from tests.functional.lib.moves import (BUSY_RAM, LOAD, SLOW_PUSH, end,
                                        expect_moved, expect_unharmed,
                                        fill_half, hold_ram_phase,
                                        loaded_source, second_try)
from tests.functional.lib.registry import add, test
from tests.functional.lib.strangers import Stranger

# Commands and marks of QEMU's main stream
RESUME = bytes((8, 0, 9, 0, 0))
LISTEN = bytes((8, 0, 4, 0, 0))
RUN = bytes((8, 0, 5, 0, 0))
END_OF_STREAM = b'\0'


def postcopy_ram_pair(scene: Scene, **load: int) -> tuple[Vm, Vm, Relay]:
    """Both sides with postcopy-ram; the migration has not begun."""
    source = scene.source()
    fill_half(scene)
    if load:
        scene.guest.start(**load)
    destination = scene.destination('defer')
    for vm in (source, destination):
        vm.set_caps('postcopy-ram')
    destination.qmp.cmd('migrate-incoming', uri='tcp:127.0.0.1:0')
    return source, destination, scene.make_relay(destination)


def begin_all_sent(source: Vm, relay: Relay) -> None:
    """All memory is sent before the guest is stopped, as over a slow link."""
    relay.hold_at(Type.SYNC_ACK)
    begin(source, relay.uri)
    held = relay.wait_held()
    wait_until(lambda: bool(source.migration()['ram']['remaining'] == 0),
               'all memory is sent')
    relay.hold_at()
    held.resume()


@test()
def postcopy_ram_idle(scene: Scene) -> None:
    """An idle guest moves with postcopy-ram: no page is missing after it."""
    source, destination, relay = postcopy_ram_pair(scene)
    begin_all_sent(source, relay)
    finish(source, destination)
    expect_moved(scene, source, destination)
    end(source, destination)


@test()
def postcopy_ram_paused(scene: Scene) -> None:
    """A guest that stands still moves with postcopy-ram: no page is dirty."""
    source, destination, relay = postcopy_ram_pair(scene)
    source.qmp.cmd('stop')
    begin_all_sent(source, relay)
    finish(source, destination)
    require(destination.status() == 'paused',
            f'destination is {destination.status()}')
    destination.qmp.cmd('cont')
    expect_moved(scene, source, destination)
    end(source, destination)


def postcopy_ram_freeze(scene: Scene, busy: bool,
                        timeout_ms: int) -> tuple[Vm, Vm, Relay]:
    """With postcopy-ram, the destination is ready; the source is not told.

    @busy: pages of memory are missing there.
    """
    source, destination, relay = postcopy_ram_pair(
        scene, **({**LOAD, **BUSY_RAM} if busy else {}))
    relay.hold_at(Type.READY)
    if busy:
        hold_ram_phase(source)
    begin(source, relay.uri, switchover_timeout=timeout_ms)
    if busy:
        wait_phase(source, 'ram-precopy')
        source.qmp.cmd('migrate-start-postcopy')
    relay.wait_held()
    require(query(source)['phase'] == 'freeze',
            f'the guest was handed over: {query(source)["phase"]}')
    return source, destination, relay


def not_loaded_with_postcopy_ram(name: str, summary: str, busy: bool) -> None:
    """Add a test: the destination ends before it could run the guest."""
    def function(scene: Scene) -> None:
        source, destination, _ = postcopy_ram_freeze(scene, busy, 60000)
        destination.kill()
        source.wait_migration('failed')
        expect_unharmed(scene, source)
        source.set_caps('postcopy-ram', on=False)
        second_try(scene, source)

    function.__doc__ = summary
    add(name, function)


not_loaded_with_postcopy_ram(
    'postcopy-ram-not-loaded',
    'postcopy-ram, pages missing, the destination cannot load: back.', True)
not_loaded_with_postcopy_ram(
    'postcopy-ram-not-loaded-idle',
    'postcopy-ram, no page missing, the destination cannot load: back.', False)


@test()
def postcopy_ram_no_ready(scene: Scene) -> None:
    """postcopy-ram, pages are missing, READY is late: the guest goes back."""
    source, destination, relay = postcopy_ram_freeze(scene, True, 1500)
    info = source.wait_migration('failed')
    require('switchover-timeout' in info['error-desc'],
            f'the error is {info["error-desc"]}')
    expect_unharmed(scene, source)
    relay.hold_at()
    for connection in relay.of_kind(BLOCK):
        connection.resume()
    wait_until(destination.gave_up, 'the destination gives up')
    source.set_caps('postcopy-ram', on=False)
    second_try(scene, source)


@test()
def postcopy_ram_ready_late(scene: Scene) -> None:
    """postcopy-ram: pages come while READY is on its way; then it moves."""
    source, destination, relay = postcopy_ram_freeze(scene, True, 60000)
    relay.hold_at()
    for connection in relay.of_kind(BLOCK):
        connection.resume()
    finish(source, destination)
    expect_moved(scene, source, destination)
    end(source, destination)


# The end of a stream

def paused_in_postcopy(scene: Scene, cut: str, destination: Optional[Vm] = None
                       ) -> tuple[Vm, Vm, Relay]:
    """The main stream, or all of the link, broke with blocks missing."""
    source = loaded_source(scene, writers=2, rate=400, full=4, part=1,
                           readers=1, rrate=50)
    destination = destination or scene.destination()
    relay = scene.make_relay(destination)
    begin(source, relay.uri, x_push_delay=200, max_residue=30000)
    wait_phase(destination, 'postcopy')
    if cut == MAIN:
        relay.cut(MAIN)
    else:
        relay.refusing = True
        relay.cut_all()
    for vm in (source, destination):
        vm.wait_migration('postcopy-paused')
    require(disk_total(destination, 'missing') > 0, 'nothing is missing')
    return source, destination, relay


def recover(source: Vm, destination: Vm, relay: Relay) -> None:
    destination.qmp.cmd('migrate-recover', uri='tcp:127.0.0.1:0')
    relay.target_port = destination.listen_port()
    relay.refusing = False
    source.qmp.cmd('migrate', uri=relay.uri, resume=True)


def bad_recovery(name: str, summary: str, *streams: bytes) -> None:
    """Add a test: these come as the stream that goes on; then the real one."""
    def function(scene: Scene) -> None:
        source, destination, relay = paused_in_postcopy(scene, 'all')
        for stream in streams:
            destination.qmp.events.clear()
            destination.qmp.cmd('migrate-recover', uri='tcp:127.0.0.1:0')
            stranger = Stranger(destination.listen_port(), stream)
            destination.qmp.event(
                'MIGRATION',
                lambda data: data['status'] == 'postcopy-recover')
            stranger.end_sending()
            destination.wait_migration('postcopy-paused')
            stranger.close()
            require(disk_total(destination, 'missing') > 0,
                    'nothing is missing any more')
        scene.guest.wait_progress(beats=10)
        recover(source, destination, relay)
        source.qmp.cmd('wsm-set-options', x_push_delay=0)
        finish(source, destination)
        expect_moved(scene, source, destination)
        end(source, destination)

    function.__doc__ = summary
    add(name, function)


bad_recovery('recovered-by-six-bytes',
             'Resume and the end of the stream, from anybody: no success.',
             RESUME + END_OF_STREAM)
bad_recovery('recovered-by-a-second-run',
             'Listen and run once more in post-copy: no success.',
             RESUME + LISTEN, RESUME + RUN)


@test()
def end_of_stream_in_precopy(scene: Scene) -> None:
    """The main stream ends as if all were done: the guest does not run."""
    source = loaded_source(scene)
    destination = scene.destination()
    relay = scene.make_relay(destination)
    begin(source, relay.uri, bandwidth=1 << 20)
    wait_total(source, 'sent')
    main = relay.of_kind(MAIN)[0]

    def end_it() -> None:
        main.pending[main.peer[main.source]] += END_OF_STREAM

    relay.call(end_it)
    wait_until(destination.gave_up, 'the destination gives up')
    source.wait_migration('failed')
    expect_unharmed(scene, source)
    destination.close()
    second_try(scene, source)


# Somebody who knows the session

def too_early(message: Message, phase: str) -> None:
    """Add a test: the message comes in this phase, on channel 0."""
    name = Type(message.type).name

    def function(scene: Scene) -> None:
        ram = phase == 'ram-precopy'
        source = loaded_source(scene, **LOAD, **(BUSY_RAM if ram else {}))
        destination = scene.destination()
        if ram:
            hold_ram_phase(source)
        begin(source, scene.uri(destination), **SLOW_PUSH,
              **({} if ram else {'bandwidth': 2 * MIB}))
        wait_phase(destination, phase)
        stranger = Stranger(
            destination.listen_port(),
            PREAMBLE + hello(str(query(source)['session']), channel=0)
            + message.encode())
        stranger.receive_all()
        wait_until(lambda: f"{name} of epoch {message.epoch} in phase '{phase}"
                   in destination.stderr(),
                   'the destination says what is wrong')
        require(query(destination)['phase'] == phase, 'it was too late')
        source.set_params(downtime_limit=2000, max_bandwidth=1 << 40)
        source.qmp.cmd('wsm-set-options', bandwidth=0)
        finish(source, destination)
        expect_moved(scene, source, destination)
        end(source, destination)

    function.__doc__ = f'{name} in {phase}: an error, not believed.'
    add(f'{name.lower()}-in-{phase}', function)


too_early(Message(Type.GO, epoch=1), 'disk-precopy')
too_early(Message(Type.GO, epoch=1), 'ram-precopy')
too_early(Message(Type.ABORT), 'disk-precopy')
too_early(Message(Type.SYNC, epoch=1), 'disk-precopy')
too_early(Message(Type.POINT, epoch=1, count=4096, payload=bytes(2)),
          'disk-precopy')
too_early(Message(Type.ZERO, epoch=1, count=4096), 'disk-precopy')


# It is over

@test()
def main_stream_lost_for_good(scene: Scene) -> None:
    """The main stream breaks and stays away: the blocks come, both end."""
    source, destination, _ = paused_in_postcopy(scene, MAIN)
    source.qmp.cmd('wsm-set-options', x_push_delay=0)
    finish(source, destination)
    expect_moved(scene, source, destination)
    end(source, destination)


def second_flush_fails(scene: Scene) -> Vm:
    """A destination where the flush after the one of pre-copy fails, once."""
    node = {'driver': 'raw', 'node-name': 'flaky', 'file': {
        'driver': 'blkdebug', 'image': 'node-vd0-file', 'set-state': [
            {'event': 'flush_to_disk', 'state': 1, 'new_state': 2}],
        'inject-error': [
            {'event': 'flush_to_disk', 'iotype': 'flush', 'state': 2,
             'once': True}]}}
    destination = scene.destination('defer')
    destination.qmp.cmd('blockdev-add', node)
    destination.qmp.cmd('qom-set', path='/machine/peripheral/vd0',
                        property='drive', value='flaky')
    destination.qmp.cmd('migrate-incoming', uri='tcp:127.0.0.1:0')
    return destination


@test()
def main_stream_lost_and_flush_fails(scene: Scene) -> None:
    """What came is durable at the second try only: both end all the same."""
    source, destination, _ = paused_in_postcopy(scene, MAIN,
                                                second_flush_fails(scene))
    source.qmp.cmd('wsm-set-options', x_push_delay=0)
    finish(source, destination)
    expect_moved(scene, source, destination)
    end(source, destination)


@test()
def source_killed_when_all_is_there(scene: Scene) -> None:
    """The source dies before it asks whether all is there: it is."""
    source = loaded_source(scene)
    destination = scene.destination()
    relay = scene.make_relay(destination)
    begin(source, relay.uri, x_push_delay=200, max_residue=30000)
    wait_phase(destination, 'postcopy')
    relay.hold_at(Type.SYNC)
    source.qmp.cmd('wsm-set-options', x_push_delay=0)
    relay.wait_held()
    source.kill()
    relay.cut_all()
    destination.wait_migration('completed')
    wait_phase(destination, 'completed')
    expect_clean(destination)
    scene.guest.stop()
    scene.guest.verify()
    destination.quit()


# The source has taken the guest back

def taken_back(scene: Scene, **incoming: Any) -> Vm:
    """READY is late; the destination is told that it was."""
    source = loaded_source(scene)
    destination = scene.destination('defer')
    destination.qmp.cmd('migrate-incoming', uri='tcp:127.0.0.1:0', **incoming)
    relay = scene.make_relay(destination)
    relay.hold_at(Type.READY)
    begin(source, relay.uri, switchover_timeout=3000)
    relay.wait_held()
    source.wait_migration('failed')
    expect_unharmed(scene, source)
    return destination


@test()
def abort_without_exit(scene: Scene) -> None:
    """With exit-on-error=false a destination lives on after ABORT."""
    destination = taken_back(scene, exit_on_error=False)
    info = destination.wait_migration('failed')
    require('taken the guest back' in info.get('error-desc', ''),
            f'the error is {info.get("error-desc")}')
    wait_until(lambda: bool(query(destination)['phase'] == 'failed'),
               'phase failed at the destination')
    expect_clean(destination)
    require(destination.status() != 'running', 'a second guest runs')
    scene.guest.wait_progress(writes=10)
    destination.quit()


@test()
def abort_with_exit(scene: Scene) -> None:
    """As ever, a destination exits after ABORT, and says why."""
    destination = taken_back(scene)
    require(destination.wait_exit() == 1, 'the destination did not fail')
    require('taken the guest back' in destination.stderr(),
            f'it says: {destination.stderr()}')
    scene.guest.wait_progress(writes=10)


def not_loadable(name: str, summary: str, exits: bool) -> None:
    """Add a test: the destination lacks a device, so it cannot load."""
    def function(scene: Scene) -> None:
        source = loaded_source(scene)
        destination = scene.destination(
            'defer', config=replace(scene.config, extra=()))
        destination.qmp.cmd('migrate-incoming', uri='tcp:127.0.0.1:0',
                            exit_on_error=exits)
        begin(source, scene.uri(destination))
        source.wait_migration('failed')
        expect_unharmed(scene, source)
        if exits:
            require(destination.wait_exit() == 1, 'it did not fail')
        else:
            destination.wait_migration('failed')
            expect_clean(destination)
            destination.quit()
        require('Unknown section' in destination.stderr()
                or 'Unknown savevm section' in destination.stderr(),
                f'it says: {destination.stderr()}')

    function.__doc__ = summary
    add(name, function, MachineConfig(
        extra=('-device', 'pvpanic-pci,addr=0x10')))


not_loadable('not-loadable',
             'The destination lacks a device: it exits, the guest goes on.',
             True)
not_loadable('not-loadable-without-exit',
             'The destination lacks a device, and lives on.', False)
