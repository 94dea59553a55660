# SPDX-License-Identifier: GPL-2.0-or-later
"""Which hosts are too hot, and which VMs do not get what they were promised.

Hot is what was over its limit in k of the last n samples and will be so, or
is far over it; and what stays over the release mark when the moves have ended
that are under way for it.  k of n and the forecast are Sandpiper's (Wood et
al., NSDI 2007).
"""

import enum
from dataclasses import dataclass
from typing import Iterator

from wsm.plan.fleet import RESOURCES, Fleet, Guest, Node
from wsm.plan.inventory import human
from wsm.plan.booked import Booked
from wsm.plan.policy import Hot, Limit, Policy
from wsm.plan.series import Series


# Of what a VM with a promise wants
LACK = Limit(0.0, 0.5, 0.0)


class Kind(enum.Enum):
    """Whose trouble it is."""

    HOST = "host"
    SLA = "sla"


@dataclass(frozen=True)
class Spot:
    """A hot spot."""

    kind: Kind
    host: str
    resource: str
    now: float                  # part of the capacity; SLA: what is lacking
    forecast: float
    over: int                   # samples over the limit
    of: int
    hard: bool
    release: float              # part of the capacity at which it is over
    victim: str = ""            # SLA: the VM
    weight: float = 1.0         # of the victim

    @property
    def key(self) -> str:
        """Names it: "host.cpu alpha", "sla.tx db1"."""
        return f"{self.kind.value}.{self.resource} {self.victim or self.host}"

    def text(self) -> str:
        """Say it with numbers."""
        what = {"cpu": "CPU demand", "rx": "received traffic",
                "tx": "sent traffic", "disk": "disk time",
                "swap": "memory"}[self.resource]
        often = f"in {self.over} of {self.of} samples"
        if self.kind is Kind.SLA:
            return (f"{self.victim} on {self.host} lacks {self.now:.0%} of "
                    f"its promised {what} {often}")
        if self.resource == "swap":
            return (f"{self.host} swapped out {human(self.now)} a second "
                    f"{often}")
        return (f"{self.host}'s {what} was over its limit {often}, now "
                f"{self.now:.2f} of capacity, forecast {self.forecast:.2f}")


def is_hot(series: Series, unit: float, limit: Limit,
           hot: Hot) -> tuple[int, bool] | None:
    """
    Return (samples over, hard), None if it is not.

    @unit is what limits are parts of.
    """
    recent = series.recent(hot.of)
    over = sum(value > limit.limit * unit for value in recent)
    if over < hot.over:
        return None
    hard = len(recent) > 1 and min(recent[-2:]) > limit.hard * unit
    if not hard and series.forecast <= limit.limit * unit:
        return None
    return over, hard


def host_spots(booked: Booked, name: str, node: Node,
               hot: Hot) -> Iterator[Spot]:
    """Yield what is hot on a host."""
    for resource in RESOURCES:
        unit = node.capacity[resource]
        limit: Limit = getattr(hot.limits, resource)
        found = unit > 0.0 and is_hot(node.load[resource], unit, limit, hot)
        if not found:
            continue
        now = booked.relieved(name, resource) / unit
        if now > limit.release:
            yield Spot(Kind.HOST, name, resource, now,
                       node.load[resource].forecast / unit, found[0], hot.of,
                       found[1], limit.release)


def swap_spots(booked: Booked, name: str, node: Node, hot: Hot) -> Iterator[Spot]:
    """Yield a host whose memory does not do; there is no forecast of that."""
    over = sum(value > hot.swap for value in node.swap.recent(hot.of))
    if over >= hot.over and not booked.leaving(name):
        yield Spot(Kind.HOST, name, "swap", node.swap.now, node.swap.now, over,
                   hot.of, node.swap.now > hot.swap_hard, 0.0)


def guest_spots(booked: Booked, guest: Guest, policy: Policy) -> Iterator[Spot]:
    """Yield what of its promises a VM does not get, unless a move is on."""
    for resource, series in guest.lacks.items():
        wanted = guest.load[resource].now + series.now
        found = series.now > 0.0 and is_hot(series, wanted, LACK, policy.hot)
        if found and not booked.leaving(guest.use.host):
            yield Spot(Kind.SLA, guest.use.host, resource, series.now / wanted,
                       series.forecast / wanted, found[0], policy.hot.of,
                       found[1], 0.0, guest.use.name,
                       getattr(policy.relief.weights, guest.spec.sla.class_))


def spots(fleet: Fleet, booked: Booked, policy: Policy) -> list[Spot]:
    """Return all hot spots, the worst first."""
    found: list[Spot] = []
    for name, node in fleet.nodes.items():
        if not fleet.is_known(name, policy.hot.stale):
            continue
        found += host_spots(booked, name, node, policy.hot)
        found += swap_spots(booked, name, node, policy.hot)
        for vm in node.guests:
            found += guest_spots(booked, fleet.guests[vm], policy)
    return sorted(found, key=lambda spot: (not spot.hard, -spot.weight,
                                           -spot.now, spot.key))
