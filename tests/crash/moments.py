# SPDX-License-Identifier: GPL-2.0-or-later
"""Points in time at which somebody dies, each with a setting that stops there.

They wait for events and conditions, so each case is about what it says.
"""

from typing import Callable

from dev.rig.basics import require, wait_until
from dev.rig.scene import disk_total, wait_phase, wait_total
from dev.rig.wire import Type
from tests.crash.setting import Setting
from tests.functional.lib.back import states
from tests.functional.lib.hold import FlushGate

Moment = Callable[[Setting], None]

# In the order in which they come to pass
BEFORE_GO: dict[str, Moment] = {}
AFTER_GO: dict[str, Moment] = {}


def add(moments: dict[str, Moment]) -> Callable[[Moment], Moment]:
    """Decorator: a point in time, named as the function with dashes."""
    def register(function: Moment) -> Moment:
        moments[function.__name__.replace('_', '-')] = function
        return function
    return register


@add(BEFORE_GO)
def before_sync(setting: Setting) -> None:
    """All of the disks was sent once; it is not flushed."""
    setting.held_at(Type.SYNC)


@add(BEFORE_GO)
def freeze(setting: Setting) -> None:
    """The guest has been stopped; the destination loads it."""
    setting.begin()
    wait_phase(setting.source, 'freeze')


@add(BEFORE_GO)
def ready(setting: Setting) -> None:
    """The destination has loaded the guest; the source does not know."""
    setting.held_at(Type.READY)


@add(BEFORE_GO)
def go_sent(setting: Setting) -> None:
    """The source has handed the guest over; the destination does not know."""
    setting.held_at_go()


@add(AFTER_GO)
def before_commit(setting: Setting) -> None:
    """The guest runs at the destination, whose maps are being written."""
    setting.held_at_go()
    setting.close_gate(setting.gates.flush)
    setting.release()
    wait_phase(setting.destination, 'postcopy')
    wait_until(setting.gates.flush.held, 'the destination commits')


@add(AFTER_GO)
def after_commit(setting: Setting) -> None:
    """The maps are written."""
    setting.in_postcopy()


@add(AFTER_GO)
def first_data(setting: Setting) -> None:
    """No block has come yet."""
    setting.held_at_go()
    setting.release_but(Type.DATA)
    setting.wait_committed()
    setting.wait_held(Type.DATA)
    require(disk_total(setting.destination, 'missing') > 0, 'all is there')


@add(AFTER_GO)
def guest_works(setting: Setting) -> None:
    """The guest has flushed, block after block has come."""
    setting.in_postcopy()
    setting.scene.guest.wait_rounds(20)
    wait_total(setting.source, 'pushed')


@add(AFTER_GO)
def pull(setting: Setting) -> None:
    """The guest waits for a block."""
    setting.held_at_go()
    setting.release_but(Type.PULL)
    setting.wait_held(Type.PULL)


@add(AFTER_GO)
def have(setting: Setting) -> None:
    """The guest has overwritten a block; the source does not know."""
    setting.held_at_go()
    setting.release_but(Type.HAVE)
    setting.wait_held(Type.HAVE)


@add(AFTER_GO)
def ack(setting: Setting) -> None:
    """Blocks have come; the source is not told."""
    setting.held_at_go()
    setting.hurry()
    setting.release_but(Type.ACK)
    setting.wait_held(Type.ACK)


@add(AFTER_GO)
def checkpoint(setting: Setting) -> None:
    """What has come becomes durable."""
    setting.in_postcopy()
    setting.close_gate(setting.gates.flush)
    wait_until(setting.gates.flush.held, 'the destination flushes')


def in_the_end(setting: Setting, gate: FlushGate) -> None:
    """Nothing is missing any more, and the end has got to a gate.

    QEMU's main thread may wait there, so it is asked nothing.
    """
    setting.in_postcopy()
    setting.close_gate(gate)
    setting.hurry()
    wait_until(gate.held, 'the end')


@add(AFTER_GO)
def last_flush(setting: Setting) -> None:
    """All is there, or as much as needs no flush, and not durable."""
    setting.in_postcopy()
    setting.close_gate(setting.gates.flush)
    setting.hurry()
    wait_until(setting.gates.flush.held, 'the destination flushes')
    if all(disk.fmt == 'raw' for disk in setting.variant.config.disks):
        wait_until(lambda: disk_total(setting.destination, 'missing') == 0,
                   'nothing is missing')


@add(AFTER_GO)
def before_record_removal(setting: Setting) -> None:
    """The filters are gone, the records are there."""
    in_the_end(setting, setting.gates.record)


@add(AFTER_GO)
def record_removal(setting: Setting) -> None:
    """The first record is gone, but not for good."""
    in_the_end(setting, setting.gates.folder)


@add(AFTER_GO)
def before_map_removal(setting: Setting) -> None:
    """The records are gone, the maps are there."""
    in_the_end(setting, setting.gates.map)


@add(AFTER_GO)
def sync_ack(setting: Setting) -> None:
    """The images are the guest's; the source does not know."""
    setting.held_at_go()
    setting.hurry()
    setting.release_but(Type.SYNC_ACK)
    setting.wait_held(Type.SYNC_ACK)
    wait_until(lambda: set(states(setting.destination)) == {'current'},
               'the images are complete')
