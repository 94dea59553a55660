# SPDX-License-Identifier: GPL-2.0-or-later
"""Memory that is sent by reference to blocks of the guest's disks."""

import re
from typing import Any

from dev.rig.basics import TestFailure, require, wait_until
from dev.rig.image import MIB
from dev.rig.qmp import QmpError
from dev.rig.scene import Scene, begin, finish, query, wait_phase
from dev.rig.vm import Vm
from dev.rig.wire import Type
from tests.functional.lib import setups
from tests.functional.lib.hold import ReadGate
from tests.functional.lib.moves import (LOAD, SLOW_DISK, end, expect_moved,
                                        expect_unharmed, second_try)
from tests.functional.lib.refer import (KEPT, expect_referenced, listening,
                                        memory, moved, paused,
                                        source_with_cache)
from tests.functional.lib.registry import add, test

REFERENCES: dict[str, Any] = {'memory_references': ['disk'],
                              'memory_adaptive': False}


def wait_memory(vm: Vm, name: str) -> None:
    wait_until(lambda: memory(vm)[name] > 0, f'{vm.name}: memory {name}')


def begin_and_shut(source: Vm, uri: str, gate: ReadGate, how: str,
                   **options: Any) -> None:
    """Begin; no block that memory refers to will be read as it should."""
    begin(source, uri, **REFERENCES, **SLOW_DISK, **options)
    wait_phase(source, 'disk-precopy')
    gate.shut(how)


@test()
def memory_references(scene: Scene) -> None:
    """What the guest has read of its disk is not sent with its memory."""
    source = source_with_cache(scene)
    scene.guest.start(**LOAD)
    destination = listening(scene, source, config=paused(scene))
    begin(source, scene.uri(destination), **REFERENCES)
    finish(source, destination)
    expect_referenced(source, destination)
    require(memory(source)['packed'] < memory(source)['inline'],
            'nothing was made smaller')
    moved(scene, source, destination)


@test()
def memory_references_tls(scene: Scene) -> None:
    """With TLS, and the guest goes on at once."""
    source = source_with_cache(scene)
    scene.guest.start(**LOAD)
    destination = listening(scene, source, setups.with_tls(setups.multifd()))
    begin(source, scene.uri(destination), **REFERENCES)
    finish(source, destination)
    expect_referenced(source, destination)
    expect_moved(scene, source, destination)
    require(scene.guest.command('kept') == 'ok', 'memory was changed')
    end(source, destination)


def missed(how: str, name: str, summary: str) -> None:
    """Add a test in which the destination does not find what it is told."""
    def function(scene: Scene) -> None:
        source = source_with_cache(scene)
        gate = ReadGate(scene.folder)
        destination = listening(scene, source,
                                config=gate.machine(paused(scene)))
        begin_and_shut(source, scene.uri(destination), gate, how)
        wait_memory(source, 'missed')
        gate.open(how)
        finish(source, destination)
        expect_referenced(source, destination, 1)
        there = memory(destination)
        require(how == gate.FAIL or there[how] > 0, f'none is {how}: {there}')
        moved(scene, source, destination)

    function.__doc__ = summary
    add(name, function)


missed(ReadGate.WRONG, 'memory-block-wrong',
       'The disk has another content than it had.')
missed(ReadGate.LATE, 'memory-block-late', 'The disk takes too long.')
missed(ReadGate.FAIL, 'memory-block-unreadable', 'The disk cannot be read.')


@test()
def memory_missing_at_freeze(scene: Scene) -> None:
    """What is still missing when the guest stands still is asked for."""
    source = source_with_cache(scene, MIB)
    gate = ReadGate(scene.folder)
    destination = listening(scene, source, config=gate.machine(paused(scene)))
    relay = scene.make_relay(destination)
    relay.hold_at(Type.NACK)
    begin_and_shut(source, relay.uri, gate, gate.LATE)
    urgent = relay.wait_held()
    wait_phase(source, 'freeze')
    gate.open(gate.LATE)
    wait_memory(destination, 'asked')
    require(query(source)['phase'] == 'freeze',
            'the guest was handed over with memory missing')
    relay.hold_at()
    urgent.resume()
    finish(source, destination)
    require(memory(source)['asked'] > 0, 'nothing was asked for')
    moved(scene, source, destination)


@test()
def memory_nack_lost(scene: Scene) -> None:
    """Channel 0 breaks with what was missed on it, and that is said again."""
    source = source_with_cache(scene)
    gate = ReadGate(scene.folder)
    destination = listening(scene, source, config=gate.machine(paused(scene)))
    relay = scene.make_relay(destination)
    relay.hold_at(Type.NACK)
    begin_and_shut(source, relay.uri, gate, gate.WRONG)
    urgent = relay.wait_held()
    relay.hold_at()
    gate.open(gate.WRONG)
    urgent.cut()
    finish(source, destination)
    require(memory(destination)['missed'] > 0, 'nothing was missed')
    moved(scene, source, destination)


