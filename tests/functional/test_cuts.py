# SPDX-License-Identifier: GPL-2.0-or-later
"""Links that break: block channels in any phase, the whole link later."""

import socket
from typing import Any

from dev.rig.basics import TestFailure, require, wait_until
from dev.rig.image import MIB
from dev.rig.relay import BLOCK, MAIN, Connection, Relay
from dev.rig.scene import (Scene, begin, disk_total, finish, query, wait_phase,
                           wait_total)
from dev.rig.vm import DiskConfig, MachineConfig, Vm
from dev.rig.wire import Type
from tests.functional.lib import tls
from tests.functional.lib.moves import (LOAD, end, expect_moved,
                                        expect_unharmed, fill_half,
                                        loaded_source, second_try)
from tests.functional.lib.registry import add, test
from tests.functional.lib.setups import Setup, nothing

LONG_POSTCOPY: dict[str, Any] = {'x_push_delay': 200, 'max_residue': 30000}


def reconnects(vm: Vm) -> int:
    return sum(channel['reconnects'] for channel in query(vm)['channels'])


def wait_reconnected(vm: Vm, more_than: int) -> None:
    wait_until(lambda: reconnects(vm) > more_than,
               'a channel was opened again')
    wait_connected(vm)


def wait_sent(vm: Vm, more_than: int) -> None:
    wait_until(lambda: disk_total(vm, 'pushed', 'pulled') > more_than,
               'post-copy goes on')


def wait_connected(vm: Vm) -> None:
    wait_until(lambda: all(channel['connected']
                           for channel in query(vm)['channels']),
               'all block channels are up again')


def in_postcopy(scene: Scene, setup: Setup = nothing,
                **load: int) -> tuple[Vm, Vm, Relay]:
    """A migration in a post-copy phase that lasts until it is let go."""
    source = loaded_source(scene, **(load or {**LOAD, 'rate': 0}))
    destination = scene.destination('defer')
    setup(scene, source, destination)
    destination.qmp.cmd('migrate-incoming', uri='tcp:127.0.0.1:0')
    relay = scene.make_relay(destination)
    begin(source, relay.uri, **LONG_POSTCOPY)
    wait_phase(destination, 'postcopy')
    require(disk_total(destination, 'missing') > 0, 'nothing is missing')
    return source, destination, relay


def let_go(source: Vm) -> None:
    source.qmp.cmd('wsm-set-options', x_push_delay=0)


def complete(scene: Scene, source: Vm, destination: Vm) -> None:
    let_go(source)
    finish(source, destination)
    expect_moved(scene, source, destination)
    end(source, destination)


@test()
def block_channels_cut_in_precopy(scene: Scene) -> None:
    """All block channels break several times in disk pre-copy."""
    source = loaded_source(scene)
    destination = scene.destination()
    relay = scene.make_relay(destination)
    begin(source, relay.uri, bandwidth=4 * MIB)
    wait_phase(source, 'disk-precopy')
    for cut in range(3):
        sent = disk_total(source, 'sent')
        wait_total(source, 'sent', sent + MIB)
        relay.cut(BLOCK)
        wait_reconnected(source, cut)
    source.qmp.cmd('wsm-set-options', bandwidth=0)
    complete(scene, source, destination)


@test()
def urgent_channel_cut_in_precopy(scene: Scene) -> None:
    """Only the channel for control breaks."""
    source = loaded_source(scene)
    destination = scene.destination()
    relay = scene.make_relay(destination)
    begin(source, relay.uri, bandwidth=4 * MIB)
    wait_total(source, 'sent', MIB)
    relay.wait_open(BLOCK)[0].cut()
    wait_reconnected(source, 0)
    source.qmp.cmd('wsm-set-options', bandwidth=0)
    complete(scene, source, destination)


@test()
def block_channels_cut_in_postcopy(scene: Scene) -> None:
    """All block channels break several times in post-copy."""
    source, destination, relay = in_postcopy(scene)
    for cut in range(3):
        wait_sent(source, disk_total(source, 'pushed', 'pulled'))
        relay.cut(BLOCK)
        wait_reconnected(source, cut)
        scene.guest.wait_progress(beats=10)
    require(source.migration_status() == 'postcopy-active',
            f'migration is {source.migration_status()}')
    complete(scene, source, destination)


@test()
def pull_lost(scene: Scene) -> None:
    """A channel breaks with PULL in it: the guest's read is answered."""
    source = loaded_source(scene, **{**LOAD, 'rate': 0, 'rrate': 0})
    destination = scene.destination()
    relay = scene.make_relay(destination)
    relay.hold_at(Type.PULL)
    begin(source, relay.uri, **LONG_POSTCOPY)
    held = relay.wait_held()
    relay.hold_at()
    held.cut()
    wait_total(destination, 'pulled')
    scene.guest.wait_progress(writes=100)
    complete(scene, source, destination)


