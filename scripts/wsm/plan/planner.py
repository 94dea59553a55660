# SPDX-License-Identifier: GPL-2.0-or-later
"""One round of decisions: what is too hot, and which VM goes where for it.

decide() is all that a daemon, a dry run, a simulation and a test call.  It is
pure: the same fleet, policy and past give the same decision.

Where it differs from Sandpiper (Wood et al., NSDI 2007): what a move costs, with
its disks, is part of the choice; a destination is judged by its peak of the
last hour; one VM at a time leaves a hot host, and then it is looked at again.
"""

import dataclasses
from dataclasses import dataclass, field
from typing import Optional, Sequence

from wsm.plan import balance, empty, errand, fuse, swap
from wsm.plan.booked import Booked
from wsm.plan.decision import Decision, Nothing, Reasons, Step
from wsm.plan.detect import Kind, Spot, misplaced, spots
from wsm.plan.fleet import Fleet
from wsm.plan.inventory import Host, HostState
from wsm.plan.past import Past
from wsm.plan.policy import Policy
from wsm.plan.ruling import Book
from wsm.plan.weigh import Cost, Round

__all__ = ["Cost", "Decision", "Nothing", "Step", "decide", "outlook"]
EMPTY = (Kind.DRAIN, Kind.HEALTH)
ASKED_FOR = (Kind.DRAIN.value, Kind.ERRAND.value)


@dataclass
class Made:
    """What a round has come to so far."""

    flying: int                 # moves that may begin in all,
    hour: int                   # and for relief
    steps: list[Step] = field(default_factory=list)
    later: list[Step] = field(default_factory=list)
    nothing: list[Nothing] = field(default_factory=list)

    def begin(self, steps: Sequence[Step], later: Sequence[Step],
              hour: bool = True) -> None:
        """Steps are taken."""
        self.steps += steps
        self.later += later
        self.flying -= len(steps)
        self.hour -= len(steps) * hour

    def leave(self, spot: Spot, reasons: Reasons) -> None:
        """Nothing is done for a spot."""
        self.nothing.append(Nothing(spot, reasons.count, reasons.example))

    def full(self, spot: Spot) -> None:
        """Nothing is done for a spot, as there are too many moves."""
        reasons = Reasons()
        reasons.note("as many moves as may be", (
            f"{self.flying} more may begin now, {self.hour} in this hour"))
        self.leave(spot, reasons)


def room(fleet: Fleet, past: Past, policy: Policy) -> Made:
    """Return how many moves may begin now."""
    calm, count = policy.calm, len(fleet.guests)
    flying = max(calm.at_once, int(calm.flying * count))
    hour = max(calm.at_once, int(calm.share * count))
    return Made(max(0, flying - len(fleet.flights)),
                max(0, hour - past.began_since(fleet.now - 3600.0)))


def is_waiting(made: Round, spot: Spot) -> bool:
    """Whether something is done for a spot already, or was just now."""
    if spot.kind is Kind.RULE:
        return (spot.victim in made.booked.flying
                or not misplaced(made.fleet, made.book, spot.victim))
    return (bool(made.booked.leaving(spot.host))
            or any(each.spot == spot.key for each
                   in made.fleet.flights.values())
            or made.past.is_quiet(spot.host, made.fleet.now,
                                  made.policy.relief.pause))


def relieve(made: Round, spot: Spot) -> tuple[Sequence[Step], Sequence[Step]]:
    """Return the step for a hot spot that begins, and what follows it."""
    made.reasons = Reasons()
    step: Optional[Step] = made.best(spot)
    if step:
        return [step], []
    # In a fleet that is just busy, swaps move much and help nobody
    if spot.kind in (Kind.HOST, Kind.SLA) and spot.hard:
        told, made.reasons = made.reasons, Reasons()
        found = swap.best(made, spot)
        made.reasons = told
        if found:
            return found.steps[:1], found.steps[1:]
    asked = made.best(spot, True) if "placement.mode is ask" in \
        made.reasons.count or "breaker" in made.reasons.count else None
    return ([asked] if asked else []), []


def clear(made: Round, spot: Spot, so_far: Made) -> None:
    """Go on with emptying a host."""
    if not made.fleet.is_known(spot.host, made.policy.hot.stale):
        reasons = Reasons()
        reasons.note("is not heard of", made.is_closed(spot.host))
        so_far.leave(spot, reasons)
        return
    whole = empty.plan(made, spot)
    steps, later = empty.begin(made, spot, whole, so_far.flying)
    if due := made.fleet.dues.get(spot.host):
        steps = errand.paced(steps, whole.steps, due, made.fleet.now)
    so_far.begin(steps, later, hour=False)
    for vm, reasons in sorted(whole.stay.items()):
        so_far.leave(dataclasses.replace(spot, victim=vm, words=(
            f"{spot.text()}, {vm} among them")), reasons)


