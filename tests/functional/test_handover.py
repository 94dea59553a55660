# SPDX-License-Identifier: GPL-2.0-or-later
"""The handover: who owns the guest, who says so, and when it is over."""

from lib.common import require, wait_until
from lib.moves import end, expect_moved, fill_half
from lib.registry import test
from lib.relay import Relay
from lib.scene import Scene, begin, finish
from lib.vm import Vm
from lib.wire import Type


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
    wait_until(lambda: source.migration()['ram']['remaining'] == 0,
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