@test()
def have_lost(scene: Scene) -> None:
    """A channel breaks with HAVE in it: the guest's write stays."""
    source = loaded_source(scene, writers=2, full=1)
    destination = scene.destination()
    relay = scene.make_relay(destination)
    relay.hold_at(Type.HAVE)
    begin(source, relay.uri, **LONG_POSTCOPY)
    held = relay.wait_held()
    relay.hold_at()
    scene.guest.wait_progress(writes=100)
    held.cut()
    complete(scene, source, destination)


def cut_whole_link(relay: Relay) -> None:
    relay.refusing = True
    relay.cut_all()


def recover(source: Vm, destination: Vm, relay: Relay) -> None:
    """What the user types after the link is repaired."""
    destination.qmp.cmd('migrate-recover', uri='tcp:127.0.0.1:0')
    relay.target_port = destination.listen_port()
    relay.refusing = False
    source.qmp.cmd('migrate', uri=relay.uri, resume=True)


@test()
def link_cut_in_postcopy(scene: Scene) -> None:
    """All is cut: both sides pause, the guest runs on, then recover."""
    source, destination, relay = in_postcopy(
        scene, writers=2, rate=400, full=4, part=1, readers=1, rrate=50)
    cut_whole_link(relay)
    for vm in (source, destination):
        vm.wait_migration('postcopy-paused')
    scene.guest.wait_progress(beats=50)
    require(destination.status() == 'running', 'the guest does not run')
    scene.guest.start(readers=2)
    wait_total(destination, 'waiting-reads')
    scene.guest.wait_progress(beats=50)
    missing = disk_total(destination, 'missing')
    require(missing > 0, 'nothing is missing any more')
    recover(source, destination, relay)
    complete(scene, source, destination)


def cut_with_read_waiting(source: Vm, destination: Vm, relay: Relay) -> None:
    cut_whole_link(relay)
    for vm in (source, destination):
        vm.wait_migration('postcopy-paused')
    wait_total(destination, 'waiting-reads')


def stop_that_hangs(destination: Vm) -> int:
    """Type stop, which cannot end without the link."""
    stop = destination.qmp.start('stop')
    try:
        destination.qmp.finish(stop, 'stop', timeout=2)
    except TestFailure:
        return stop
    raise TestFailure('stop ended while a read was waiting')


def stop_without_link(name: str, summary: str,
                      setup: Setup = nothing) -> None:
    """Add a test that stops the guest while its read cannot be answered."""
    def function(scene: Scene) -> None:
        source, destination, relay = in_postcopy(
            scene, setup, writers=2, rate=100, full=1, readers=2, rrate=50)
        # The second time it is the port of migrate-recover
        for _ in range(2):
            cut_with_read_waiting(source, destination, relay)
            stop = stop_that_hangs(destination)
            relay.refusing = False
            destination.qmp.finish(stop, 'stop')
            require(destination.status() == 'paused', 'guest was not stopped')
            destination.qmp.cmd('cont')
            recover(source, destination, relay)
            for vm in (source, destination):
                vm.wait_migration('postcopy-active')
        require(disk_total(destination, 'missing') > 0, 'nothing is missing')
        complete(scene, source, destination)

    function.__doc__ = summary
    add(name, function)


stop_without_link('stop-without-link',
                  'The guest is stopped with the link down: it takes long.')
stop_without_link('stop-without-link-tls',
                  'The guest is stopped with the link down, with TLS.',
                  tls.use_x509_on_both)


@test()
def recover_while_stop_hangs(scene: Scene) -> None:
    """The link comes back at another port while stop waits for it."""
    source, destination, relay = in_postcopy(
        scene, writers=2, rate=100, full=1, readers=2, rrate=50)
    old_port = destination.listen_port()
    cut_with_read_waiting(source, destination, relay)
    stop = stop_that_hangs(destination)
    with socket.create_server(('127.0.0.1', 0)) as probe:
        new_port = probe.getsockname()[1]
    recovery = destination.qmp.start(
        'migrate-recover', {'uri': f'tcp:127.0.0.1:{new_port}'}, oob=True)
    destination.qmp.finish(recovery, 'migrate-recover')
    try:
        socket.create_connection(('127.0.0.1', old_port)).close()
        raise TestFailure('the old port is still open')
    except ConnectionRefusedError:
        pass
    relay.target_port = new_port
    relay.refusing = False
    source.qmp.cmd('migrate', uri=relay.uri, resume=True)
    destination.qmp.finish(stop, 'stop')
    source.wait_migration('postcopy-active')
    destination.qmp.cmd('cont')
    complete(scene, source, destination)


