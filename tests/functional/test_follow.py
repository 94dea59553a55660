# SPDX-License-Identifier: GPL-2.0-or-later
"""The capability is on at the source only: the destination follows."""

import socket
from dataclasses import replace
from typing import Any, Optional

from dev.rig.basics import require, wait_until
from dev.rig.image import MIB
from dev.rig.relay import BLOCK, MAIN, Relay
from dev.rig.scene import WSM, Scene, begin, finish, query, wait_phase
from dev.rig.vm import DiskConfig, MachineConfig, Vm
from tests.functional.lib import setups, tls
from tests.functional.lib.descriptor import begin_by, connect_to
from tests.functional.lib.moves import (BUSY_RAM, LOAD, SLOW_DISK, SLOW_PUSH,
                                        end, expect_moved, expect_postcopy,
                                        expect_unharmed, fill_half,
                                        loaded_source, move, second_try)
from tests.functional.lib.registry import add, test
from tests.functional.lib.setups import PREEMPT, Setup
from tests.functional.test_cuts import (LONG_POSTCOPY, complete,
                                        cut_whole_link, let_go, recover)

LISTEN = 'tcp:127.0.0.1:0'


def has_capability(vm: Vm) -> bool:
    return any(entry['capability'] == WSM and entry['state']
               for entry in vm.qmp.cmd('query-migrate-capabilities'))


def expect_follower(vm: Vm, on: bool = False) -> None:
    require(has_capability(vm) == on, f'{vm.name}: {WSM} is not {on}')


def wait_off(vm: Vm) -> None:
    """After the attempt it is as before."""
    wait_until(lambda: not has_capability(vm), f'{vm.name}: {WSM} is off')


@test()
def follows_source(scene: Scene) -> None:
    """On for this migration; then the guest can be saved to a file."""
    source = loaded_source(scene)
    destination = scene.destination(wsm=False)
    expect_follower(destination)
    begin(source, scene.uri(destination), **SLOW_DISK, **SLOW_PUSH)
    wait_phase(destination, 'disk-precopy')
    expect_follower(destination, True)
    wait_phase(destination, 'postcopy')
    expect_follower(destination, True)
    source.wait_migration('completed')
    destination.wait_migration('completed')
    wait_off(destination)
    expect_moved(scene, source, destination)
    expect_postcopy(source)
    state = scene.folder / 'saved'
    destination.qmp.cmd('migrate', uri=f'file:{state}')
    destination.wait_migration('completed')
    end(source, destination)
    back = scene.reopen('restored', destination.images, state=state)
    back.qmp.cmd('cont')
    scene.guest.verify()
    back.quit()


@test()
def follows_and_moves_on(scene: Scene) -> None:
    """What followed is the next source, of an ordinary and of our migration."""
    source = loaded_source(scene)
    second = scene.destination(wsm=False, name='destination-2')
    move(scene, source, second)
    wait_off(second)
    source.quit()
    third = scene.destination(wsm=False, name='destination-3')
    second.set_params(downtime_limit=2000)
    move(scene, second, third)
    wait_off(third)
    expect_follower(second, True)
    # Over shared storage, with the capability that the user had set
    second.quit()
    fourth = scene.destination(wsm=False, name='destination-4',
                               images=third.images)
    third.set_caps('events')
    third.qmp.cmd('migrate', uri=scene.uri(fourth))
    for vm in (third, fourth):
        vm.wait_migration('completed')
    fourth.wait_running()
    scene.guest.verify()
    end(third, fourth)


@test()
def follows_without_a_command(scene: Scene) -> None:
    """The destination has nothing but -incoming on its command line."""
    source = loaded_source(scene)
    destination = scene.destination(incoming=LISTEN, wsm=False)
    move(scene, source, destination, **SLOW_PUSH)
    expect_postcopy(source)
    wait_off(destination)
    end(source, destination)