@test()
def memory_missing_for_good(scene: Scene) -> None:
    """If what is missing does not come, the guest runs on at the source."""
    source = source_with_cache(scene, MIB)
    gate = ReadGate(scene.folder)
    destination = listening(scene, source, config=gate.machine(scene.config))
    relay = scene.make_relay(destination)
    relay.hold_at(Type.NACK)
    begin_and_shut(source, relay.uri, gate, gate.LATE,
                   switchover_timeout=2000)
    relay.wait_held()
    source.wait_migration('failed')
    expect_unharmed(scene, source)
    require(scene.guest.command('kept') == 'ok', 'memory was changed')
    destination.close()
    gate.open(gate.LATE)
    source.set_caps('multifd', on=False)
    second_try(scene, source, memory_references=[])


@test()
def memory_source_ends(scene: Scene) -> None:
    """A disk that is wrong too often is not referred to any more."""
    source = source_with_cache(scene)
    gate = ReadGate(scene.folder)
    destination = listening(scene, source, config=gate.machine(paused(scene)))
    begin_and_shut(source, scene.uri(destination), gate, gate.WRONG)
    for vm, role in (source, 'source'), (destination, 'destination'):
        found = vm.qmp.event('WSM_MEMORY_SOURCE')
        require(found == {'role': role, 'kind': 'disk', 'why': 'wrong'},
                f'{vm.name}: {found}')
    gate.open(gate.WRONG)
    finish(source, destination)
    for vm in source, destination:
        kind, = query(vm)['memory']['kinds']
        require(kind['off'] == 'wrong', f'{vm.name}: {kind}')
    # What was on its way then, and no more
    require(memory(source)['referenced'] < KEPT,
            f'all was referred to: {memory(source)}')
    moved(scene, source, destination)


@test()
def memory_not_in_freeze(scene: Scene) -> None:
    """With the guest stopped nothing waits for a disk."""
    source = scene.source()
    for event in 'wsm_multifd_send', 'wsm_phase':
        source.qmp.hmp(f'trace-event {event} on')
    # All fits, so that the guest is stopped with most of it before it
    source.qmp.cmd('migrate-set-parameters', {'max-bandwidth': 4 * MIB,
                                              'downtime-limit': 60000})
    scene.guest.fill(0, 0, KEPT)
    scene.guest.keep(0, 0, KEPT)
    destination = listening(scene, source, config=paused(scene))
    begin(source, scene.uri(destination), switchover_timeout=60000,
          **REFERENCES)
    finish(source, destination)
    _, frozen = source.stderr().split('source: freeze', 1)
    sent = re.findall(r'channel \d+: (\d+) references, (\d+) pages', frozen)
    require(sum(int(pages) for _, pages in sent) > KEPT // 4096 // 2,
            f'little was sent in the freeze: {sent}')
    # Each channel may have been at work on a packet
    require(sum(1 for references, _ in sent if int(references)) <= 2,
            f'references in the freeze: {sent}')
    moved(scene, source, destination)


@test()
def memory_references_cancelled(scene: Scene) -> None:
    """Cancelled while a channel waits for blocks."""
    source = source_with_cache(scene)
    gate = ReadGate(scene.folder)
    destination = listening(scene, source, config=gate.machine(scene.config))
    begin_and_shut(source, scene.uri(destination), gate, gate.LATE)
    wait_memory(source, 'referenced')
    source.qmp.cmd('migrate_cancel')
    source.wait_migration('cancelled')
    expect_unharmed(scene, source)
    gate.open(gate.LATE)
    destination.close()
    source.set_caps('multifd', on=False)
    second_try(scene, source, memory_references=[])


@test()
def memory_references_refused(scene: Scene) -> None:
    """What does not go together with it is named."""
    source = scene.source()
    source.qmp.cmd('wsm-set-options', memory_references=['disk'])
    destination = scene.destination()
    uri = scene.uri(destination)
    source.set_caps('whole-system')
    require("needs the capability 'multifd'" in refusal(source, uri),
            'multifd is not asked for')
    source.set_caps('multifd')
    source.set_params(multifd_compression='zlib')
    require("multifd-compression 'zlib'" in refusal(source, uri),
            'zlib is not named')
    source.set_params(multifd_compression='none')
    destination.close()
    destination = scene.destination('defer', name='destination-2')
    destination.set_caps('multifd')
    destination.set_params(multifd_compression='zlib')
    destination.qmp.cmd('migrate-incoming', uri='tcp:127.0.0.1:0')
    begin(source, scene.uri(destination))
    source.wait_migration('failed')
    require("with multifd-compression 'none', the destination has 'zlib'"
            in query(source)['error'], f'no reason: {query(source)}')
    expect_unharmed(scene, source)


def refusal(source: Vm, uri: str) -> str:
    """Return why the source does not even begin."""
    try:
        source.qmp.cmd('migrate', uri=uri)
    except QmpError as err:
        return str(err)
    raise TestFailure('it was not refused')