@test()
def writes_go_on_without_link(scene: Scene) -> None:
    """With the link cut the guest may write whole blocks, and read them."""
    source, destination, relay = in_postcopy(scene, writers=2, full=1)
    scene.guest.stop()
    cut_whole_link(relay)
    for vm in (source, destination):
        vm.wait_migration('postcopy-paused')
    before = disk_total(destination, 'missing')
    scene.guest.fill(0, 0, 8 * MIB)
    scene.guest.command(f'check 0 0 {8 * MIB // 512}')
    require(disk_total(destination, 'missing') <= before,
            'a write made blocks missing')
    recover(source, destination, relay)
    let_go(source)
    finish(source, destination)
    expect_moved(scene, source, destination)
    end(source, destination)


@test()
def main_stream_cut_in_postcopy(scene: Scene) -> None:
    """Only the main stream breaks; twice."""
    source, destination, relay = in_postcopy(scene)
    for _ in range(2):
        relay.cut(MAIN)
        for vm in (source, destination):
            vm.wait_migration('postcopy-paused')
        scene.guest.wait_progress(beats=10)
        recover(source, destination, relay)
        for vm in (source, destination):
            vm.wait_migration('postcopy-active')
    complete(scene, source, destination)


@test(MachineConfig((DiskConfig('vd0'), DiskConfig('vd1', fmt='qcow2'))))
def two_disks_recover(scene: Scene) -> None:
    """The link is cut and repaired with two disks in post-copy."""
    source, destination, relay = in_postcopy(scene)
    cut_whole_link(relay)
    for vm in (source, destination):
        vm.wait_migration('postcopy-paused')
    recover(source, destination, relay)
    complete(scene, source, destination)


@test()
def stalled_link(scene: Scene) -> None:
    """A link that forwards nothing for a while, without an error."""
    source, destination, relay = in_postcopy(scene)
    connections = relay.wait_open(BLOCK, 3)
    for connection in connections:
        connection.stall()
    scene.guest.start(readers=2)
    wait_total(destination, 'waiting-reads')
    scene.guest.wait_progress(beats=50)
    for connection in connections:
        connection.resume()
    complete(scene, source, destination)


@test()
def link_gone_in_precopy(scene: Scene) -> None:
    """All is cut in disk pre-copy, for good: the guest runs on."""
    source = scene.source()
    fill_half(scene)
    scene.guest.start(**LOAD)
    destination = scene.destination()
    relay = scene.make_relay(destination)
    begin(source, relay.uri, bandwidth=4 * MIB)
    wait_total(source, 'sent', MIB)
    cut_whole_link(relay)
    source.wait_migration('failed')
    expect_unharmed(scene, source)
    destination.close()
    second_try(scene, source)


@test()
def source_killed_in_postcopy(scene: Scene) -> None:
    """The source dies after the handover: the guest runs on, and waits."""
    source, destination, _ = in_postcopy(scene, writers=2, rate=400, full=1)
    source.kill()
    destination.wait_migration('postcopy-paused')
    scene.guest.wait_progress(writes=100)
    scene.guest.start(readers=1)
    wait_total(destination, 'waiting-reads')
    scene.guest.wait_progress(writes=100)
    require(destination.status() == 'running', 'the guest does not run')


@test()
def destination_killed_in_postcopy(scene: Scene) -> None:
    """The destination dies after the handover: the source never runs."""
    source, destination, _ = in_postcopy(scene)
    destination.kill()
    source.wait_migration('postcopy-paused')
    require(source.status() != 'running', 'an old guest runs')
    source.qmp.expect_error('cont')


@test()
def overtaken(scene: Scene) -> None:
    """What is in flight on one channel is not overtaken on another.

    The old content of a block waits in the link when the guest writes it
    again; then the other channel breaks, and the pass goes back to where that
    one was.
    """
    source = scene.source()
    scene.guest.fill(0, 0, 32 * MIB)
    destination = scene.destination()
    relay = scene.make_relay(destination)
    relay.hold_at(Type.DATA)
    begin(source, relay.uri)

    def held() -> list[Connection]:
        return [c for c in relay.of_kind(BLOCK) if c.held]

    wait_until(lambda: len(held()) == 2, 'both bulk channels carry data')
    scene.guest.fill(0, 0, 32 * MIB)
    late, broken = held()
    before = disk_total(source, 'sent')
    relay.hold_at()
    broken.cut()
    wait_total(source, 'sent', before + 2 * MIB)
    late.resume()
    finish(source, destination)
    expect_moved(scene, source, destination)
    end(source, destination)
