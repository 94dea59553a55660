# SPDX-License-Identifier: GPL-2.0-or-later
"""Which VM goes where for one hot spot, and what speaks against the others."""

import bisect
import heapq
import math
from dataclasses import dataclass, field
from typing import Iterator, Optional, Sequence

from wsm.plan import filters
from wsm.plan.booked import peaks_of
from wsm.plan.decision import Step, price
from wsm.plan.detect import Kind, Spot
from wsm.plan.fleet import Guest
from wsm.plan.inventory import Host
from wsm.plan.leaving import MEMORY, Cost, Leaving
from wsm.plan.policy import Limit

__all__ = ["MEMORY", "Cost", "Round", "rank"]
FALLBACK = 200                  # hosts that are tried for room, coolest first
ALIKE = 0.95                    # of what a move is worth: no difference


@dataclass
class Round(Leaving):
    """A round while it is made."""

    _coolest: Optional[list[tuple[float, str]]] = None
    _honest: dict[str, bool] = field(default_factory=dict)

    # Hosts

    def coolest(self) -> list[tuple[float, str]]:
        """Return (how full, host) of those that may take a VM, in order."""
        if self._coolest is None:
            self._coolest = heapq.nsmallest(FALLBACK, (
                (self.booked.fullest(name), name)
                for name in self.fleet.nodes if not self.is_closed(name)))
        return self._coolest

    def is_closed(self, name: str) -> str:
        """Return why a host takes nothing, whoever it is, "" if it does."""
        node, now = self.fleet.nodes[name], self.fleet.now
        if not self.fleet.is_known(name, self.policy.hot.stale):
            return (f"{name} was last heard of "
                    f"{now - node.load['cpu'].last:.0f} s ago")
        if now - node.joined < self.policy.calm.young:
            return (f"{name} joined {now - node.joined:.0f} s ago, it takes "
                    f"nothing before {self.policy.calm.young:.0f} s")
        return ""

    def is_honest(self, name: str) -> bool:
        """Whether a host says no less than its VMs use together."""
        if name not in self._honest:
            self._honest[name] = self.booked.is_honest(name)
        return self._honest[name]

    def unfit(self, wish: filters.Wish,
              there: Host) -> Iterator[tuple[str, str]]:
        """Yield (reason, words) why a VM may not run there."""
        host, vm = there.name, wish.use.name
        for each in filters.refusals(wish, there):
            yield each.filter, f"{vm} to {host}: {each.text}"
        for text in self.book.refusals(vm, there):
            yield "rule", f"{vm} to {host}: {text}"
        if (home := self.book.home(vm)) not in ("", host):
            yield "together", f"{vm} to {host}: 1 host, {home}, has the others"
        if not self.is_honest(host):
            yield "cannot be", f"{host} says less than its VMs use together"

    def fits(self, wish: filters.Wish, host: str) -> bool:
        """Return whether a VM may run there; count why not."""
        why = list(self.unfit(wish, self.booked.host(host)))
        for each in why:
            self.reasons.note(*each)
        return not why

    def limit(self, spot: Spot) -> float:
        """Return how full a host may get, as no worse off than the source."""
        relief = self.policy.relief
        if (spot.kind not in (Kind.HOST, Kind.SLA) or spot.sign
                or spot.resource in MEMORY or spot.now <= relief.busy):
            return relief.after
        unit = self.fleet.nodes[spot.host].capacity[spot.resource]
        peak = self.booked.peak(spot.host, spot.resource) / unit
        return max(relief.after, peak - relief.gap)

    def most(self, spot: Spot) -> float:
        """
        Return how full a host may get by one move.

        In need, up to where it would be hot itself: nobody lacks there yet.
        """
        if (spot.kind is not Kind.HOST or spot.sign or not spot.hard
                or spot.resource in MEMORY):
            return self.limit(spot)
        own: Limit = getattr(self.policy.hot.limits, spot.resource)
        return max(self.limit(spot), own.limit)

    def targets(self, guest: Guest, spot: Spot) -> Iterator[tuple[str, float]]:
        """
        Yield (host, how full it gets) of where a VM may go.

        The coolest, and those where an old image of it lies.
        """
        relief, limit = self.policy.relief, self.most(spot)
        peaks, left = peaks_of(guest), relief.coolest
        wish = self.booked.wish(guest)
        for full, host in self.coolest():
            if full >= limit or not left and not guest.copies:
                break
            if not left and host not in guest.copies:
                continue
            after = self.booked.fullest(host, peaks)
            if host != spot.host and self.is_cool(guest, host, after, limit) \
                    and self.fits(wish, host):
                left -= left > 0
                yield host, after

    def warm(self, guest: Guest, host: str, after: float,
             limit: float) -> Iterator[tuple[str, str]]:
        """Yield (reason, words) why a host would not stay cool enough."""
        relief, former = self.policy.relief, self.past.hosts(guest.use.name)
        if host in former or host in guest.copies:
            limit = relief.after
        ago = self.fleet.now - former.get(host, -math.inf)
        if after >= limit:
            yield too_full(guest, host, after, limit)
        if ago < relief.back:
            yield "was left lately", (
                f"{guest.use.name}: it has left {host} {ago:.0f} s ago, and "
                f"does not go back before {relief.back:.0f} s")

    def is_cool(self, guest: Guest, host: str, after: float,
                limit: float) -> bool:
        """Return whether a host stays cool enough; count if not."""
        why = next(self.warm(guest, host, after, limit), None)
        if why:
            self.reasons.note(*why)
        return not why

    # Choices

    def step(self, guest: Guest, to: str, spot: Spot, full: float,
             told: bool = True) -> Step:
        """Return the move of a VM, with what it is worth; in words if @told."""
        cost, name = self.cost(guest, to), guest.use.name
        relief = self.share(guest, spot)
        score = (relief * spot.weight * self.book.worth(
            name, self.booked.host(to)) / (
                5.0 + cost.seconds + 20.0 * cost.downtime
                + 0.2 * cost.post_seconds)) if cost.converges else 0.0
        why = (f"{name}: {spot.text()}; to {to}, which is then at "
               f"{full:.2f} at its peak; {price(cost)}") if told else ""
        goal = spot.seen or spot.now
        if spot.kind is Kind.HOST and not spot.sign \
                and spot.resource not in MEMORY:
            goal -= relief / 2
        return Step(name, guest.use.host, to, spot.key, spot.hard, cost, score,
                    why, goal, self.consent(guest, spot))

    def against(self, guest: Guest, step: Step) -> Iterator[tuple[str, str]]:
        """Yield (reason, words) why a move may not be: its promise, caps."""
        cost, vm = step.estimate, f"{step.vm} to {step.to}"
        most = guest.spec.sla.downtime_most
        if not cost.converges:
            yield "its memory would not converge", (
                f"{vm}: no end in {cost.rounds} rounds; it needs "
                f"{cost.needs_rate * 8 / 1e6:.0f} Mbit/s")
            return
        if cost.downtime > most:
            yield "would stop for too long", (
                f"{vm}: about {1000 * cost.downtime:.0f} ms, at most "
                f"{1000 * most:.0f} ms may be")
        if shut := self.is_shut(guest, cost.seconds):
            yield "does not fit its window", f"{vm}: {shut}"
        budget = self.policy.calm.bytes_a_day
        for host in (step.source, step.to) if budget else ():
            sent = self.past.sent_by(host, self.fleet.now)
            if sent + cost.bytes > budget:
                yield "the day's bytes are spent", (
                    f"{vm}: {host} moved {sent} bytes today, {cost.bytes} "
                    f"more are over {budget:.0f}")

    def worthless(self, step: Step) -> Optional[tuple[str, str]]:
        """Return (reason, words) why a move is not worth it."""
        least = self.policy.relief.min_score
        if step.score >= least:
            return None
        return "costs more than it helps", (
            f"{step.vm} to {step.to}: worth {step.score:.6f}, at least "
            f"{least:g} is asked for, in {step.estimate.seconds:.0f} s")

    def allowed(self, guest: Guest, step: Step, worth: bool = True) -> bool:
        """Return whether a move may be and is worth it; count why not."""
        why = next(self.against(guest, step), None)
        if not why and worth:
            why = self.worthless(step)
        if why:
            self.reasons.note(*why)
        return not why

    def best(self, spot: Spot, asking: bool = False) -> Optional[Step]:
        """Return the best single move for a hot spot."""
        found = [step for guest in self.movable(spot, asking)
                 for step in self.moves(guest, spot)]
        if not found:
            return None
        best = min(found, key=lambda step: (
            self.was_promised(step, spot),
            self.past.failures(step.vm, self.fleet.now), *rank(step)))
        # Where it is worth as much, the coolest: they were found in that order
        best = next(step for step in found if step.vm == best.vm
                    and step.score >= ALIKE * best.score)
        guest = self.fleet.guests[best.vm]
        return self.step(guest, best.to, spot, self.booked.fullest(
            best.to, peaks_of(guest)))

    def was_promised(self, step: Step, spot: Spot) -> bool:
        """
        Whether a VM was promised what its host is short of.

        It stays if another one may go: it is for it that the host must cool.
        """
        return (step.vm != spot.victim
                and spot.resource in self.fleet.guests[step.vm].promise)

    def moves(self, guest: Guest, spot: Spot) -> Iterator[Step]:
        """Yield the moves of a VM that may be."""
        for host, full in self.targets(guest, spot):
            step = self.step(guest, host, spot, full, False)
            if self.allowed(guest, step, spot.kind is not Kind.RULE):
                yield step

    def fly(self, steps: Sequence[Step]) -> None:
        """Count steps as if they had begun."""
        for step in steps:
            self.booked.fly(step.flight())
            if self._coolest is not None:
                self._coolest = [each for each in self._coolest
                                 if each[1] != step.to]
                bisect.insort(self._coolest, (self.booked.fullest(step.to),
                                              step.to))


def too_full(guest: Guest, host: str, after: float,
             limit: float) -> tuple[str, str]:
    """Return (reason, words) of a host that has no room for a VM's peak."""
    return "would be too full itself", (
        f"{host} would be {after:.2f} full at its peak with "
        f"{guest.use.name}, at most {limit:.2f} may be")


def rank(step: Step) -> tuple[float, str, str]:
    """Return what the best step has least of."""
    return -step.score, step.vm, step.to
