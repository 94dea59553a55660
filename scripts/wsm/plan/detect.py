# SPDX-License-Identifier: GPL-2.0-or-later
"""Which hosts are too hot, and which VMs do not get what they were promised.

Hot is what was over its limit in k of the last n samples and will be so, or
is far over it; and what stays over the release mark when the moves have ended
that are under way for it; see heat.py.
"""

import enum
import functools
from dataclasses import dataclass
from typing import Iterator

from wsm.plan.booked import Booked
from wsm.plan.fleet import RESOURCES, Fleet, Guest, Node
from wsm.plan.heat import is_full, is_hot
from wsm.plan.inventory import HostState, human
from wsm.plan.policy import Hot, Limit, Policy
from wsm.plan.ruling import Book

# Of what a VM with a promise wants
LACK = Limit(0.0, 0.5, 0.0)
AWAKE = 0.05                    # cores: who wants less does not wait
# A sign of a host, and of a VM: what is scarce
HOST_SIGNS = {"wait": "cpu", "memory": "mem", "stall": "swap"}
GUEST_SIGNS = {"wait": "cpu", "latency": "disk", "swap": "swap"}
WORDS = {"cpu": "CPU demand", "rx": "received traffic",
         "tx": "sent traffic", "disk": "disk time"}


class Kind(enum.Enum):
    """What the trouble is."""

    HOST = "host"
    SLA = "sla"
    HEALTH = "health"           # the host is about to fail
    DRAIN = "drain"             # the host is to be emptied
    RULE = "rule"               # a VM is where it must not be
    BALANCE = "balance"
    PACK = "pack"
    ERRAND = "errand"           # a person wants a VM elsewhere by a time


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
    victim: str = ""            # SLA, RULE: the VM
    weight: float = 1.0         # of the victim
    sign: str = ""              # by which it is seen; "": by the load
    words: str = ""             # RULE and goals: what is wrong
    seen: float = 0.0           # as now, but with what is leaving

    @functools.cached_property
    def key(self) -> str:
        """Names it: "host.cpu alpha", "sla.tx db1", "drain alpha"."""
        what = self.kind.value + (f".{self.resource}" if self.resource else "")
        return f"{what} {self.victim or self.host}"

    def text(self) -> str:
        """Say it with numbers."""
        often = f"in {self.over} of {self.of} samples"
        if self.words:
            return self.words
        if self.sign:
            return f"{self.victim or self.host} {self.sign_text()} {often}"
        if self.kind is Kind.SLA:
            return (f"{self.victim} on {self.host} lacks {self.now:.0%} of "
                    f"its promised {WORDS[self.resource]} {often}")
        if self.resource == "swap":
            return (f"{self.host} swapped out {human(self.now)} a second "
                    f"{often}")
        return (f"{self.host}'s {WORDS[self.resource]} was over its limit "
                f"{often}, now {self.now:.2f} of capacity, forecast "
                f"{self.forecast:.2f}")

    def sign_text(self) -> str:
        """Say what a sign says."""
        return {"wait": f"waits for a CPU {self.now:.0%} of the time",
                "memory": f"uses {self.now:.0%} of its memory",
                "stall": f"stands {self.now:.0%} of the time for want of "
                         "memory",
                "latency": f"waits {1000 * self.now:.0f} ms for its disks",
                "swap": f"has {human(self.now)} a second swapped out",
                "health": f"says that its health is {self.now:.2f}"}[self.sign]


def is_slow(node: Node, hot: Hot) -> bool:
    """Whether disks take long, or nobody knows."""
    latency = node.signs.get("latency")
    return latency is None or is_hot(latency, 1.0, hot.limits.latency,
                                     hot) is not None


def host_spots(booked: Booked, name: str, node: Node,
               policy: Policy) -> Iterator[Spot]:
    """Yield what is hot on a host."""
    hot = policy.hot
    for resource in RESOURCES:
        unit = node.capacity[resource]
        limit: Limit = getattr(hot.limits, resource)
        found = unit > 0.0 and is_full(node.load[resource], unit, limit,
                                       policy)
        if not found or resource == "disk" and not is_slow(node, hot):
            continue
        now = booked.relieved(name, resource) / unit
        if now > limit.release:
            yield Spot(Kind.HOST, name, resource, now,
                       node.load[resource].forecast / unit, found[0], hot.of,
                       found[1], limit.release,
                       seen=node.load[resource].now / unit)


def sign_spots(booked: Booked, name: str, node: Node,
               hot: Hot) -> Iterator[Spot]:
    """
    Yield what else tells that a host has too much, unless a VM is leaving.

    There is no forecast of memory.
    """
    if booked.leaving(name):
        return
    over = (node.swap.was_over(hot.swap, hot.newest)
            and sum(value > hot.swap for value in node.swap.recent(hot.of)))
    if over >= hot.over:
        yield Spot(Kind.HOST, name, "swap", node.swap.now, node.swap.now, over,
                   hot.of, node.swap.now > hot.swap_hard, 0.0)
    for sign, resource in HOST_SIGNS.items():
        series = node.signs.get(sign)
        limit: Limit = getattr(hot.limits, sign)
        found = series and is_hot(series, 1.0, limit, hot, sign == "wait")
        if series and found and series.now > limit.release:
            yield Spot(Kind.HOST, name, resource, series.now, series.forecast,
                       found[0], hot.of, found[1], limit.release, sign=sign)