def follows(name: str, summary: str, setup: Setup, uri: str = LISTEN,
            **load: int) -> None:
    """Add a test of a destination that is set up without the capability."""
    def function(scene: Scene) -> None:
        source = scene.source()
        fill_half(scene)
        scene.guest.start(**LOAD, **load)
        destination = scene.destination('defer', wsm=False)
        setup(scene, source, destination)
        place = uri.format(folder=scene.folder)
        destination.qmp.cmd('migrate-incoming', uri=place)
        if place == LISTEN:
            place = scene.uri(destination)
        move(scene, source, destination, place, **SLOW_PUSH)
        expect_postcopy(source)
        wait_off(destination)
        end(source, destination)

    function.__doc__ = summary
    add(name, function)


follows('follows-unix', 'Over a unix: address.', setups.nothing,
        'unix:{folder}/migration')
follows('follows-tls', 'With TLS.', tls.use_x509_on_both)
follows('follows-multifd', 'With multifd.', setups.multifd())
follows('follows-multifd-tls', 'With multifd and TLS.',
        setups.with_tls(setups.multifd()))
follows('follows-preempt', 'With postcopy-preempt, which has no effect.',
        setups.caps(*PREEMPT))


def late_main_stream(name: str, summary: str, setup: Setup) -> None:
    """Add a test: block channels come before the main stream says anything."""
    def function(scene: Scene) -> None:
        source = loaded_source(scene)
        destination = scene.destination('defer', wsm=False)
        setup(scene, source, destination)
        destination.qmp.cmd('migrate-incoming', uri=LISTEN)
        relay = scene.make_relay(destination)
        relay.hold_main = True
        begin(source, relay.uri, **SLOW_PUSH)
        channels = relay.wait_open(BLOCK, 3)
        wait_until(lambda: all(c.forwarded > 4 for c in channels),
                   'HELLO on all channels')
        expect_follower(destination)
        relay.hold_main = False
        relay.of_kind(MAIN)[0].resume()
        wait_phase(source, 'disk-precopy')
        # Before the end: after it a source that is slow connects once more
        require(relay.count(BLOCK) == 3, 'a channel was opened twice')
        complete(scene, source, destination)

    function.__doc__ = summary
    add(name, function)


late_main_stream('follows-late', 'Block channels come first.', setups.nothing)
late_main_stream('follows-late-preempt',
                 'Block channels where one for preempt is expected.',
                 setups.caps(*PREEMPT))


def in_postcopy(scene: Scene) -> tuple[Vm, Vm, Relay]:
    source = loaded_source(scene, **{**LOAD, 'rate': 0})
    destination = scene.destination(wsm=False)
    relay = scene.make_relay(destination)
    begin(source, relay.uri, **LONG_POSTCOPY)
    wait_phase(destination, 'postcopy')
    return source, destination, relay


@test()
def follows_through_a_cut(scene: Scene) -> None:
    """All is cut in post-copy, and recovered twice."""
    source, destination, relay = in_postcopy(scene)
    for _ in range(2):
        cut_whole_link(relay)
        for vm in (source, destination):
            vm.wait_migration('postcopy-paused')
        expect_follower(destination, True)
        recover(source, destination, relay)
        for vm in (source, destination):
            vm.wait_migration('postcopy-active')
    let_go(source)
    finish(source, destination)
    wait_off(destination)
    expect_moved(scene, source, destination)
    end(source, destination)


def listening(scene: Scene, setup: Optional[Setup] = None,
              source: Optional[Vm] = None, **options: Any) -> Vm:
    """A destination that lives on after an attempt that fails."""
    destination = scene.destination('defer', wsm=False, **options)
    if setup and source:
        setup(scene, source, destination)
    destination.qmp.cmd('migrate-incoming', None, uri=LISTEN,
                        exit_on_error=False)
    return destination


@test()
def follows_until_cancelled(scene: Scene) -> None:
    """The source cancels: the destination's capability is off again."""
    source = loaded_source(scene)
    destination = listening(scene)
    begin(source, scene.uri(destination), **SLOW_DISK)
    wait_phase(destination, 'disk-precopy')
    source.qmp.cmd('migrate_cancel')
    source.wait_migration('cancelled')
    destination.wait_migration('failed')
    wait_off(destination)
    expect_unharmed(scene, source)
    destination.close()
    second_try(scene, source)


