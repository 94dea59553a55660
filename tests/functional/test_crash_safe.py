# SPDX-License-Identifier: GPL-2.0-or-later
"""Maps of missing blocks at the destination: option crash-safe."""

from typing import Optional

from dev.rig.basics import require, wait_until
from dev.rig.scene import Scene, begin, disk_total, finish, query, wait_phase
from dev.rig.vm import Vm
from dev.rig.wire import Type
from tests.functional.lib.hold import FlushGate
from tests.functional.lib.mapfile import (crash_copy, map_path, merged,
                                          read_map)
from tests.functional.lib.moves import (LOAD, SLOW_DISK, end, expect_moved,
                                        hold_ram_phase, loaded_source, move,
                                        release_ram_phase)
from tests.functional.lib.registry import test
from tests.functional.lib.rejoin import begin_with_maps


def in_postcopy(scene: Scene, destination: Optional[Vm] = None
                ) -> tuple[Vm, Vm]:
    """Post-copy, and the maps are written."""
    source = loaded_source(scene)
    there = destination or scene.destination()
    there.qmp.cmd('wsm-set-options', crash_safe='on')
    begin_with_maps(source, there, scene.uri(there), **SLOW_DISK)
    return source, there


@test()
def map_tells_what_is_missing(scene: Scene) -> None:
    """Map, image and the source's image make the disk that the guest flushed.

    The guest flushes and is idle.  What a crash would leave then is compared
    with the disk at the end of the migration, byte by byte.
    """
    source, destination = in_postcopy(scene)
    scene.guest.wait_progress(writes=200)
    scene.guest.stop()
    scene.guest.command('flush')
    destination.freeze(True)
    image, copy = crash_copy(destination.images[0], scene.folder)
    destination.freeze(False)
    found = read_map(copy)
    require(len(found.missing) > 0, 'nothing was missing')
    require(found.records > 0, 'no flush of the guest has marked anything')
    crashed = merged(found, image, source.images[0], scene.folder / 'crash.raw')

    source.qmp.cmd('wsm-set-options', x_push_delay=0)
    finish(source, destination)
    require(not map_path(destination.images[0]).exists(), 'the map is there')
    expect_moved(scene, source, destination)
    end(source, destination)
    crashed.compare(destination.images[0])


@test()
def map_after_destination_killed(scene: Scene) -> None:
    """The destination dies: what is left says what is missing."""
    source, destination = in_postcopy(scene)
    scene.guest.wait_progress(writes=100)
    require(disk_total(destination, 'missing') > 0, 'nothing is missing')
    destination.kill()
    source.wait_migration('postcopy-paused')
    require(bool(read_map(map_path(destination.images[0])).missing),
            'the map says that nothing is missing')


@test()
def map_goes_with_the_migration(scene: Scene) -> None:
    """Automatic: there is a map until the end, and none after it."""
    source = loaded_source(scene, **LOAD)
    destination = scene.destination()
    destination.qmp.cmd('wsm-set-options', crash_safe='auto')
    move(scene, source, destination)
    require(not map_path(destination.images[0]).exists(), 'the map is there')
    require(query(destination)['crash-safe']['unmarked'] == 0,
            'something is not marked')
    end(source, destination)


@test()
def map_adds_no_flush_to_the_freeze(scene: Scene) -> None:
    """From the last one before the freeze on no flush ends at the destination.

    The guest runs there nevertheless.  What it flushes then waits until the
    map is durable.
    """
    gates = [FlushGate(scene.folder), FlushGate(scene.folder, sync=True)]
    config = scene.config
    for gate in gates:
        config = gate.machine(config)
    source = loaded_source(scene, **{**LOAD, 'flush': 0})
    destination = scene.destination(config=config, crash_safe='on')
    relay = scene.make_relay(destination)
    relay.hold_at(Type.SYNC_ACK)
    hold_ram_phase(source)
    begin(source, relay.uri, x_push_delay=200, max_residue=30000, **SLOW_DISK)
    held = relay.wait_held()    # the last flush before the freeze is over
    require(source.status() == 'running', 'the guest is frozen already')
    for gate in gates:
        gate.shut()
    relay.hold_at()
    held.resume()
    release_ram_phase(source)
    wait_phase(destination, 'postcopy')
    scene.guest.wait_progress(writes=200, beats=200)
    wait_until(gates[0].held, 'the map is flushed')
    flush = scene.guest.start_command('flush')
    scene.guest.wait_progress(beats=200)
    require(not flush.done(), 'a flush ended with no durable map')
    for gate in gates:
        gate.open()
    wait_until(flush.done, 'the flush ends')
    require(bool(read_map(map_path(destination.images[0])).missing), 'a map')
    source.qmp.cmd('wsm-set-options', x_push_delay=0)
    finish(source, destination)
    expect_moved(scene, source, destination)
    end(source, destination)
