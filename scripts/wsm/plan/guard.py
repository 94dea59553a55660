# SPDX-License-Identifier: GPL-2.0-or-later
"""Hold a running move back while it takes what a VM was promised.

One decision each second, from what was seen in it.  Nothing here looks at a
clock or at a host, so that each case can be tested.
"""

import enum
import math
from dataclasses import dataclass, replace
from typing import Optional, Sequence

from wsm.plan.promise import Breach


@dataclass(frozen=True)
class Hold:
    """How a move is held back; rates in bytes/s, times in s."""

    bad: int = 3                # breaches
    of: int = 5                 # in so many seconds
    calm: float = 3.0           # after a change nothing is changed
    healthy: float = 5.0        # without a breach: faster
    up: float = 0.10            # by so much of the grant,
    below: float = 0.85         # up to so much of the rate that did harm,
    probe: float = 120.0        # until it was so long ago
    low: float = 262144.0       # in disk-precopy
    disk: float = 4194304.0     # where disks were promised to be fast, at first
    steeply: float = 0.5        # of its rate it goes up then, until it hurts,
    gently: float = 0.25        # and after that; what is nearly too slow
    soon: float = 2.0           # so soon after a step is by that step
    ram: float = 1.3            # times the rate at which memory is written
    late: float = 0.25          # of the grant, in post-copy
    postpone: float = 600.0     # at the lowest rate in vain, then it is ended
    finish: float = 10.0        # memory that is sent so soon is sent
    waits: float = 2.0          # reads that wait so long are helped


class Act(enum.Enum):
    """What is to be done."""

    NOTHING = "nothing"
    RATE = "rate"
    CANCEL = "cancel"


@dataclass(frozen=True)
class Seen:
    """A second of a move; rates in bytes/s."""

    now: float                  # s, of a clock that never goes back
    phase: str
    grant: float                # the most that it may use
    dirty: float = 0.0          # memory that the guest writes
    left: float = 0.0           # bytes
    speed: float = math.inf     # what it uses now; its rate may be far above
    reads_wait: bool = False    # in post-copy
    breaches: Sequence[Breach] = ()
    room: float = math.inf      # what others leave of the link, as they are now
    near: bool = False          # somebody's disk is nearly too slow


@dataclass(frozen=True)
class Grip:
    """What the guard remembers of a move."""

    rate: float                 # bytes/s
    changed: float = -math.inf
    looks: tuple[bool, ...] = ()        # was there a breach; the last seconds
    well: Optional[float] = None        # since when there is none
    low: Optional[float] = None         # at the lowest rate in vain, since
    waits: Optional[float] = None       # reads wait, since
    harm: float = math.inf      # the rate that did harm last,
    harmed: float = -math.inf   # and when it did
    disk: bool = False          # it is for disks only that it is held
    why: str = ""               # the last change


def lowest(seen: Seen, policy: Hold) -> float:
    """Return the rate under which a phase must not be held."""
    low = policy.low
    if seen.phase == "ram-precopy":
        low = max(low, policy.ram * seen.dirty)
    elif seen.phase == "postcopy":
        low = max(low, policy.late * seen.grant)
    return min(low, seen.grant)


def helps(breach: Breach, phase: str) -> bool:
    """Return whether a slower move helps: memory is on no disk."""
    return breach.what != "io" or phase != "ram-precopy"


def remember(grip: Grip, seen: Seen, policy: Hold) -> Grip:
    """Return @grip with what was seen."""
    bad = any(helps(each, seen.phase) for each in seen.breaches)
    if grip.disk and seen.near and seen.now - grip.changed <= policy.soon:
        # The next step would be one too many
        grip = replace(grip, harm=grip.rate, harmed=seen.now)
    return replace(
        grip, looks=(*grip.looks, bad)[-policy.of:],
        well=None if bad or grip.disk and seen.near
        else seen.now if grip.well is None else grip.well,
        waits=None if not seen.reads_wait
        else seen.now if grip.waits is None else grip.waits)


def hold(grip: Grip, seen: Seen, policy: Hold) -> tuple[Grip, Act]:
    """Return what is remembered, and what is to be done now."""
    grip = remember(grip, seen, policy)
    if seen.phase in ("freeze", "completed", "none"):
        return grip, Act.NOTHING
    if grip.disk and seen.phase == "ram-precopy":
        return change(grip, seen, seen.grant, "no disk is read or written")
    low = lowest(seen, policy)
    if grip.waits is not None and seen.now - grip.waits >= policy.waits:
        return change(grip, seen, seen.grant, "the guest waits for its disk")
    if sum(grip.looks) >= policy.bad:
        return slower(grip, seen, low, policy)
    return well(replace(grip, low=None), seen, low, policy)


def well(grip: Grip, seen: Seen, low: float,
         policy: Hold) -> tuple[Grip, Act]:
    """Nobody suffers, or not for long."""
    if grip.rate > seen.grant or grip.rate < low:
        return change(grip, seen, min(max(grip.rate, low), seen.grant),
                      "another grant" if grip.rate > seen.grant
                      else "slower would never end")
    if grip.well is not None and seen.now - max(
            grip.well, grip.changed) >= policy.healthy:
        return faster(grip, seen, policy)
    return grip, Act.NOTHING


def faster(grip: Grip, seen: Seen, policy: Hold) -> tuple[Grip, Act]:
    """Nobody suffers.  What did harm a moment ago would do so again."""
    most = min(seen.grant, seen.room)
    if seen.now - grip.harmed < policy.probe:
        most = min(most, policy.below * grip.harm)
    step = policy.up * seen.grant
    if grip.disk:               # nobody knows what it can do
        step = min(step, grip.rate * (
            policy.steeply if math.isinf(grip.harm) else policy.gently))
    rate = min(most, grip.rate + step)
    return change(grip, seen, max(rate, grip.rate), "all is well")


def change(grip: Grip, seen: Seen, rate: float,
           why: str) -> tuple[Grip, Act]:
    """Return what is remembered after a change, if it is one."""
    if rate == grip.rate:
        return grip, Act.NOTHING
    return replace(grip, rate=rate, changed=seen.now, why=why, disk=(
        grip.disk and rate < seen.grant)), Act.RATE


def slower(grip: Grip, seen: Seen, low: float,
           policy: Hold) -> tuple[Grip, Act]:
    """Somebody suffers."""
    if seen.now - grip.changed < policy.calm:
        return grip, Act.NOTHING
    # With the last second well there is nobody to name
    why = "; ".join(map(str, seen.breaches[:3])) or "promises were broken"
    if grip.rate > low:
        rate = min(grip.rate, seen.grant, max(seen.speed, low))
        disk = all(each.what == "io" for each in seen.breaches) and (
            grip.disk or bool(seen.breaches) and grip.rate >= seen.grant)
        return change(replace(grip, low=None, harm=rate, harmed=seen.now,
                              disk=disk), seen, max(low, rate / 2), why)
    since = seen.now if grip.low is None else grip.low
    grip = replace(grip, low=since)
    if seen.phase == "ram-precopy":
        if seen.left <= policy.finish * seen.grant:
            return change(grip, seen, seen.grant, "the end is near")
        return replace(grip, why=why), Act.CANCEL
    if seen.phase != "postcopy" and seen.now - since >= policy.postpone:
        return replace(grip, why=why), Act.CANCEL
    return grip, Act.NOTHING
