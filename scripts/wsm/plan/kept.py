# SPDX-License-Identifier: GPL-2.0-or-later
"""What a round was made of, as JSON and back: the planner can be asked again.

Of a VM's hour only the peak is kept, of its description not the command line.
Figures have five digits.
"""

import math
from dataclasses import dataclass
from typing import Any, Container, Iterable, Mapping, Optional

from wsm.plan.filters import needs_of
from wsm.plan.fleet import Errand, Fleet, Flight, Guest, Node
from wsm.plan.inventory import Host, VmUse
from wsm.plan.past import Past, Trip
from wsm.plan.plain import BadData, from_plain, to_plain
from wsm.plan.policy import Policy
from wsm.plan.ruling import Rule
from wsm.plan.series import FORECAST, Series
from wsm.plan.spec import Spec

FORMAT = 2
DIGITS = 5
Json = dict[str, Any]


@dataclass(frozen=True)
class Round:
    """What planner.decide() was given, but for what moves cost."""

    fleet: Fleet
    policy: Policy
    past: Past


def short(value: float) -> float | None:
    """Return a number with few digits; None for what JSON has not."""
    return float(f"{value:.{DIGITS}g}") if math.isfinite(value) else None


def shorts(values: Iterable[float]) -> list[float | None]:
    """Return numbers with few digits."""
    return [short(each) for each in values]


# Series

def series_of(found: Series, now: float, whole: bool) -> list[Any]:
    """Return [age, samples, maxima]; nothing if it was never measured."""
    if not found.samples:
        return []
    maxima = found.maxima if whole else [found.peak]
    return [round(now - found.last, 2), shorts(found.recent(FORECAST)),
            shorts(maxima)]


def series_from(data: list[Any], now: float, interval: float) -> Series:
    """Return the series."""
    made = Series(interval)
    if data:
        made.last = now - data[0]
        made.samples.extend(data[1])
        made.maxima.extend(data[2])
    return made


def loads_of(found: Mapping[str, Series], now: float,
             whole: bool = False) -> Json:
    """Return those that were measured."""
    return {name: plain for name, each in found.items()
            if (plain := series_of(each, now, whole))}


def loads_from(data: Json, into: dict[str, Series], now: float,
               interval: float) -> None:
    """Put them back."""
    for name, each in data.items():
        into[name] = series_from(each, now, interval)


# Hosts and VMs

def node_of(node: Node, now: float) -> Json:
    """Return a host."""
    return {"host": to_plain(node.host), "capacity": dict(node.capacity),
            "joined": node.joined, "vms": sorted(node.guests),
            "load": loads_of(node.load, now, True),
            "signs": loads_of(node.signs, now, True),
            "swap": series_of(node.swap, now, False)}


def guest_of(guest: Guest, now: float) -> Json:
    """Return a VM."""
    spec = to_plain(guest.spec)
    spec.pop("args", None)
    return {"use": to_plain(guest.use), "spec": spec,
            "copies": sorted(guest.copies), "load": loads_of(guest.load, now),
            "lacks": loads_of(guest.lacks, now),
            "signs": loads_of(guest.signs, now)}


def add_node(fleet: Fleet, data: Json) -> None:
    """Put a host back."""
    node = fleet.add_host(from_plain(Host, data["host"]))
    node.capacity, node.joined = data["capacity"], data["joined"]
    loads_from(data["load"], node.load, fleet.now, fleet.interval)
    loads_from(data["signs"], node.signs, fleet.now, fleet.interval)
    node.swap = series_from(data["swap"], fleet.now, fleet.interval)


def add_guest(fleet: Fleet, data: Json) -> None:
    """Put a VM back."""
    use = from_plain(VmUse, data["use"])
    spec = from_plain(Spec, {"args": [], **data["spec"]})
    guest = fleet.add_guest(use, spec, needs_of(use, spec))
    guest.copies = set(data["copies"])
    for name, into in (("load", guest.load), ("lacks", guest.lacks),
                       ("signs", guest.signs)):
        loads_from(data[name], into, fleet.now, fleet.interval)
    fleet.uneasy[use.name] = fleet.now      # what it lacked was not noted


# What was moved lately

def past_of(past: Past, now: float) -> Json:
    """Return it, as it was when the round of @now was made."""
    return {"trips": {vm: [to_plain(each) for each in trips]
                      for vm, trips in past.trips.items() if trips},
            "ended": dict(past.ended), "began": list(past.began),
            "failed": list(past.failed), "sent": past.sent,
            "watched": [to_plain(each) for each in past.watched],
            # What was found out after the decision is not its
            "uncooled": {host: [at for at in times if at < now]
                         for host, times in past.uncooled.items()},
            "stayed": dict(past.stayed), "refused": dict(past.refused)}


def past_from(data: Json) -> Past:
    """Return it."""
    return Past({vm: [from_plain(Trip, each) for each in trips]
                 for vm, trips in data["trips"].items()},
                data["ended"], data["began"], data["failed"],
                [from_plain(Trip, each) for each in data["watched"]],
                data["uncooled"], [(each[0], each[1], each[2])
                                   for each in data["sent"]],
                data.get("stayed", {}), data.get("refused", {}))


# All of it

def record(found: Round, hosts: Optional[Container[str]] = None,
           vms: Optional[Container[str]] = None) -> Json:
    """Return it as JSON; of hosts and VMs all, or those that are wanted."""
    fleet, now = found.fleet, found.fleet.now
    return {"format": FORMAT, "now": now, "interval": fleet.interval,
            "local": fleet.local, "policy": to_plain(found.policy),
            "rules": [to_plain(each) for each in fleet.rules],
            "past": past_of(found.past, now),
            "hosts": {name: node_of(node, now)
                      for name, node in fleet.nodes.items()
                      if hosts is None or name in hosts},
            "vms": {name: guest_of(guest, now)
                    for name, guest in fleet.guests.items()
                    if vms is None or name in vms},
            "flights": {name: to_plain(each)
                        for name, each in fleet.flights.items()},
            "errands": [to_plain(each) for each in fleet.errands],
            "dues": dict(fleet.dues)}


def restore(data: Json) -> Round:
    """Return what was recorded; raise BadData if that was another version."""
    if data.get("format") != FORMAT:
        raise BadData("this was recorded by another version of the "
                      "controller, which cannot be asked again")
    fleet = Fleet(data["interval"], data["now"], local=data["local"],
                  rules=tuple(from_plain(Rule, each)
                              for each in data["rules"]),
                  errands=tuple(from_plain(Errand, each)
                                for each in data.get("errands", ())),
                  dues=data.get("dues", {}))
    for each in data["hosts"].values():
        add_node(fleet, each)
    for each in data["vms"].values():
        add_guest(fleet, each)
    fleet.flights = {name: from_plain(Flight, each)
                     for name, each in data["flights"].items()}
    return Round(fleet, from_plain(Policy, data["policy"]),
                 past_from(data["past"]))
