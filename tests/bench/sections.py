# SPDX-License-Identifier: GPL-2.0-or-later
"""The measurements, each a function from settings to samples.

Ways that are compared take turns in one run (A B A B), so that a machine
that is busy for a while is so for both.
"""

from typing import Callable

from apps import APP_SECTIONS
from back import BACK_SECTIONS
from cost import COST_SECTIONS
from lib.image import MIB
from lib.vm import DiskConfig
from methods import MIRROR, SHARED, WSM
from moving import Plan, evenly, measure
from sample import Samples
from settings import CALM, BUSY, LOADS, Load, Settings, machine
from test_memory import Meter, preallocated

Section = Callable[[Settings], Samples]


def plan_for(settings: Settings, load: Load) -> Plan:
    return Plan(machine(settings.disk), settings, load,
                data=((0, settings.data),))


def section_load(load: Load) -> Section:
    def function(settings: Settings) -> Samples:
        for _ in range(settings.rounds):
            for way in (WSM, SHARED):
                yield way, measure(plan_for(settings, load), way)
    return function


def section_stock(settings: Settings) -> Samples:
    """No link limit, against mirror and migrate."""
    plan = Plan(machine(settings.disk), settings, CALM, limited=False,
                data=((0, settings.data),))
    for _ in range(settings.rounds):
        for way in (WSM, MIRROR):
            yield way, measure(plan, way)


def section_thin(settings: Settings) -> Samples:
    """A big disk with little data at 16 places, raw and qcow2."""
    for _ in range(settings.rounds):
        for fmt in ('raw', 'qcow2'):
            plan = Plan(machine(settings.thin_disk, fmt), settings,
                        data=evenly(settings.thin_data, 16,
                                    settings.thin_disk))
            yield fmt, measure(plan, WSM)


def section_freeze(settings: Settings) -> Samples:
    """The same guest with disks of different virtual size."""
    for _ in range(settings.rounds):
        for size in settings.freeze_disks:
            plan = Plan(machine(size), settings, BUSY,
                        data=((0, settings.freeze_data),))
            yield str(size // MIB), measure(plan, WSM)


def section_memory(settings: Settings) -> Samples:
    """What each side grows by, and by how much with shared storage."""
    plan = Plan(preallocated(DiskConfig('vd0', size=settings.disk)), settings,
                BUSY, data=((0, settings.data),), meter=Meter)
    for _ in range(settings.rounds):
        for way in (WSM, SHARED):
            yield way, measure(plan, way)


SECTIONS: dict[str, Section] = {
    **{load.name: section_load(load) for load in LOADS},
    'stock': section_stock,
    'thin': section_thin,
    'freeze': section_freeze,
    'memory': section_memory,
    **BACK_SECTIONS,
    **COST_SECTIONS,
    **APP_SECTIONS,
}
