# SPDX-License-Identifier: GPL-2.0-or-later
"""Migrations that broke off go on with the same images."""

from typing import Optional

from dev.rig.basics import require, wait_until
from dev.rig.image import MIB
from dev.rig.relay import MAIN
from dev.rig.scene import Scene, begin, disk_total, query, wait_total
from dev.rig.vm import Vm
from dev.rig.wire import Type
from tests.functional.lib.back import (BOTH, DATA, SYNC_POINTS, bases,
                                       break_off_late, expect_kinds,
                                       expect_refused, expect_sent, has_ended,
                                       kinds, onto, record, save, states, wake)
from tests.functional.lib.moves import (BUSY_RAM, LOAD, end, expect_unharmed,
                                        fill_half, hold_ram_phase,
                                        loaded_source, phase_ms,
                                        release_ram_phase, start_and_wait)
from tests.functional.lib.registry import test

# Two disks have twice the data, and three quarters of one disk's have gone
REST = 2 * DATA - DATA * 3 // 4


def quiet_source(scene: Scene) -> Vm:
    """Disks with data, and a guest that writes only to 4 MiB of each."""
    source = scene.source()
    fill_half(scene)
    for disk in range(len(scene.config.disks)):
        scene.guest.region(disk, 0, 4 * MIB)
    scene.guest.start(**LOAD)
    return source


def expect_compared(source: Vm) -> None:
    """After kill -9 of a QEMU nobody knows what the image has got.

    What qcow2 has not yet noted in its tables is lost, maybe all.
    """
    require(kinds(source)[0] == 'content' and
            kinds(source)[1] in ('content', 'full'), f'{bases(source)}')
    require(disk_total(source, 'equal') >= 4 * MIB,
            f'{query(source)["disks"]}')


def go_on(scene: Scene, source: Vm, images: Vm,
          wanted: Optional[list[str]] = None) -> Vm:
    """Once more to the same images; the guest's whole disks are verified."""
    release_ram_phase(source)
    scene.guest.stop()
    for disk, sectors in enumerate(scene.guest.sectors()):
        scene.guest.region(disk, 0, sectors * 512)
    destination = onto(scene, source, images.images, 'destination-2',
                       bandwidth=0, max_residue=1000)
    if wanted:
        expect_kinds(source, wanted)
    else:
        expect_compared(source)
    return destination


@test(BOTH)
def resume_after_cut(scene: Scene) -> None:
    """The link breaks late in disk pre-copy; then once more."""
    source = quiet_source(scene)
    first = scene.destination()
    relay = scene.make_relay(first)
    break_off_late(source, relay.uri)
    relay.cut_all()
    source.wait_migration('failed')
    has_ended(first)
    expect_unharmed(scene, source)
    second = go_on(scene, source, first, SYNC_POINTS)
    expect_sent(source, REST + 16 * MIB, least=MIB)
    end(source, second)


@test(BOTH)
def resume_after_cancel(scene: Scene) -> None:
    """A cancel, then the guest writes a lot; then once more."""
    source = quiet_source(scene)
    first = scene.destination()
    break_off_late(source, scene.uri(first))
    source.qmp.cmd('migrate_cancel')
    source.wait_migration('cancelled')
    has_ended(first)
    expect_unharmed(scene, source)
    scene.guest.fill(0, 8 * MIB, 16 * MIB)
    scene.guest.fill(1, 40 * MIB, 16 * MIB)
    second = go_on(scene, source, first, SYNC_POINTS)
    expect_sent(source, 4 * DATA, least=32 * MIB)
    end(source, second)


