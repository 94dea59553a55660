# SPDX-License-Identifier: GPL-2.0-or-later
"""How much of each link a move may use: weighted max-min fair shares.

A move crosses some links and gets the same on each of them.  Nobody can get
more but at the cost of somebody who has less for his weight.  Those with a
deadline come first, the earliest of them before the others, and get no more
than they need.
"""

import math
from dataclasses import dataclass
from typing import Iterable, Mapping, Sequence

from wsm.plan.fleet import Fleet, Flight
from wsm.plan.policy import Links

USEFUL = 2.5e9                  # bytes/s: no move goes faster
WAYS = (("tx", "source"), ("rx", "to"))


@dataclass(frozen=True)
class Wire:
    """A link; bytes/s."""

    speed: float
    taken: float = 0.0          # by others, or promised to them

    def room(self, links: Links) -> float:
        """Return what moves may use of it; never nothing, or none would end."""
        return max(links.least * self.speed, min(links.share * self.speed,
                                                 self.speed - self.taken))


@dataclass(frozen=True)
class Claim:
    """A move that wants some; bytes/s."""

    move: str
    wires: tuple[str, ...]
    weight: float = 1.0
    most: float = USEFUL        # that it can use
    due: float = math.inf       # when it must have ended,
    need: float = 0.0           # for which it needs so much


def share(rooms: Mapping[str, float],
          claims: Iterable[Claim]) -> dict[str, float]:
    """
    Return what each move may use, in bytes/s.

    A deadline leaves a tenth of each link to those who have none.
    """
    claims = sorted(claims, key=lambda each: (each.due, each.move))
    left, found = dict(rooms), dict[str, float]()
    gentle = {wire for each in claims if math.isinf(each.due)
              for wire in each.wires}
    for wire in gentle & set(left):
        left[wire] = 0.9 * rooms[wire]
    for each in claims:
        if math.isfinite(each.due):
            found[each.move] = min(each.most, each.need, *(
                left.get(wire, math.inf) for wire in each.wires))
            take(left, each, found[each.move])
    for wire in gentle & set(left):
        left[wire] += 0.1 * rooms[wire]
    return found | fill(left, [each for each in claims
                               if math.isinf(each.due)])


def take(left: dict[str, float], claim: Claim, rate: float) -> None:
    """Take a rate from the links of a move."""
    for wire in claim.wires:
        if wire in left:
            left[wire] = max(0.0, left[wire] - rate)


def fill(left: dict[str, float], claims: Sequence[Claim]) -> dict[str, float]:
    """Let all rise alike, by their weight, until each is stopped."""
    found = {each.move: 0.0 for each in claims}
    rising = list(claims)
    while rising:
        weights = {wire: math.fsum(each.weight for each in rising
                                   if wire in each.wires) for wire in left}
        level = min((left[wire] / weight for wire, weight in weights.items()
                     if weight), default=math.inf)
        level = min(level, *((each.most - found[each.move]) / each.weight
                             for each in rising))
        for each in rising:
            found[each.move] += level * each.weight
            take(left, each, level * each.weight)
        full = {wire for wire, weight in weights.items()
                if weight and left[wire] <= 1e-6 * weight}
        still = [each for each in rising if not full.intersection(each.wires)
                 and found[each.move] < each.most * (1 - 1e-9)]
        if len(still) == len(rising):       # rounding stops nobody
            break
        rising = still
    return found


def fits(wires: Mapping[str, Wire], claims: Sequence[Claim], new: Claim,
         links: Links) -> bool:
    """
    Return whether one more move may begin now, or must wait for its turn.

    It waits if it, or one that shares a link with it, would get less than a
    part of that link.  One that shares nothing never waits.
    """
    found = share({name: wire.room(links) for name, wire in wires.items()},
                  [*claims, new])
    beside = [each for each in claims
              if set(each.wires) & set(new.wires) & set(wires)]
    return not beside or all(
        found[each.move] >= (1 - 1e-9) * min(each.most, *(
            links.queue * wires[wire].speed for wire in each.wires
            if wire in wires)) for each in (*beside, new)
        if math.isinf(each.due))


def wires_of(fleet: Fleet, links: Links) -> dict[str, Wire]:
    """Return the links of hosts, in both directions, and those with names."""
    found = {}
    for name, node in fleet.nodes.items():
        guests = [fleet.guests[vm] for vm in sorted(node.guests)]
        for way, _ in WAYS:
            if node.capacity[way]:
                promised = math.fsum(max(
                    guest.load[way].now, guest.promise.get(way, 0.0))
                    for guest in guests)
                found[f"{way} {name}"] = Wire(node.capacity[way], max(
                    node.load[way].now, promised))
    return found | {name: Wire(link.mbit * 1e6 / 8)
                    for name, link in links.shared.items()}


def crossed(flight: Flight, links: Links) -> tuple[str, ...]:
    """Return the links that a move uses: a shared one if it goes through."""
    through = tuple(name for name, link in sorted(links.shared.items())
                    if (flight.source in link.hosts)
                    != (flight.to in link.hosts))
    return (f"tx {flight.source}", f"rx {flight.to}", *through)


def claim_of(flight: Flight, gold: bool, phase: str, links: Links,
             most: float = USEFUL) -> Claim:
    """Return what a move may claim: what heals, or is late, comes first."""
    weight = 1.0
    if phase == "postcopy":
        weight = links.postcopy
    elif gold and flight.spot.split(".")[0] in ("host", "sla"):
        weight = links.gold
    return Claim(flight.vm, crossed(flight, links), weight,
                 min(most or USEFUL, USEFUL))
