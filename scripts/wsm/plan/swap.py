# SPDX-License-Identifier: GPL-2.0-or-later
"""Where no host has room for a VM: one that makes room for it first.

Smaller VMs leave a host, for the hot one or for a third, and then the VM has
its place there.  Only the first move begins; what follows is decided again
when it has ended, so nobody need remember a plan that may no longer be right.
"""

import dataclasses
import itertools
import math
from dataclasses import dataclass
from typing import Iterator, Optional, Sequence

from wsm.plan import filters
from wsm.plan.booked import peaks_of
from wsm.plan.decision import Step
from wsm.plan.detect import Kind, Spot
from wsm.plan.fleet import RESOURCES, Guest
from wsm.plan.weigh import MEMORY, Round

NEAR = 4                        # hosts, and VMs of each, that are looked at


@dataclass(frozen=True)
class Exchange:
    """Steps that follow one another; the last is that of the VM in need."""

    steps: tuple[Step, ...]
    score: float


def without(made: Round, host: str, gone: Sequence[Guest],
            guest: Guest) -> float:
    """Return how full a host is at its peak with one VM for others."""
    unit = made.fleet.nodes[host].capacity
    peaks = [list(each) for each in zip(made.booked.peaks(host),
                                        peaks_of(guest),
                                        *(peaks_of(one) for one in gone))]
    return max(float(here + plus - math.fsum(less)) / (unit[name] or math.inf)
               for name, (here, plus, *less) in zip(RESOURCES, peaks))


def has_place(made: Round, guest: Guest, host: str,
              gone: Sequence[Guest]) -> bool:
    """Return whether a VM may run on a host when others have left it."""
    there = made.booked.host(host)
    there = dataclasses.replace(
        there, demand=there.demand - sum(one.load["cpu"].now for one in gone),
        available=there.available + sum(one.use.memory for one in gone))
    names = {one.use.name for one in gone}
    return (not filters.refusals(made.booked.wish(guest), there)
            and not list(made.book.refusals(guest.use.name, there, names))
            and made.book.home(guest.use.name) in ("", host)
            and made.is_honest(host))


def candidates(made: Round, spot: Spot, guest: Guest
               ) -> Iterator[tuple[str, tuple[Guest, ...]]]:
    """Yield (host, VMs that would leave it for @guest)."""
    hosts = [host for _, host in made.coolest() if host != spot.host
             and not made.booked.leaving(host)
             and not made.booked.coming(host)]
    least = made.policy.relief.least
    for host in hosts[:NEAR]:
        small = [one for name in sorted(made.fleet.nodes[host].guests)
                 if not next(made.bound(one := made.fleet.guests[name]), None)
                 and not made.consent(one, spot)
                 and len(made.book.group(name)) == 1
                 and not made.past.is_cooling(name, made.fleet.now, False,
                                              made.policy.calm)
                 and (weight(made, one, spot) < weight(made, guest, spot)
                      - least)]
        small.sort(key=lambda one: (-weight(made, one, spot), one.use.name))
        yield from ((host, (one,)) for one in small[:NEAR])
        yield from ((host, two) for two in itertools.combinations(
            small[:NEAR], 2))


def weight(made: Round, guest: Guest, spot: Spot) -> float:
    """Return what part of the hot host's scarce resource a VM has."""
    node = made.fleet.nodes[spot.host]
    if spot.resource in MEMORY:
        return guest.use.touched / node.host.memory
    return guest.load[spot.resource].now / (node.capacity[spot.resource]
                                            or math.inf)


def aside(made: Round, one: Guest, to: str, limit: float) -> bool:
    """Return whether a small VM may go to a third host."""
    after = made.booked.fullest(to, peaks_of(one))
    return (made.is_cool(one, to, after, limit)
            and made.fits(made.booked.wish(one), to))


def across(made: Round, one: Guest, to: str) -> bool:
    """
    Return whether a small VM may go to the hot host.

    That has no time for it until the large one has left, but must have room.
    """
    there, wish = made.booked.host(to), made.booked.wish(one)
    return (made.is_cool(one, to, 0.0, 1.0) and one.use.vcpus <= there.cores
            and not filters.refusals(wish, there, frozenset(["cores"]))
            and not list(made.book.refusals(one.use.name, there)))


def away(made: Round, one: Guest, host: str, spot: Spot,
         large: Guest) -> Optional[Step]:
    """Return the move that takes a small VM out of the way of a large one."""
    trouble = dataclasses.replace(
        spot, kind=Kind.HOST, host=host, victim="", sign="", words=(
            f"makes room on {host} for {large.use.name}, as {spot.text()}"))
    places = [to for _, to in made.coolest()[:made.policy.relief.coolest]
              if to not in (host, spot.host)
              and aside(made, one, to, made.limit(spot))]
    if not places and across(made, one, spot.host):
        places.append(spot.host)
    for to in places:
        full = (without(made, to, [large], one) if to == spot.host
                else made.booked.fullest(to, peaks_of(one)))
        step = made.step(one, to, trouble, full)
        if made.allowed(one, step, False):
            return dataclasses.replace(step, spot=spot.key, hard=False,
                                       goal=math.inf)
    return None


def exchange(made: Round, spot: Spot, guest: Guest, host: str,
             gone: Sequence[Guest]) -> Optional[Exchange]:
    """Return what it takes to put a VM in place of others, if that helps."""
    after = without(made, host, gone, guest)
    limit = made.limit(spot)
    if not made.is_cool(guest, host, after, limit) or not has_place(made, guest, host, gone):
        return None
    last = made.step(guest, host, spot, after)
    if not made.allowed(guest, last, False):
        return None
    steps, back = [], 0.0
    for one in gone:
        step = away(made, one, host, spot, guest)
        if step is None:
            return None
        back += weight(made, one, spot) * (step.to == spot.host)
        steps.append(step)
    relief = made.share(guest, spot) - back
    seconds = sum(step.estimate.seconds + 20.0 * step.estimate.downtime
                  for step in (*steps, last))
    score = relief * spot.weight / (5.0 + seconds)
    policy = made.policy.relief
    if relief < policy.swap_least or score < policy.min_score:
        return None
    last = dataclasses.replace(last, after=tuple(step.vm for step in steps))
    return Exchange((*steps, last), score)


def tries(made: Round, spot: Spot
          ) -> Iterator[tuple[Guest, str, tuple[Guest, ...]]]:
    """Yield what may be tried: a VM, a host, and who would make room there."""
    for guest in made.movable(spot, False):
        for host, gone in candidates(made, spot, guest):
            yield guest, host, gone


def best(made: Round, spot: Spot) -> Optional[Exchange]:
    """Return the best exchange for a hot spot for which no move was found."""
    found = [one for guest, host, gone in itertools.islice(
        tries(made, spot), made.policy.relief.swaps)
             if (one := exchange(made, spot, guest, host, gone))]
    return min(found, key=order) if found else None


def order(one: Exchange) -> tuple[float, list[tuple[str, str]]]:
    """Return what the best exchange has least of."""
    return -one.score, [(step.vm, step.to) for step in one.steps]
