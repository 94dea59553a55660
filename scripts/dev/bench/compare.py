# SPDX-License-Identifier: GPL-2.0-or-later
"""Every way to move the same guest, in turns: by write rate, by link speed."""

from typing import Callable

from dev.bench.methods import COPY, METHODS, MIRROR, SHARED, SYNC, WSM
from dev.bench.moving import Plan, measure
from dev.bench.sample import Samples
from dev.bench.settings import CALM, LOADS, Load, Settings, machine

LINK_WAYS = (WSM, MIRROR, SYNC, SHARED)


def plan_for(settings: Settings, load: Load, link_mbit: int = 0) -> Plan:
    return Plan(machine(settings.disk), settings, load,
                data=((0, settings.data),), link_mbit=link_mbit)


def ways_of(load: Load) -> tuple[str, ...]:
    """A guest that stands still does the same under any load."""
    return tuple(way for way in METHODS if way != COPY or load is CALM)


def section_load(load: Load) -> Callable[[Settings], Samples]:
    def function(settings: Settings) -> Samples:
        for _ in range(settings.rounds):
            for way in ways_of(load):
                yield way, measure(plan_for(settings, load), way)
    return function


def section_links(settings: Settings) -> Samples:
    """Links of different speed, with few writes."""
    for _ in range(settings.few_rounds):
        for mbit in settings.links_mbit:
            for way in LINK_WAYS:
                plan = plan_for(settings, CALM, mbit)
                yield f'{mbit} {way}', measure(plan, way)


def section_stock(settings: Settings) -> Samples:
    """No link limit, against mirror and migrate."""
    plan = Plan(machine(settings.disk), settings, CALM, limited=False,
                data=((0, settings.data),))
    for way in (WSM, MIRROR) * settings.many_rounds:
        yield way, measure(plan, way)


COMPARE_SECTIONS: dict[str, Callable[[Settings], Samples]] = {
    **{f'load-{load.name}': section_load(load) for load in LOADS},
    'links': section_links,
    'stock': section_stock,
}