def follows_in_vain(name: str, summary: str, setup: Setup, *words: str,
                    **options: Any) -> None:
    """Add a test of a destination that refuses, and says why."""
    def function(scene: Scene) -> None:
        source = loaded_source(scene)
        destination = listening(scene, setup, source, **options)
        begin(source, scene.uri(destination))
        source.wait_migration('failed')
        text = source.migration()['error-desc']
        for word in words:
            require(word in text, f'the error lacks "{word}": {text}')
        destination.wait_migration('failed')
        wait_off(destination)
        destination.qmp.cmd('query-status')
        expect_unharmed(scene, source)
        destination.close()
        second_try(scene, source)

    function.__doc__ = summary
    add(name, function)


def setup_release_ram(_scene: Scene, _source: Vm, destination: Vm) -> None:
    destination.set_caps('release-ram')


RAW = DiskConfig('vd0')
follows_in_vain('follows-not-to-wrong-size', 'The disk is too small.',
                setups.nothing, 'vd0', str(MIB),
                config=MachineConfig((replace(RAW, size=MIB),)))
follows_in_vain('follows-not-with-conflict',
                'The destination has a capability that does not go with it.',
                setup_release_ram, WSM, 'release-ram', 'switch')
follows_in_vain('follows-not-to-other-machine',
                'The destination is another machine.', setups.nothing,
                'Machine type received', config=MachineConfig(machine='q35'))


@test()
def follows_not_without_a_port(scene: Scene) -> None:
    """The destination was given a socket: nothing can come beside it."""
    source = loaded_source(scene)
    destination = scene.destination('defer', wsm=False)
    with socket.create_server(('127.0.0.1', 0)) as listener:
        client = socket.create_connection(listener.getsockname())
        server, _ = listener.accept()
    destination.qmp.pass_fd('stream', server.fileno())
    server.close()
    destination.qmp.cmd('migrate-incoming', uri='fd:stream')
    begin_by(source, client)
    source.wait_migration('failed')
    text = source.migration()['error-desc']
    require('several connections' in text, f'the source says: {text}')
    wait_until(destination.gave_up, 'the destination gives up')
    require('destination must listen' in destination.stderr(),
            f'the destination says: {destination.stderr()}')
    expect_unharmed(scene, source)
    second_try(scene, source)


@test()
def as_libvirt_does(scene: Scene) -> None:
    """All that libvirt's `migrate --postcopy` switches on and looks at."""
    source = scene.source()
    fill_half(scene)
    scene.guest.start(**LOAD, **BUSY_RAM)
    config = replace(scene.config, extra=('-S',))
    destination = scene.destination('defer', wsm=False, config=config)
    source.set_caps(*PREEMPT, 'return-path', 'pause-before-switchover')
    destination.set_caps(*PREEMPT, 'return-path', 'late-block-activate')
    destination.qmp.cmd('migrate-incoming', None, uri=LISTEN,
                        exit_on_error=False)
    begin_by(source, connect_to(destination), **SLOW_PUSH)
    source.wait_migration('pre-switchover')
    source.qmp.cmd('migrate-continue', state='pre-switchover')
    source.wait_migration('postcopy-active')
    # At once: the guest may not have been handed over yet
    destination.qmp.cmd('cont')
    destination.wait_running()
    require(query(destination)['phase'] == 'postcopy', 'too late to see it')
    source.wait_migration('completed')
    destination.wait_migration('completed')
    expect_moved(scene, source, destination)
    wait_off(destination)
    for vm, wanted in ((source, ['setup', 'active', 'pre-switchover', 'device',
                                 'postcopy-active', 'completed']),
                       (destination, ['setup', 'active', 'postcopy-active',
                                      'completed'])):
        statuses = [data['status'] for data in vm.qmp.seen('MIGRATION')]
        require(statuses == wanted, f'{vm.name} went through {statuses}')
    require(source.qmp.seen('MIGRATION_PASS'), 'no pass was told')
    end(source, destination)
