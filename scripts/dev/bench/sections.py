# SPDX-License-Identifier: GPL-2.0-or-later
"""The measurements, each a function from settings to samples.

Ways that are compared take turns in one run (A B A B), so that a machine
that is busy for a while is so for both.
"""

from typing import Callable

from dev.bench.apps import APP_SECTIONS
from dev.bench.compare import COMPARE_SECTIONS
from dev.bench.cost import COST_SECTIONS
from dev.bench.cpu import CPU_SECTIONS
from dev.bench.crash_safe import CRASH_SECTIONS
from dev.bench.footprint import AGENT_SECTIONS
from dev.bench.journeys import BACK_SECTIONS
from dev.bench.memory_back import MEMORY_BACK_SECTIONS
from dev.bench.memory_refs import MEMORY_SECTIONS
from dev.bench.methods import SHARED, WSM
from dev.bench.moving import Plan, evenly, measure
from dev.bench.off import OFF_SECTIONS
from dev.bench.paper import PAPER_SECTIONS
from dev.bench.peers import PEER_SECTIONS
from dev.bench.prediction import PREDICTION_SECTIONS
from dev.bench.pull import PULL_SECTIONS
from dev.bench.sample import Samples
from dev.bench.scale import SCALE_SECTIONS
from dev.bench.settings import BUSY, Settings, machine
from dev.rig.meter import Meter, preallocated
from dev.rig.vm import DiskConfig

Section = Callable[[Settings], Samples]


def section_thin(settings: Settings) -> Samples:
    """A big disk with little data at 16 places, raw and qcow2."""
    for _ in range(settings.rounds):
        for fmt in ('raw', 'qcow2'):
            plan = Plan(machine(settings.thin_disk, fmt), settings,
                        data=evenly(settings.thin_data, 16,
                                    settings.thin_disk))
            yield fmt, measure(plan, WSM)


def section_memory(settings: Settings) -> Samples:
    """What each side grows by, and by how much with shared storage."""
    plan = Plan(preallocated(DiskConfig('vd0', size=settings.disk)), settings,
                BUSY, data=((0, settings.data),), meter=Meter)
    for _ in range(settings.rounds):
        for way in (WSM, SHARED):
            yield way, measure(plan, way)


SECTIONS: dict[str, Section] = {
    **COMPARE_SECTIONS,
    'thin': section_thin,
    'memory': section_memory,
    **PEER_SECTIONS,
    **BACK_SECTIONS,
    **COST_SECTIONS,
    **CPU_SECTIONS,
    **PULL_SECTIONS,
    **OFF_SECTIONS,
    **CRASH_SECTIONS,
    **SCALE_SECTIONS,
    **APP_SECTIONS,
    **PAPER_SECTIONS,
    **MEMORY_SECTIONS,
    **MEMORY_BACK_SECTIONS,
    **PREDICTION_SECTIONS,
    **AGENT_SECTIONS,
}

# Those of a quick round, which ends within 10 minutes
QUICK_SECTIONS = ('load-idle', 'load-100', 'load-1500', 'load-unlimited',
                  'stock', 'thin', 'memory', 'back', 'return', 'resume',
                  'template', 'pull', 'scale-size')
