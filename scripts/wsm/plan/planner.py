# SPDX-License-Identifier: GPL-2.0-or-later
"""One round of decisions: what is too hot, and which VM goes where for it.

round() is all that a daemon, a dry run, a simulation and a test call.  It is
pure: the same fleet, policy and past give the same decision.

Where it differs from Sandpiper (Wood et al., NSDI 2007): what a move costs, with
its disks, is part of the choice; a destination is judged by its peak of the
last hour; one VM at a time leaves a hot host, and then it is looked at again.
"""

import bisect
import heapq
import math
from collections import Counter
from dataclasses import dataclass, field
from typing import Callable, Iterator, Mapping, Optional

from wsm.plan import filters
from wsm.plan.detect import Kind, Spot, spots
from wsm.plan.estimate import Estimate
from wsm.plan.fleet import Fleet, Flight, Guest
from wsm.plan.inventory import human
from wsm.plan.booked import Booked, peaks_of
from wsm.plan.past import Past
from wsm.plan.policy import Policy
from wsm.plan.spec import Mode

# What a move of a VM to a host costs now
Cost = Callable[[Guest, str], Estimate]
FALLBACK = 200                  # hosts that are tried for room, coolest first


@dataclass(frozen=True)
class Step:
    """A VM is to go there."""

    vm: str
    source: str
    to: str
    spot: str                   # key of the hot spot that it is for
    hard: bool
    estimate: Estimate
    score: float
    why: str                    # one sentence, with numbers


@dataclass(frozen=True)
class Nothing:
    """A hot spot for which nothing is done, and why."""

    spot: Spot
    reasons: Mapping[str, int]  # how many VMs and hosts each spoke against

    def text(self) -> str:
        """Say it."""
        why = ", ".join(f"{name} ({count})" for name, count in sorted(
            self.reasons.items(), key=lambda each: (-each[1], each[0])))
        return f"{self.spot.text()}: no target: {why or 'no VM there'}"


@dataclass(frozen=True)
class Decision:
    """What a round came to."""

    spots: tuple[Spot, ...] = ()
    steps: tuple[Step, ...] = ()
    nothing: tuple[Nothing, ...] = ()

    def text(self) -> str:
        """Say all of it."""
        lines = [step.why for step in self.steps]
        lines += [each.text() for each in self.nothing]
        return "\n".join(lines) or "no host is too hot, no VM lacks anything"


