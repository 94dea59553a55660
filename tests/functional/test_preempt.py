# SPDX-License-Identifier: GPL-2.0-or-later
"""postcopy-preempt, which libvirt switches on wherever it can, does nothing."""

from dev.rig.basics import require
from dev.rig.qmp import Json
from dev.rig.relay import BLOCK, MAIN
from dev.rig.scene import WSM, Scene, begin, wait_phase
from tests.functional.lib.moves import (BUSY_RAM, LOAD, SLOW_PUSH, fill_half,
                                        hold_ram_phase)
from tests.functional.lib.registry import add, test
from tests.functional.lib.setups import PREEMPT
from tests.functional.test_cuts import complete


def preempt(name: str, summary: str, *groups: tuple[str, ...]) -> None:
    """Add a test in which these capabilities are set in this order."""
    def function(scene: Scene) -> None:
        source = scene.source()
        fill_half(scene)
        scene.guest.start(**LOAD, **BUSY_RAM)
        destination = scene.destination('defer', wsm=False)
        for vm in (source, destination):
            for group in groups:
                vm.set_caps(*group)
        destination.qmp.cmd('migrate-incoming', uri='tcp:127.0.0.1:0')
        relay = scene.make_relay(destination)
        hold_ram_phase(source)
        begin(source, relay.uri, **SLOW_PUSH)
        wait_phase(source, 'ram-precopy')
        source.qmp.cmd('migrate-start-postcopy')
        wait_phase(source, 'postcopy')
        # Before the end: after it a source that is slow connects once more
        kinds = [connection.kind for connection in relay.connections]
        require(kinds == [MAIN] + 3 * [BLOCK], f'there were {kinds}')
        complete(scene, source, destination)
        require('postcopy-preempt' in source.stderr(), 'nothing was said')

    function.__doc__ = summary
    add(name, function)


preempt('preempt-before', 'postcopy-preempt, then whole-system: no effect.',
        PREEMPT, (WSM,))
preempt('preempt-after', 'whole-system, then postcopy-preempt: no effect.',
        (WSM,), PREEMPT)


@test()
def preempt_while_listening(scene: Scene) -> None:
    """At a destination that listens, too, in any order."""
    destination = scene.destination()
    destination.set_caps(*PREEMPT)
    destination.set_caps('auto-converge')
    on: list[Json] = destination.qmp.cmd('query-migrate-capabilities')
    require({'capability': 'postcopy-preempt', 'state': True} in on,
            'it is not on')
