# SPDX-License-Identifier: GPL-2.0-or-later
"""Whatever breaks in whatever phase of a move by wsmctl: the laws hold."""

from dev.rig.image import MIB
from dev.rig.scene import Scene
from dev.rig.vm import DiskConfig, MachineConfig
from tests.functional.lib.faults import (FAULTS, PHASES, FaultCluster, Trip,
                                         check)
from tests.functional.lib.registry import add

CONFIG = MachineConfig((DiskConfig(size=32 * MIB),))


def case(fault: str, phase: str, back: bool) -> None:
    """Add a test: a fault in a phase, on the way there or on the way back."""
    def function(scene: Scene) -> None:
        cluster = FaultCluster(scene)
        with cluster:
            # To start an agent may take longer than QEMU waits by itself
            trip = Trip(cluster, phase, back, fault.startswith('kill'))
            trip.wait()
            FAULTS[fault](trip)
            check(trip, fault)

    way = 'back' if back else 'there'
    function.__doc__ = f'{fault} in {phase}, on the way {way}.'
    add(f'wsmctl-{fault}-in-{phase}-{way}', function, CONFIG, slow=True)


for _fault in FAULTS:
    for _phase in PHASES:
        case(_fault, _phase, False)
        case(_fault, _phase, True)
