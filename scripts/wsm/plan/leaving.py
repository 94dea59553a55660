# SPDX-License-Identifier: GPL-2.0-or-later
"""Which VMs of a hot host may leave it, and what keeps the others."""

from dataclasses import dataclass, field
from typing import Callable, Iterator

from wsm.plan import fuse, window
from wsm.plan.booked import Booked
from wsm.plan.decision import Reasons
from wsm.plan.detect import Kind, Spot
from wsm.plan.estimate import Estimate
from wsm.plan.fleet import Fleet, Guest
from wsm.plan.past import Past
from wsm.plan.policy import Policy
from wsm.plan.ruling import Book
from wsm.plan.spec import Mode

# What a move of a VM to a host costs now
Cost = Callable[[Guest, str], Estimate]
MEMORY = ("mem", "swap")        # what is scarce is no load


@dataclass
class Leaving:
    """What a round knows of VMs; see weigh.Round."""

    fleet: Fleet
    policy: Policy
    past: Past
    cost: Cost
    booked: Booked
    book: Book
    reasons: Reasons = field(default_factory=Reasons)
    _shut: dict[str, str] = field(default_factory=dict)     # host: fuse

    def share(self, guest: Guest, spot: Spot) -> float:
        """Return how much of the trouble would go with a VM, 0 to 1."""
        if (guest.use.name == spot.victim
                or spot.kind not in (Kind.HOST, Kind.SLA)):
            return 1.0
        node = self.fleet.nodes[spot.host]
        if spot.resource in MEMORY:
            host = node.host
            lack = host.memory * host.reserve_memory - host.available
            return min(guest.use.touched,
                       max(lack, self.policy.relief.least * host.memory)
                       ) / host.memory
        load = guest.load[spot.resource].now
        unit = node.capacity[spot.resource]
        if spot.kind is Kind.HOST:
            if spot.sign:
                return load / unit
            return min(load, (spot.now - spot.release) * unit) / unit
        victim = self.fleet.guests[spot.victim]
        if spot.sign == "wait":
            lack = spot.now * victim.load["cpu"].now
        elif spot.sign:
            lack = node.load[spot.resource].now
        else:
            lack = victim.lacks[spot.resource].now
        return min(1.0, load / max(lack, 1e-9))

    def is_shut(self, guest: Guest, seconds: float = 0.0) -> str:
        """Return which window of a VM is against a move in @seconds."""
        sla, at = guest.spec.sla, self.fleet.local + seconds
        if not (sla.move_window or sla.move_never):
            return ""
        told = f"it is {window.name_of(at)}"
        if seconds:
            told = f"the move would end {window.name_of(at)}"
        if sla.move_window and not window.is_in(sla.move_window, at):
            return f"{told}, its move_window is {sla.move_window}"
        if sla.move_never and window.is_in(sla.move_never, at):
            return f"{told}, its move_never is {sla.move_never}"
        return ""

    def bound(self, guest: Guest) -> Iterator[tuple[str, str]]:
        """Yield (reason, words) why a VM may not go anywhere."""
        name, mode = guest.use.name, guest.spec.placement.mode
        if name in self.booked.flying:
            yield "moves already", (f"{name} moves to "
                                    f"{self.booked.where(name)[-1]}")
        if guest.use.managed:
            yield "is managed by another", (f"{name} belongs to "
                                            f"{guest.use.managed}")
        if mode is Mode.NEVER:
            yield f"placement.mode is {mode.value}", (
                f"{name}: its placement.mode is {mode.value}")
        if shut := self.is_shut(guest):
            yield "outside its window", f"{name}: {shut}"

    def held(self, guest: Guest, spot: Spot) -> Iterator[tuple[str, str]]:
        """Yield (reason, words) why a VM is not to go for a hot spot."""
        yield from self.bound(guest)
        name, now, calm = guest.use.name, self.fleet.now, self.policy.calm
        if spot.kind is Kind.RULE:
            return
        if self.past.is_cooling(name, now, spot.hard, calm):
            left = self.past.cooling(name, now, calm) - now
            yield "has moved lately", f"{name} stays for {left:.0f} s more"
        if (left := self.past.staying(name) - now) > 0:
            yield "its move has failed lately", (
                f"{name} stays for {left:.0f} s more: "
                f"{len(self.past.stayed[name])} of its moves have failed")
        if len(group := self.book.group(name)) > 1:
            yield "moves only together", (
                f"{name} moves only with the {len(group) - 1} others of "
                + ", ".join(group))
        share, least = self.share(guest, spot), self.policy.relief.least
        if share < least:
            yield "is too small to help", (
                f"{name} has {share:.3f} of it, at least {least:g} must go")

    def consent(self, guest: Guest, spot: Spot) -> str:
        """Return why a person must agree to a move, "" if nobody need."""
        name, now = guest.use.name, self.fleet.now
        if guest.spec.placement.mode is Mode.ASK:
            return "placement.mode is ask"
        if spot.host not in self._shut:
            self._shut[spot.host] = fuse.of_host(self.past, spot.host, now,
                                                 self.policy)
        return (self._shut[spot.host] or fuse.of_vm(
            self.past, name, now, self.policy))

    def movable(self, spot: Spot, asking: bool) -> list[Guest]:
        """
        Return the VMs whose move may help, those that help most first.

        Those to which a person must agree if @asking, else the others.
        """
        found = []
        names = ([spot.victim] if spot.kind is Kind.RULE
                 else self.fleet.nodes[spot.host].guests)
        for name in sorted(names):
            guest = self.fleet.guests[name]
            why = next(self.held(guest, spot), None)
            consent = "" if why else self.consent(guest, spot)
            if consent and not asking:
                why = (consent.partition(":")[0], f"{name}: {consent}")
            if why:
                self.reasons.note(*why)
            elif bool(consent) == asking:
                found.append(guest)
        return sorted(found, key=lambda guest: (-self.share(guest, spot),
                                                guest.use.name))
