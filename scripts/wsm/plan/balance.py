# SPDX-License-Identifier: GPL-2.0-or-later
"""Moves for which there is no need: rarely one that evens out, and packing.

Both are off unless policy.toml says so.  Loads that differ hurt nobody, and
each move costs its disks.
"""

import math
from typing import Optional

from wsm.plan import empty
from wsm.plan.booked import peaks_of
from wsm.plan.decision import Step
from wsm.plan.detect import Kind, Spot
from wsm.plan.weigh import Round


def lasting(made: Round, host: str, lowest: bool) -> float:
    """Return the CPU that a host used at least, or at most, for long."""
    recent = made.fleet.nodes[host].load["cpu"].lately(
        60.0 * made.policy.balance.minutes)
    unit = made.fleet.nodes[host].capacity["cpu"]
    return (min(recent) if lowest else max(recent)) / unit


def gap_spot(made: Round) -> Optional[tuple[Spot, str]]:
    """Return the fullest host as a spot and the emptiest, if they differ."""
    able = [name for name, node in made.fleet.nodes.items()
            if not made.is_closed(name) and node.load["cpu"].lately(
                60.0 * made.policy.balance.minutes) and node.capacity["cpu"] > 0.0]
    if len(able) < 2:
        return None
    high = max(able, key=lambda name: (lasting(made, name, True), name))
    low = min(able, key=lambda name: (lasting(made, name, False), name))
    gap = lasting(made, high, True) - lasting(made, low, False)
    if gap <= made.policy.balance.gap:
        return None
    return Spot(Kind.BALANCE, high, "cpu", gap, gap, 0, 0, False, 0.0, words=(
        f"{high} and {low} have differed by {gap:.2f} of their CPU for "
        f"{made.policy.balance.minutes} min")), low


def even(made: Round) -> Optional[Step]:
    """Return the move that evens out best for its cost, if one is worth it."""
    limit, found = made.policy.balance, gap_spot(made)
    if not found or len(made.fleet.flights) >= limit.flying:
        return None
    spot, low = found
    here, there = made.fleet.nodes[spot.host], made.fleet.nodes[low]
    steps: list[Step] = []
    for name in sorted(here.guests):
        guest = made.fleet.guests[name]
        load = guest.load["cpu"].now
        # Between the two the gap shrinks by what leaves and what comes
        left = abs(spot.now - load / here.capacity["cpu"]
                   - load / there.capacity["cpu"])
        full = made.booked.fullest(low, peaks_of(guest))
        if (next(made.held(guest, spot), None) or left > spot.now
                * (1 - limit.gain) or full >= made.booked.fullest(spot.host)):
            continue
        if made.is_cool(guest, low, full, made.policy.relief.after) \
                and made.fits(made.booked.wish(guest), low):
            step = made.step(guest, low, spot, full)
            if made.allowed(guest, step, False):
                steps.append(step)
    return min(steps, key=cheapest) if steps else None


def cheapest(step: Step) -> tuple[float, str]:
    """Return what the best step has least of."""
    return step.estimate.seconds, step.vm


def spare(made: Round) -> Optional[Spot]:
    """Return the host that could be switched off, as a spot."""
    limit, nodes = made.policy.pack, made.fleet.nodes
    now, used = made.fleet.now, sorted(
        name for name, node in nodes.items() if node.guests)
    busy = [each for each in made.fleet.flights.values()
            if each.spot.startswith("pack ")]
    waits = [trip for trip in made.past.latest("pack ")
             if now - trip.at < limit.pause]
    if any(made.is_closed(name) for name in used) or len(used) < 2 or busy:
        return None
    peak = math.fsum(made.booked.peak(name, "cpu") for name in used)
    sizes = sorted(nodes[name].capacity["cpu"] for name in used)
    room = (1 - limit.room) * math.fsum(sizes[:len(used) - limit.spare])
    host = min(used, key=lambda name: (made.booked.fullest(name), name))
    begun = {trip.source for trip in waits} & set(used)
    if peak > room or (waits and not begun):
        return None
    host = min(begun) if begun else host
    return Spot(Kind.PACK, host, "", 0.0, 0.0, 0, 0, False, 0.0, words=(
        f"{host} can be empty: all peaks are {peak:.1f} cores, the "
        f"{max(0, len(used) - limit.spare)} smallest of {len(used)} hosts have "
        f"room for {room:.1f}"))


def pack(made: Round, left: int) -> tuple[list[Step], list[Step]]:
    """Return the steps that empty a host, now and later."""
    spot = spare(made)
    if spot is None or left < 1:
        return [], []
    whole = empty.plan(made, spot)
    return ([], []) if whole.stay else empty.begin(made, spot, whole, left)