def handle(made: Round, spot: Spot, so_far: Made) -> None:
    """Do what can be done for one spot."""
    if spot.kind in EMPTY:
        clear(made, spot, so_far)
    elif is_waiting(made, spot):
        return
    elif min(so_far.flying, so_far.hour) <= 0:
        so_far.full(spot)
    elif (left := made.past.refusing(spot.host) - made.fleet.now) > 0:
        reasons = Reasons()
        reasons.note("moves from there have failed lately", (
            f"{spot.host}: {len(made.past.refused[spot.host])} have failed, "
            f"another may begin in {left:.0f} s"))
        so_far.leave(spot, reasons)
    else:
        steps, later = relieve(made, spot)
        if steps:
            made.fly(steps)
            so_far.begin(steps, later)
        else:
            so_far.leave(spot, made.reasons)


def turn(made: Round, found: Sequence[Spot]) -> Sequence[Spot]:
    """
    Return the hot spots that are looked at in this round.

    Of very many the worst, and some of the others in turns.
    """
    most = max(2, made.policy.relief.spots)
    if len(found) <= most:
        return found
    first, rest = list(found[:most // 2]), list(found[most // 2:])
    size = most - len(first)
    begin = int(made.fleet.now / made.fleet.interval) * size % len(rest)
    return first + (rest[begin:] + rest[:begin])[:size]


def settle(made: Round, found: Sequence[Spot], so_far: Made) -> Decision:
    """Return the decision; what a person must agree to is kept apart."""
    shut = fuse.of_all(made.past, made.fleet.now, made.policy)
    steps = [dataclasses.replace(step, ask=step.ask or shut)
             if step.reason not in ASKED_FOR else step
             for step in so_far.steps]
    return Decision(
        tuple(found), tuple(step for step in steps if not step.ask),
        tuple(so_far.nothing), tuple(step for step in steps if step.ask),
        tuple(so_far.later), tuple(fuse.open_ones(
            made.past, made.fleet.now, made.policy)),
        calm_text(made))


def calm_text(made: Round) -> str:
    """Say why there is nothing to do, with numbers."""
    full = [made.booked.fullest(name) for name in made.fleet.nodes
            if made.fleet.is_known(name, made.policy.hot.stale)]
    if not full:
        return f"no host is heard of: {len(made.fleet.nodes)} are known"
    return (f"no host is too hot, no VM lacks anything: the peaks of "
            f"{len(full)} hosts are {min(full):.2f} to {max(full):.2f}, a "
            f"spread of {100 * (max(full) - min(full)):.0f} points is within "
            "policy")


def a_round(fleet: Fleet, policy: Policy, past: Past, cost: Cost) -> Round:
    """Return a round in which nothing is decided yet."""
    booked = Booked(fleet)
    return Round(fleet, policy, past, cost, booked,
                 Book(fleet.rules, lambda name: fleet.nodes[name].host,
                      booked.where))


def decide(fleet: Fleet, policy: Policy, past: Past, cost: Cost) -> Decision:
    """
    Return what is to be done now.

    @cost tells what a move would cost; it must not depend on chance.  The
    fleet and the past stay as they are: who carries it out tells both.
    """
    made = a_round(fleet, policy, past, cost)
    found = spots(fleet, made.booked, policy, made.book)
    so_far = room(fleet, past, policy)
    for each in errand.begin(made, so_far.flying):
        if each.step:
            so_far.begin([each.step], [], hour=False)
        else:
            so_far.leave(each.spot, each.reasons)
    for spot in turn(made, found):
        handle(made, spot, so_far)
    if not found and policy.balance.on:
        step = balance.even(made)
        if step and min(so_far.flying, so_far.hour) > 0:
            made.fly([step])
            so_far.begin([step], [])
    if not found and policy.pack.on and not so_far.steps:
        so_far.begin(*balance.pack(made, so_far.flying), hour=False)
    return settle(made, found, so_far)


def outlook(fleet: Fleet, policy: Policy, past: Past, cost: Cost,
            host: str) -> empty.Emptying:
    """Return what emptying a host would be; nobody has asked for it yet."""
    node = fleet.nodes[host]
    there: Host = dataclasses.replace(node.host, state=HostState.DRAINING)
    fleet = dataclasses.replace(fleet, nodes={
        **fleet.nodes, host: dataclasses.replace(node, host=there)})
    return empty.plan(a_round(fleet, policy, past, cost), Spot(
        Kind.DRAIN, host, "", 0.0, 0.0, 0, 0, False, 0.0, words=(
            f"{host} is to be emptied of its {len(node.guests)} VMs")))