def health_spots(name: str, node: Node, hot: Hot) -> Iterator[Spot]:
    """Yield a host that is to be emptied."""
    health = node.signs.get("health")
    if health and health.now < hot.health:
        under = sum(value < hot.health for value in health.recent(hot.of))
        if under >= hot.over:
            yield Spot(Kind.HEALTH, name, "", health.now, health.now, under,
                       hot.of, True, 0.0, sign="health")
            return
    yield from drain_spots(name, node)


def drain_spots(name: str, node: Node) -> Iterator[Spot]:
    """Yield a host that somebody wants to be empty."""
    if node.host.state is HostState.DRAINING and node.guests:
        yield Spot(Kind.DRAIN, name, "", 0.0, 0.0, 0, 0, False, 0.0,
                   words=f"{name} is to be emptied of its {len(node.guests)} "
                         "VMs")


def guest_spots(guest: Guest, policy: Policy) -> Iterator[Spot]:
    """Yield what of its promises a VM does not get."""
    sla, hot = guest.spec.sla, policy.hot
    where = (guest.use.name, getattr(policy.relief.weights, sla.class_))
    for resource, series in guest.lacks.items():
        wanted = guest.load[resource].now + series.now
        found = series.now > 0.0 and is_hot(series, wanted, LACK, hot)
        if found:
            yield Spot(Kind.SLA, guest.use.host, resource, series.now / wanted,
                       series.forecast / wanted, found[0], hot.of,
                       found[1], 0.0, *where)
    for sign, series in guest.signs.items():
        most = sla.signs.get(sign)
        if most is None or sign == "wait" and guest.load["cpu"].now <= AWAKE:
            continue
        found = is_hot(series, 1.0, Limit(most, 2 * most, 0.0), hot,
                       sign != "swap")
        if found and series.now > most:
            yield Spot(Kind.SLA, guest.use.host, GUEST_SIGNS[sign], series.now,
                       series.forecast, found[0], hot.of, found[1], 0.0,
                       *where, sign)


def misplaced(fleet: Fleet, book: Book, vm: str) -> str:
    """Return why a VM must not be where it will be, "" if it may."""
    pin, host = fleet.guests[vm].spec.placement.pin, book.where(vm)[-1]
    if pin and host not in pin:
        return f"{vm} is on {host}, its 1 pin names {', '.join(pin)}"
    why = book.broken(vm)
    return why and f"{vm} is on {host}, 1 rule is against it: {why}"


def rule_spots(fleet: Fleet, booked: Booked, book: Book) -> Iterator[Spot]:
    """Yield each VM that is where it must not be, and does not leave."""
    for vm in sorted((book.suspects() | fleet.pinned) - booked.flying):
        if vm in fleet.guests and (why := misplaced(fleet, book, vm)):
            yield Spot(Kind.RULE, fleet.guests[vm].use.host, "", 1.0, 1.0, 1,
                       1, False, 0.0, vm, words=why)


def uneasy_guests(fleet: Fleet, booked: Booked) -> dict[str, list[Guest]]:
    """
    Return the VMs that may lack something, by host.

    While a VM leaves a host it is not known what the others will lack.
    """
    found: dict[str, list[Guest]] = {}
    for vm in sorted(fleet.uneasy):
        guest = fleet.guests.get(vm)
        if guest and not booked.leaving(guest.use.host):
            found.setdefault(guest.use.host, []).append(guest)
    return found


def host_and_guest_spots(booked: Booked, name: str, guests: list[Guest],
                         policy: Policy) -> Iterator[Spot]:
    """Yield all that is wrong with a host and @guests on it, once each."""
    node, seen = booked.fleet.nodes[name], set()
    for spot in (*host_spots(booked, name, node, policy),
                 *sign_spots(booked, name, node, policy.hot),
                 *(each for guest in guests
                   for each in guest_spots(guest, policy))):
        if spot.key not in seen:
            seen.add(spot.key)
            yield spot


def spots(fleet: Fleet, booked: Booked, policy: Policy,
          book: Book) -> list[Spot]:
    """Return all hot spots, the worst first."""
    found = list(rule_spots(fleet, booked, book))
    uneasy = uneasy_guests(fleet, booked)
    for name, node in fleet.nodes.items():
        if not fleet.is_known(name, policy.hot.stale):
            found += drain_spots(name, node)
            continue
        whole = list(health_spots(name, node, policy.hot))
        # Where all go, nothing else is to be done
        found += whole or host_and_guest_spots(
            booked, name, uneasy.get(name, []), policy)
    return sorted(found, key=lambda spot: (not spot.hard, -spot.weight,
                                           -spot.now, spot.key))
