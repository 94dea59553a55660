# SPDX-License-Identifier: GPL-2.0-or-later
"""postcopy-preempt, which libvirt switches on wherever it can, does nothing."""

from typing import Callable

from dev.rig.basics import require
from dev.rig.image import MIB
from dev.rig.qmp import Json
from dev.rig.relay import BLOCK, MAIN
from dev.rig.scene import WSM, Scene, begin, wait_phase
from dev.rig.vm import Vm
from tests.functional.lib.moves import BUSY_RAM, LOAD, SLOW_PUSH, fill_half
from tests.functional.lib.registry import add, test
from tests.functional.test_cuts import complete


def in_order(*caps: tuple[str, ...]) -> Callable[[Vm], None]:
    def setup(vm: Vm) -> None:
        for group in caps:
            vm.set_caps(*group)
    return setup


def preempt(name: str, summary: str, *setups: Callable[[Vm], None]) -> None:
    """Add a test in which postcopy-preempt is on, set up like that."""
    def function(scene: Scene) -> None:
        source = scene.source()
        fill_half(scene)
        scene.guest.start(**LOAD, **BUSY_RAM)
        destination = scene.destination('defer', wsm=False)
        for vm, setup in zip((source, destination), setups):
            setup(vm)
        destination.qmp.cmd('migrate-incoming', uri='tcp:127.0.0.1:0')
        relay = scene.make_relay(destination)
        source.set_params(downtime_limit=1, max_bandwidth=48 * MIB)
        begin(source, relay.uri, **SLOW_PUSH)
        wait_phase(source, 'ram-precopy')
        source.qmp.cmd('migrate-start-postcopy')
        wait_phase(source, 'postcopy')
        complete(scene, source, destination)
        kinds = [connection.kind for connection in relay.connections]
        require(kinds == [MAIN] + 3 * [BLOCK], f'there were {kinds}')
        require('postcopy-preempt' in source.stderr(), 'nothing was said')

    function.__doc__ = summary
    add(name, function)


PREEMPT = ('postcopy-ram', 'postcopy-preempt')
preempt('preempt-before', 'postcopy-preempt, then whole-system: no effect.',
        in_order(PREEMPT, (WSM,)), in_order(PREEMPT, (WSM,)))
preempt('preempt-after', 'whole-system, then postcopy-preempt: no effect.',
        in_order((WSM,), PREEMPT), in_order((WSM,), PREEMPT))


@test()
def preempt_while_listening(scene: Scene) -> None:
    """At a destination that listens, too, in any order."""
    destination = scene.destination()
    destination.set_caps(*PREEMPT)
    destination.set_caps('auto-converge')
    on: list[Json] = destination.qmp.cmd('query-migrate-capabilities')
    require({'capability': 'postcopy-preempt', 'state': True} in on,
            'it is not on')
