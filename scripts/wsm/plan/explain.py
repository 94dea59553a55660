# SPDX-License-Identifier: GPL-2.0-or-later
"""Why a VM is not moved to a host, in sentences with numbers."""

from typing import Iterator

from wsm.plan.booked import peaks_of
from wsm.plan.decision import Decision
from wsm.plan.detect import Spot, spots
from wsm.plan.weigh import Round


def spot_of(found: list[Spot], host: str) -> Spot | None:
    """Return the worst trouble of a host, None if there is none."""
    return next((spot for spot in found if spot.host == host), None)


def place(made: Round, vm: str, to: str, spot: Spot | None) -> Iterator[str]:
    """Yield what speaks against a host, whatever is wrong now."""
    guest = made.fleet.guests[vm]
    if shut := made.is_closed(to):
        yield shut
    for _, text in made.unfit(made.booked.wish(guest), made.booked.host(to)):
        yield text
    after = made.booked.fullest(to, peaks_of(guest))
    limit = made.most(spot) if spot else made.policy.relief.after
    for _, text in made.warm(guest, to, after, limit):
        yield text


def worth(made: Round, vm: str, to: str, spot: Spot) -> Iterator[str]:
    """Yield what speaks against the move itself."""
    guest = made.fleet.guests[vm]
    step = made.step(guest, to, spot, made.booked.fullest(to,
                                                          peaks_of(guest)))
    for _, text in made.against(guest, step):
        yield text
    if why := made.worthless(step):
        yield why[1]
    if step.ask:
        yield f"{vm}: a person must agree to 1 move: {step.ask}"


def obstacles(made: Round, vm: str, to: str,
              spot: Spot | None) -> Iterator[str]:
    """Yield what speaks against a VM on a host, be that asked for or not."""
    yield from (text for _, text in made.bound(made.fleet.guests[vm]))
    yield from place(made, vm, to, spot)


def trouble(made: Round, vm: str) -> Spot | None:
    """Return the worst trouble of the host of a VM, None if there is none."""
    return spot_of(spots(made.fleet, made.booked, made.policy, made.book),
                   made.fleet.guests[vm].use.host)


def why_not(made: Round, decision: Decision, vm: str, to: str) -> list[str]:
    """
    Return what speaks against moving a VM to a host now; never nothing.

    @decision is what was made of the same fleet.
    """
    guest, spot = made.fleet.guests[vm], trouble(made, vm)
    lines = list(obstacles(made, vm, to, spot))
    if spot is None:
        full = made.booked.fullest(guest.use.host)
        lines.append(f"{guest.use.host}, where {vm} is, lacks nothing: it is "
                     f"{full:.2f} full at its peak")
    else:
        lines += [text for _, text in made.held(guest, spot)
                  if text not in lines]
        lines += worth(made, vm, to, spot)
    for step in (*decision.steps, *decision.asked):
        if step.source == guest.use.host or step.to == to:
            lines.append(f"worth more ({step.score:.6f}): {step.why}"
                         if (step.vm, step.to) != (vm, to)
                         else f"it is what is done: {step.why}")
    return lines or [f"{vm} would fit on {to}, "
                     f"{made.booked.fullest(to):.2f} full at its peak, but "
                     f"0 moves were found for {spot.text() if spot else vm}"]
