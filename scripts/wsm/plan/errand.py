# SPDX-License-Identifier: GPL-2.0-or-later
"""Moves that a person wants to have ended by a time, as gently as possible.

A move begins at the latest wise moment: as late as it may, so that it is decided
with what is known then, but early enough to be several times slower than its
link, and to be tried again.  Those that share a host have it one after the
other.  How fast it is then, pace.py says.
"""

import dataclasses
from dataclasses import dataclass
from typing import Iterable, Iterator, Mapping, Optional, Sequence

from wsm.plan import empty, filters, window
from wsm.plan.decision import Reasons, Step
from wsm.plan.detect import Kind, Spot
from wsm.plan.fleet import Errand, Fleet, Guest
from wsm.plan.policy import Deadline, Policy
from wsm.plan.weigh import Round

AGAIN = 60.0                    # s that a VM stays whose move has failed


def is_done(errand: Errand, fleet: Fleet) -> bool:
    """Whether a VM is where it is to be; not if nothing is known of it."""
    guest = fleet.guests.get(errand.vm)
    if guest is None:
        return False
    return (guest.use.host == errand.to if errand.to
            else guest.use.host != errand.away)


def latest(due: float, seconds: float, policy: Deadline) -> float:
    """Return when something that takes @seconds at full speed begins."""
    return due - max(policy.slack * seconds, seconds + policy.spare)


@dataclass(frozen=True)
class Turn:
    """What is done for an errand, and when."""

    errand: Errand
    spot: Spot
    at: float                   # when it begins, or is looked at again
    step: Optional[Step]        # None: it can go nowhere,
    reasons: Reasons            # for these


def spot_of(errand: Errand, guest: Guest, fleet: Fleet) -> Spot:
    """Return what a step is for."""
    by = window.name_of(fleet.local + errand.due - fleet.now)
    where = f"on {errand.to}" if errand.to else f"away from {errand.away}"
    return Spot(Kind.ERRAND, guest.use.host, "", 0.0, 0.0, 0, 0, False, 0.0,
                victim=errand.vm, words=(
                    f"{errand.vm} is to be {where} by {by}, "
                    f"{max(0.0, errand.due - fleet.now):.0f} s from now"))


def places(made: Round, errand: Errand, spot: Spot) -> list[str]:
    """Return the hosts to which a VM may go, the best first."""
    if not errand.to:
        return [host for _, host in made.coolest() if host != spot.host]
    if errand.to not in made.fleet.nodes:
        made.reasons.note("is not heard of", (
            f"nothing is known of host {errand.to}; 1 host is wanted"))
        return []
    if shut := made.is_closed(errand.to):
        made.reasons.note("is not heard of", shut)
        return []
    return [errand.to]


def best(made: Round, errand: Errand, guest: Guest,
         spot: Spot) -> Optional[Step]:
    """Return the best move for an errand; made.reasons: why there is none."""
    made.reasons = Reasons()
    found: list[Step] = []
    if bound := next(made.bound(guest), None):
        made.reasons.note(*bound)
        return None
    limit = 1.0 if errand.to else made.policy.drain.after
    for to in places(made, errand, spot):
        full = empty.fits(made, guest, to, limit)
        if full is None:
            continue
        step = made.step(guest, to, spot, full)
        if made.allowed(guest, step, False):
            found.append(dataclasses.replace(step, ask=""))
            if len(found) >= made.policy.relief.coolest:
                break
    # Of hosts that are about as full the one to which it is cheapest
    return min(found, key=lambda step: (
        int(10 * made.booked.fullest(step.to)), step.estimate.seconds,
        step.to)) if found else None


def turns(made: Round) -> list[Turn]:
    """
    Return what is done for each errand, those that begin first first.

    Reckoned from the last one back: who shares a host with a later one has
    ended before that begins.
    """
    found, ends = [], dict[str, float]()
    for errand in sorted(made.fleet.errands, reverse=True,
                         key=lambda each: (each.due, each.vm)):
        guest = made.fleet.guests.get(errand.vm)
        if (guest is None or is_done(errand, made.fleet)
                or errand.vm in made.booked.flying):
            continue
        spot = spot_of(errand, guest, made.fleet)
        step = best(made, errand, guest, spot)
        at = errand.due
        if step:
            both = (step.source, step.to)
            end = min(errand.due, *(ends.get(host, errand.due)
                                    for host in both))
            at = latest(end, step.estimate.seconds, made.policy.deadline)
            step = dataclasses.replace(step, due=end)
            ends.update(dict.fromkeys(both, at))
        found.append(Turn(errand, spot, at, step, made.reasons))
    return sorted(found, key=lambda turn: (turn.at, turn.errand.due,
                                           turn.errand.vm))


def is_free(made: Round, step: Step) -> bool:
    """Whether nothing else leaves its host, or comes to where it goes."""
    return (len(made.booked.leaving(step.source)) < filters.MAX_OUT
            and len(made.booked.coming(step.to)) < filters.MAX_IN)


def rests(made: Round, vm: str) -> bool:
    """Whether a VM's last move has failed just now."""
    failed = made.past.stayed.get(vm)
    return failed is not None and made.fleet.now - failed[-1] < AGAIN


def begin(made: Round, left: int) -> Iterator[Turn]:
    """Yield what begins now, at most @left, and what can go nowhere."""
    for turn in turns(made):
        if turn.step is None:
            yield turn
        elif (turn.at <= made.fleet.now and left > 0
              and not rests(made, turn.errand.vm)
              and is_free(made, turn.step)):
            made.fly([turn.step])
            left -= 1
            yield turn


# A host that must be empty by a time

def seconds_of(steps: Sequence[Step]) -> float:
    """Return how long moves take one after the other at full speed."""
    return sum(step.estimate.seconds for step in steps)


def paced(steps: Sequence[Step], whole: Sequence[Step], due: float,
          now: float) -> list[Step]:
    """Return steps with the part of the time that each has of the whole."""
    total = seconds_of(whole)
    if not 0 < total < float("inf"):
        return list(steps)
    return [dataclasses.replace(step, due=now + max(
        0.0, due - now) * min(1.0, step.estimate.seconds / total))
        for step in steps]


def is_time(whole: Sequence[Step], due: float, now: float,
            policy: Policy) -> bool:
    """Whether a host must be emptied from now on to be empty then."""
    return now >= latest(due, seconds_of(whole), policy.deadline)


def late(turn: Turn, now: float) -> float:
    """Return by how many seconds an errand will be late; 0: it is in time."""
    need = turn.step.estimate.seconds if turn.step else 0.0
    return max(0.0, now + need - turn.errand.due)


def told(found: Sequence[Turn], now: float) -> list[Mapping[str, object]]:
    """Return errands as JSON, with when each begins."""
    return [{"vm": turn.errand.vm, "to": turn.errand.to,
             "away": turn.errand.away, "due": turn.errand.due,
             "who": turn.errand.who, "begins": turn.at if turn.step else None,
             "late": late(turn, now),
             "text": turn.step.why if turn.step else turn.spot.text(),
             "against": sorted(turn.reasons.example.values())
             if turn.step is None else []} for turn in found]


def lines(found: Iterable[Turn]) -> Iterator[str]:
    """Yield errands in words, and what speaks against them."""
    for turn in found:
        yield turn.step.why if turn.step else (
            f"{turn.spot.text()}: no target: " + "; ".join(
                sorted(turn.reasons.example.values())))
