# SPDX-License-Identifier: GPL-2.0-or-later
"""The measurements, each a function from settings to samples.

Ways that are compared take turns in one run (A B A B), so that a machine
that is busy for a while is so for both.
"""

from typing import Callable

from apps import APP_SECTIONS
from back import BACK_SECTIONS
from compare import COMPARE_SECTIONS
from cost import COST_SECTIONS
from cpu import CPU_SECTIONS
from lib.vm import DiskConfig
from methods import SHARED, WSM
from moving import Plan, evenly, measure
from off import OFF_SECTIONS
from paper import PAPER_SECTIONS
from peers import PEER_SECTIONS
from pull import PULL_SECTIONS
from sample import Samples
from scale import SCALE_SECTIONS
from settings import BUSY, Settings, machine
from test_memory import Meter, preallocated

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
    **SCALE_SECTIONS,
    **APP_SECTIONS,
    **PAPER_SECTIONS,
}

# Those of a quick round, which ends within 10 minutes
QUICK_SECTIONS = ('load-idle', 'load-100', 'load-1500', 'load-unlimited',
                  'stock', 'thin', 'memory', 'back', 'return', 'resume',
                  'template', 'pull', 'scale-size')
