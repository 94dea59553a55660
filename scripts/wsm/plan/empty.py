# SPDX-License-Identifier: GPL-2.0-or-later
"""How a host is emptied: because it is asked for, fails, or is hardly used.

All its VMs are placed, the largest first; what has no place goes to the front
and all is placed anew.  Then they move, the shortest first.  Each round makes
the plan again, so that it is right for what has happened meanwhile.
"""

import dataclasses
import math
from dataclasses import dataclass
from typing import Mapping, Optional, Sequence

from wsm.plan import filters
from wsm.plan.booked import peaks_of
from wsm.plan.decision import Reasons, Step
from wsm.plan.detect import Kind, Spot
from wsm.plan.fleet import Guest
from wsm.plan.weigh import Round, too_full

Bundle = list[Guest]                    # VMs that stay together
SEQUENTIAL = frozenset(["state"])       # one after the other they may come


@dataclass(frozen=True)
class Emptying:
    """Where the VMs of a host go, in the order of their moves."""

    steps: tuple[Step, ...]
    stay: Mapping[str, Reasons]         # VM: why it has no place


def bundles(made: Round, host: str, stay: dict[str, Reasons]) -> list[Bundle]:
    """Return the VMs that are to leave, the largest first."""
    found, seen = [], set(made.booked.flying)
    for name in sorted(made.fleet.nodes[host].guests - seen):
        group = [made.fleet.guests[each] for each in made.book.group(name)
                 if made.fleet.guests[each].use.host == host
                 and each not in seen]
        seen.update(each.use.name for each in group)
        bound = [why for each in group for why in made.bound(each)]
        for each in group if bound else ():
            stay[each.use.name] = Reasons()
            stay[each.use.name].note(*bound[0])
        if group and not bound:
            found.append(group)
    return sorted(found, key=lambda group: (
        -sum(each.use.memory for each in group), group[0].use.name))


def fits(made: Round, guest: Guest, to: str, limit: float) -> Optional[float]:
    """Return how full a host gets, None if a VM has no place there."""
    full = made.booked.fullest(to, peaks_of(guest))
    if full >= limit:
        made.reasons.note(*too_full(guest, to, full, limit))
        return None
    there = dataclasses.replace(made.booked.host(to), moves_in=0)
    why = list(made.unfit(made.booked.wish(guest), there))
    for each in why:
        made.reasons.note(*each)
    return None if why else full


def put(made: Round, bundle: Bundle, to: str, spot: Spot,
        limit: float) -> list[Step]:
    """Place a bundle on a host and count it; [] if it has no place there."""
    steps: list[Step] = []
    for guest in bundle:
        full = fits(made, guest, to, limit)
        step = None if full is None else made.step(guest, to, spot, full)
        if step is None or not made.allowed(guest, step, False):
            take_back(made, steps)
            return []
        if spot.kind is Kind.DRAIN:     # a person has asked for it
            step = dataclasses.replace(step, ask="")
        made.booked.fly(step.flight())
        steps.append(step)
    return steps


def take_back(made: Round, steps: Sequence[Step]) -> None:
    """Count steps no more."""
    for step in reversed(steps):
        made.booked.land(step.flight())


def place(made: Round, bundle: Bundle, spot: Spot, limit: float,
          hosts: Sequence[str]) -> list[Step]:
    """Place a bundle at the best of @hosts and count it; [] if there is none."""
    best: tuple[tuple[float, float, str], str] | None = None
    found = 0
    for to in hosts:
        steps = put(made, bundle, to, spot, limit)
        if not steps:
            continue
        take_back(made, steps)
        # Of hosts that are about as full the one to which it is cheapest
        full = 0.0 if spot.kind is Kind.PACK else made.booked.fullest(to)
        key = (int(10 * full) if spot.kind is not Kind.PACK else found,
               sum(step.estimate.seconds for step in steps), to)
        best = min(best or (key, to), (key, to))
        found += 1
        if found >= made.policy.relief.coolest:
            break
    return put(made, bundle, best[1], spot, limit) if best else []


