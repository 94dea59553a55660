# SPDX-License-Identifier: GPL-2.0-or-later
"""Figures for Prometheus, in its text format."""

from typing import Any, Iterable, Iterator

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.exposition import generate_latest

from wsm.controller.moved import Moved
from wsm.controller.rounds import Controller
from wsm.plan.fleet import RESOURCES, Guest

CONTENT_TYPE = CONTENT_TYPE_LATEST


def gauge(name: str, text: str, labels: Iterable[str],
          values: Iterable[tuple[Iterable[str], float]]) -> Any:
    """Return a gauge with all its values."""
    made = GaugeMetricFamily(name, text, labels=list(labels))
    for label, value in values:
        made.add_metric(list(label), value)
    return made


class Source:
    """Reads a controller whenever somebody asks."""

    def __init__(self, made: Controller, moved: Moved,
                 with_vms: bool) -> None:
        self.made = made
        self.moved = moved
        self.with_vms = with_vms

    def collect(self) -> Iterator[Any]:
        """Yield all figures."""
        yield from self.hosts()
        yield from self.vms()
        yield from self.moved.families()
        yield from self.itself()

    def vms(self) -> Iterator[Any]:
        """Yield those of VMs; without names only what all lack together."""
        guests = sorted(self.made.fleet.guests.items())
        waits = [(name, guest.load["cpu"].now, guest.signs["wait"].now)
                 for name, guest in guests if "wait" in guest.signs]
        yield gauge("wsm_unmet_cpu_cores", "CPU that VMs wait for, in all",
                    (), [((), sum(cpu * wait for _, cpu, wait in waits))])
        if not self.with_vms:
            return
        yield gauge("wsm_vm_cpu_wait_ratio", "part of a VM's demand for CPU "
                    "that waits", ("vm",), (((name,), wait)
                                            for name, _, wait in waits))
        yield gauge("wsm_vm_sla_ok", "1: a VM gets what it was promised now",
                    ("vm", "kind"), (
                        ((name, kind), float(kept)) for name, guest in guests
                        for kind, kept in promises(guest)))

    def hosts(self) -> Iterator[Any]:
        """Yield those of hosts."""
        fleet = self.made.fleet
        nodes = sorted(fleet.nodes.items())
        yield gauge("wsm_host_ratio", "used part of a host's capacity, as "
                    "wanted now", ("host", "resource"), (
                        ((name, each), node.load[each].now
                         / node.capacity[each])
                        for name, node in nodes for each in RESOURCES
                        if node.capacity[each] > 0))
        yield gauge("wsm_host_swapout_bytes_per_second", "swapped out",
                    ("host",), (((name,), node.swap.now)
                                for name, node in nodes))
        yield gauge("wsm_data_age_seconds", "age of the newest sample",
                    ("host",), (((name,), fleet.now - node.load["cpu"].last)
                                for name, node in nodes))
        yield gauge("wsm_host_vms", "VMs", ("host",), (
            ((name,), len(node.guests)) for name, node in nodes))
        dropped = CounterMetricFamily(
            "wsm_samples_dropped", "samples that could not be",
            labels=["host"])
        for name, count in sorted(
                self.made.collector.intake.dropped.items()):
            dropped.add_metric([name], count)
        yield dropped

    def itself(self) -> Iterator[Any]:
        """Yield those of the controller."""
        made = self.made
        kinds: dict[str, int] = {}
        for spot in made.last.spots if made.last else ():
            kind = spot.key.split(" ")[0]
            kinds[kind] = kinds.get(kind, 0) + 1
        yield gauge("wsm_hotspots", "hot spots now", ("kind",), (
            ((kind,), count) for kind, count in sorted(kinds.items())))
        rounds = CounterMetricFamily("wsm_rounds", "rounds since the start")
        rounds.add_metric([], made.stats.rounds)
        yield rounds
        for name, text, value in (
                ("wsm_round_seconds", "time to decide", made.stats.seconds),
                ("wsm_moves_open", "moves under way",
                 len(made.executor.flights)),
                ("wsm_leader", "1: it leads", made.leader.leads()),
                ("wsm_breakers_open", "reasons for which it asks, as moves "
                 "did not help", len(made.last.breakers if made.last
                                     else ())),
                ("wsm_alarms", "what waits for a person",
                 len(made.ledger.alarms())),
                ("wsm_stuck", "1: it decides nothing, and should",
                 bool(made.problem) and made.leader.leads()),
                ("wsm_paused", "1: it begins nothing", made.paused())):
            yield gauge(name, text, (), [((), float(value))])


def promises(guest: Guest) -> Iterator[tuple[str, bool]]:
    """Yield (kind, is it kept now) of what a VM was promised and is seen."""
    given = guest.spec.sla.signs
    for sign, series in sorted(guest.signs.items()):
        if sign in given and series.samples:
            yield sign, series.now <= given[sign]
    for resource, series in sorted(guest.lacks.items()):
        yield resource, series.now <= 0.0


def exposition(made: Controller, moved: Moved,
               with_vms: bool = True) -> bytes:
    """Return all figures as Prometheus reads them."""
    registry = CollectorRegistry(auto_describe=False)
    source: Any = Source(made, moved, with_vms)
    registry.register(source)
    return bytes(generate_latest(registry))