@dataclass
class Round:
    """A round while it is made."""

    fleet: Fleet
    policy: Policy
    past: Past
    cost: Cost
    booked: Booked
    reasons: Counter[str] = field(default_factory=Counter)
    _coolest: Optional[list[tuple[float, str]]] = None

    # VMs

    def share(self, guest: Guest, spot: Spot) -> float:
        """Return how much of the trouble would go with a VM, 0 to 1."""
        node = self.fleet.nodes[spot.host]
        if spot.resource == "swap":
            host = node.host
            lack = host.memory * host.reserve_memory - host.available
            return min(guest.use.touched,
                       max(lack, self.policy.relief.least * host.memory)
                       ) / host.memory
        load = guest.load[spot.resource].now
        if spot.kind is Kind.HOST:
            unit = node.capacity[spot.resource]
            return min(load, (spot.now - spot.release) * unit) / unit
        victim = self.fleet.guests[spot.victim]
        if guest is victim:
            return 1.0
        return min(1.0, load / max(victim.lacks[spot.resource].now, 1e-9))

    def refused(self, guest: Guest, spot: Spot) -> str:
        """Return why a VM is not to go, "" if it may."""
        name = guest.use.name
        if name in self.booked.flying:
            return "moves already"
        if guest.spec.placement.mode is not Mode.AUTO:
            return f"placement.mode is {guest.spec.placement.mode.value}"
        if self.past.is_cooling(name, self.fleet.now, spot.hard,
                                self.policy.calm):
            return "has moved lately"
        if self.share(guest, spot) < self.policy.relief.least:
            return "is too small to help"
        return ""

    def movable(self, spot: Spot) -> list[Guest]:
        """Return the VMs whose move may help, those that help most first."""
        found = []
        for name in self.fleet.nodes[spot.host].guests:
            guest = self.fleet.guests[name]
            if why := self.refused(guest, spot):
                self.reasons[why] += 1
            else:
                found.append(guest)
        return sorted(found, key=lambda guest: (-self.share(guest, spot),
                                                guest.use.name))

    # Hosts

    def coolest(self) -> list[tuple[float, str]]:
        """Return (how full, host) of those that may take a VM, in order."""
        if self._coolest is None:
            now, calm = self.fleet.now, self.policy.calm
            self._coolest = heapq.nsmallest(FALLBACK, (
                (self.booked.fullest(name), name)
                for name, node in self.fleet.nodes.items()
                if self.fleet.is_known(name, self.policy.hot.stale)
                and now - node.joined >= calm.young))
        return self._coolest

    def fits(self, wish: filters.Wish, host: str) -> bool:
        """Return whether a VM may run there; count why not."""
        why = filters.refusals(wish, self.booked.host(host))
        self.reasons.update(each.filter for each in why)
        return not why

    def limit(self, spot: Spot) -> float:
        """Return how full a host may get, as no worse off than the source."""
        relief = self.policy.relief
        if spot.resource == "swap" or spot.now <= relief.busy:
            return relief.after
        unit = self.fleet.nodes[spot.host].capacity[spot.resource]
        peak = self.booked.peak(spot.host, spot.resource) / unit
        return max(relief.after, peak - relief.gap)

    def targets(self, guest: Guest, spot: Spot) -> Iterator[tuple[str, float]]:
        """Yield (host, how full it gets) of where a VM may go."""
        relief, limit = self.policy.relief, self.limit(spot)
        former = self.past.hosts(guest.use.name)
        peaks, left = peaks_of(guest), relief.coolest
        wish = self.booked.wish(guest)
        for full, host in self.coolest():
            if not left or full >= limit:
                break
            after = self.booked.fullest(host, peaks)
            most = relief.after if host in former else limit
            if host == spot.host or after >= most:
                self.reasons["would be too full itself"] += host != spot.host
            elif self.fleet.now - former.get(host, -math.inf) < relief.back:
                self.reasons["was left lately"] += 1
            elif self.fits(wish, host):
                left -= 1
                yield host, after

    # Choices

    def step(self, guest: Guest, to: str, spot: Spot, full: float) -> Step:
        """Return the move of a VM, with what it is worth."""
        cost = self.cost(guest, to)
        relief = self.share(guest, spot)
        score = (relief * spot.weight
                 / (5.0 + cost.seconds + 20.0 * cost.downtime
                    + 0.2 * cost.post_seconds)) if cost.converges else 0.0
        why = (f"{guest.use.name}: {spot.text()}; to {to}, which is then at "
               f"{full:.2f} at its peak; {human(cost.bytes)}, about "
               f"{cost.seconds:.0f} s, pause about "
               f"{cost.downtime * 1000:.0f} ms")
        return Step(guest.use.name, spot.host, to, spot.key, spot.hard, cost,
                    score, why)

    def allowed(self, guest: Guest, step: Step) -> bool:
        """Return whether a move is worth it, and keeps the VM's promise."""
        if not step.estimate.converges:
            self.reasons["its memory would not converge"] += 1
        elif step.estimate.downtime > guest.spec.sla.downtime_most:
            self.reasons["would stop for too long"] += 1
        elif step.score < self.policy.relief.min_score:
            self.reasons["costs more than it helps"] += 1
        else:
            return True
        return False

    def best(self, spot: Spot) -> Optional[Step]:
        """Return the best single move for a hot spot."""
        best: Optional[Step] = None
        for guest in self.movable(spot):
            for host, full in self.targets(guest, spot):
                step = self.step(guest, host, spot, full)
                if self.allowed(guest, step) and (
                        best is None or (-step.score, step.vm, step.to)
                        < (-best.score, best.vm, best.to)):
                    best = step
        return best

    def fly(self, step: Step) -> None:
        """Count a step as if it had begun."""
        self.booked.fly(Flight(step.vm, step.source, step.to, step.spot,
                              step.hard))
        if self._coolest is not None:
            self._coolest = [each for each in self._coolest
                             if each[1] != step.to]
            bisect.insort(self._coolest, (self.booked.fullest(step.to),
                                          step.to))


def room(fleet: Fleet, past: Past, policy: Policy) -> int:
    """Return how many moves may begin now."""
    calm, count = policy.calm, len(fleet.guests)
    flying = max(calm.at_once, int(calm.flying * count))
    hour = max(calm.at_once, int(calm.share * count))
    return max(0, min(flying - len(fleet.flights),
                      hour - past.began_since(fleet.now - 3600.0)))


def decide(fleet: Fleet, policy: Policy, past: Past, cost: Cost) -> Decision:
    """
    Return what is to be done now.

    @cost tells what a move would cost; it must not depend on chance.  The
    fleet and the past stay as they are: who carries it out tells both.
    """
    made = Round(fleet, policy, past, cost, Booked(fleet))
    found = spots(fleet, made.booked, policy)
    steps, nothing = [], []
    left = room(fleet, past, policy)
    for spot in found:
        if made.booked.leaving(spot.host) or past.is_quiet(
                spot.host, fleet.now, policy.relief.pause):
            continue
        made.reasons = Counter()
        step = made.best(spot) if left > 0 else None
        if step:
            steps.append(step)
            made.fly(step)
            left -= 1
        elif left > 0:
            nothing.append(Nothing(spot, dict(made.reasons)))
        else:
            nothing.append(Nothing(spot, {"as many moves as may be": 1}))
    return Decision(tuple(found), tuple(steps), tuple(nothing))