def targets(made: Round, spot: Spot) -> list[str]:
    """Return the hosts that take VMs, the best first."""
    found = [host for _, host in made.coolest() if host != spot.host]
    if spot.kind is Kind.PACK:
        found = [host for host in reversed(found)
                 if made.fleet.nodes[host].guests]
    return found


def attempt(made: Round, order: Sequence[Bundle], spot: Spot, limit: float,
            hosts: Sequence[str]) -> tuple[list[list[Step]], Optional[int]]:
    """Return the steps of each bundle, and the first that has no place."""
    placed, bad = [], None
    for number, bundle in enumerate(order):
        made.reasons = Reasons()
        steps = place(made, bundle, spot, limit, hosts)
        if steps:
            placed.append(steps)
        elif bad is None:
            bad = number
    for steps in reversed(placed):
        take_back(made, steps)
    return placed, bad


def urgency(made: Round, spot: Spot, steps: Sequence[Step]
            ) -> tuple[bool, bool, float, float, str]:
    """Return what the bundle that goes first has least of."""
    first = steps[0].vm
    split = len(made.book.group(first)) > len(steps)
    weight = max(getattr(made.policy.relief.weights,
                         made.fleet.guests[step.vm].spec.sla.class_)
                 for step in steps)
    return (any(step.ask for step in steps), not split,
            -weight * (spot.kind is Kind.HEALTH),
            math.fsum(step.estimate.seconds for step in steps), first)


def limit_of(made: Round, spot: Spot) -> float:
    """Return how full a host may become."""
    return {Kind.HEALTH: 1.0, Kind.PACK: made.policy.relief.after}.get(
        spot.kind, made.policy.drain.after)


def plan(made: Round, spot: Spot) -> Emptying:
    """Return where the VMs of a host go; nothing is counted by it."""
    stay: dict[str, Reasons] = {}
    best: list[list[Step]]
    order, limit = bundles(made, spot.host, stay), limit_of(made, spot)
    hosts, best, most = targets(made, spot), [], -1
    for _ in range(max(1, made.policy.drain.tries)):
        placed, bad = attempt(made, order, spot, limit, hosts)
        count = sum(map(len, placed))
        if count > most:
            best, most = placed, count
        if not bad:             # all have a place, or the first has none
            break
        order.insert(0, order.pop(bad))
    going = {step.vm for steps in best for step in steps}
    for bundle in order:
        for guest in bundle:
            if guest.use.name not in going:
                made.reasons = Reasons()
                for to in hosts:
                    fits(made, guest, to, limit)
                stay[guest.use.name] = made.reasons
    ordered = sorted(best, key=lambda steps: urgency(made, spot, steps))
    return Emptying(tuple(step for steps in ordered for step in steps), stay)


def ways_out(made: Round, spot: Spot) -> int:
    """Return how many VMs may leave a host at once."""
    fast = made.fleet.nodes[spot.host].host.mbit > made.policy.drain.fast
    return (1 + fast) * (2 if spot.kind is Kind.HEALTH else 1)


def ways_in(spot: Spot) -> int:
    """Return how many VMs may come to a host at once."""
    return filters.MAX_IN * (2 if spot.kind is Kind.HEALTH else 1)


def begin(made: Round, spot: Spot, whole: Emptying,
          left: int) -> tuple[list[Step], list[Step]]:
    """Return the steps that may begin now, and those that come later."""
    now: list[Step] = []
    later: list[Step] = []
    free = min(left, ways_out(made, spot) - len(made.booked.leaving(
        spot.host)))
    for step in whole.steps:
        if (len(now) < free and len(made.booked.coming(step.to))
                < ways_in(spot)
                and made.past.staying(step.vm) <= made.fleet.now):
            now.append(step)
            made.fly([step])
        else:
            later.append(dataclasses.replace(
                step, after=tuple(each.vm for each in now)))
    return now, later