@test(BOTH)
def resume_after_freeze(scene: Scene) -> None:
    """The source gives up while the destination has yet to load the guest."""
    source = quiet_source(scene)
    scene.guest.start(**LOAD, mem=1, mrate=20000)
    first = scene.destination()
    relay = scene.make_relay(first)
    relay.hold_at(Type.ABORT)
    relay.buffer = 64 * MIB     # for what the destination does not read
    # Memory is never down to 20 KiB, so the freeze waits
    source.set_params(avail_switchover_bandwidth=1 << 16)
    start_and_wait(source, relay.uri, 'ram-precopy', switchover_timeout=500)
    wait_until(lambda: bool(source.migration()['ram']['dirty-sync-count'] > 3),
               'memory has been sent')
    first.freeze(True)
    source.set_params(avail_switchover_bandwidth=1 << 40, downtime_limit=2000)
    source.wait_migration('failed')
    relay.wait_ended(MAIN)
    first.freeze(False)
    has_ended(first)
    require(phase_ms(source, 'freeze') is not None, 'there was no freeze')
    require('postcopy_ram_listen_thread' in first.stderr(),
            f'the stream did not break in the freeze: {first.stderr()}')
    expect_unharmed(scene, source)
    source.set_params(avail_switchover_bandwidth=0)
    second = go_on(scene, source, first, SYNC_POINTS)
    expect_sent(source, 16 * MIB)
    end(source, second)


@test(BOTH)
def resume_after_quit(scene: Scene) -> None:
    """The destination is ended in disk pre-copy; then once more, twice."""
    source = quiet_source(scene)
    first = scene.destination()
    break_off_late(source, scene.uri(first))
    first.quit()
    source.wait_migration('failed')
    expect_unharmed(scene, source)
    second = scene.destination(images=first.images, name='destination-b')
    begin(source, scene.uri(second), bandwidth=4 * MIB)
    wait_until(lambda: bool(query(source)['phase'] == 'disk-precopy'),
               'disk pre-copy')
    wait_total(source, 'sent', MIB)
    expect_kinds(source, SYNC_POINTS)
    second.quit()
    source.wait_migration('failed')
    third = go_on(scene, source, first, SYNC_POINTS)
    expect_sent(source, REST + 16 * MIB, least=MIB)
    end(source, third)


@test(BOTH)
def resume_after_destination_killed(scene: Scene) -> None:
    """kill -9 of the destination: what is there already is found equal."""
    source = quiet_source(scene)
    first = scene.destination()
    break_off_late(source, scene.uri(first))
    first.kill()
    source.wait_migration('failed')
    expect_unharmed(scene, source)
    second = go_on(scene, source, first)
    end(source, second)


@test(BOTH)
def resume_after_source_killed(scene: Scene) -> None:
    """kill -9 of the source: its disks are current; then once more."""
    source = scene.source()
    fill_half(scene)
    scene.guest.command('flush')
    state = save(source)
    first = scene.destination()
    break_off_late(source, scene.uri(first))
    source.kill()
    has_ended(first)
    again = wake(scene, source.images, state, 'source-2')
    require(states(again) == ['current'] * 2, f'{states(again)}')
    second = go_on(scene, again, first)
    end(again, second)


@test(BOTH)
def incomplete_refused(scene: Scene) -> None:
    """A QEMU whose image is incomplete does not run it; then once more."""
    source = quiet_source(scene)
    first = scene.destination()
    break_off_late(source, scene.uri(first))
    require(states(first) == ['incomplete'] * 2, f'{states(first)}')
    first.quit()
    source.wait_migration('failed')
    other = scene.reopen('other', first.images, scene.other_guest())
    expect_refused(other, 'did not end', 'vd0')
    require(states(other) == ['incomplete'] * 2, f'{states(other)}')
    require('The guest was not started' in other.stderr(), other.stderr())
    other.quit()
    second = go_on(scene, source, first, SYNC_POINTS)
    end(source, second)


@test(BOTH)
def cancel_removes_mark(scene: Scene) -> None:
    """A cancel when the guest was about to leave: it has not left."""
    source = loaded_source(scene, **LOAD, **BUSY_RAM)
    first = scene.destination()
    relay = scene.make_relay(first)
    relay.hold_at(Type.READY)
    hold_ram_phase(source)
    start_and_wait(source, relay.uri, 'ram-precopy')
    require(not record(source.images[0]).exists(), 'marked too early')
    release_ram_phase(source)
    relay.wait_held()
    for image in source.images:
        require('"leaving"' in record(image).read_text('utf-8'), 'no mark')
    source.qmp.cmd('migrate_cancel')
    source.wait_migration('cancelled', 'failed')
    expect_unharmed(scene, source)
    for image in source.images:
        require(not record(image).exists(), 'the mark is still there')
    relay.cut_all()
    has_ended(first)
    second = go_on(scene, source, first, SYNC_POINTS)
    end(source, second)
