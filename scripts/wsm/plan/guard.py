# SPDX-License-Identifier: GPL-2.0-or-later
"""Hold a running move back while it takes what a VM was promised.

One decision each second, from what was seen in it.  Nothing here looks at a
clock or at a host, so that each case can be tested.
"""

import enum
import math
from collections import deque
from dataclasses import dataclass, field, replace
from typing import Deque, Mapping, Optional, Sequence

ENOUGH = 0.95               # of a promise is kept
FULL = 0.95                 # of a link: who gets less may want more
BEFORE = 30                 # s of readings that are kept
HAD_IT = 3600.0             # s in which a VM has shown what it can use
WORSE = 2.0                 # times as slow as before the move
SLOW_MS = 5.0               # and slower than this
REQUESTS = 10               # in a second, for a percentile that means something
ROOM = 0.9                  # of a link, for a move and those who were promised
LATELY = 30                 # readings that tell what a VM uses,
OFTEN = 0.9                 # and the part of them that must be under it
UNHEARD = 10.0              # s in which the other host says nothing


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
    ram: float = 1.3            # times the rate at which memory is written
    late: float = 0.25          # of the grant, in post-copy
    postpone: float = 600.0     # at the lowest rate in vain, then it is ended
    finish: float = 10.0        # memory that is sent so soon is sent
    waits: float = 2.0          # reads that wait so long are helped


@dataclass(frozen=True)
class Reading:
    """What a VM got in one second.  None: not known."""

    net: Mapping[str, float] = field(default_factory=dict)  # in, out: Mbit/s
    full: bool = False          # the link that the move uses
    wait: Optional[float] = None        # part of the time it wants to run
    cores: float = 0.0          # that it wants
    io_p95: Optional[float] = None      # ms
    requests: int = 0
    swap: Optional[float] = None        # KiB/s


@dataclass(frozen=True)
class Promise:
    """What a VM was promised; see spec.Sla."""

    net: Mapping[str, float] = field(default_factory=dict)
    wait: Optional[float] = None
    io_p95: Optional[float] = None
    swap: Optional[float] = None


@dataclass(frozen=True)
class Breach:
    """A promise that is not kept."""

    vm: str                     # or a host of whose VMs nothing is heard
    what: str                   # "net.in", "net.out", "cpu", "io", "swap"
    got: float                  # or "unheard": s
    limit: float

    def __str__(self) -> str:
        if self.what == "unheard":
            return (f"{self.vm} says nothing of its VMs for {self.got:.0f} s, "
                    f"longer than {self.limit:.0f} s")
        unit = {"net": "Mbit/s", "cpu": "of the time waits", "io": "ms",
                "swap": "KiB/s"}[self.what.split(".")[0]]
        return (f"{self.vm}: {self.what} {self.got:.3g} {unit}, promised "
                f"{self.limit:.3g}")


@dataclass
class Watch:
    """What is remembered of a VM, from before the move."""

    vm: str
    promise: Promise
    had: dict[str, float] = field(default_factory=dict)  # way: when it had it
    before: Deque[Reading] = field(
        default_factory=lambda: deque(maxlen=BEFORE))
    lately: Deque[Mapping[str, float]] = field(     # also during the move
        default_factory=lambda: deque(maxlen=LATELY))

    def uses(self, way: str) -> float:
        """Return the Mbit/s that it uses, but for a few seconds."""
        found = sorted(each.get(way, 0.0) for each in self.lately)
        return found[int(OFTEN * (len(found) - 1))] if found else 0.0

    def breaches(self, now: float, reading: Reading) -> list[Breach]:
        """Return the promises that @reading breaks."""
        self.lately.append(reading.net)
        return self._broken(now, reading)

    def _broken(self, now: float, reading: Reading) -> list[Breach]:
        found = self._net(now, reading)
        promise = self.promise
        if promise.wait is not None and reading.wait is not None and (
                reading.wait > promise.wait and reading.cores > 0.05):
            found.append(Breach(self.vm, "cpu", reading.wait, promise.wait))
        if promise.swap is not None and reading.swap is not None and (
                reading.swap > promise.swap):
            found.append(Breach(self.vm, "swap", reading.swap, promise.swap))
        limit = self._io_limit()
        if limit is not None and reading.io_p95 is not None and (
                reading.io_p95 > limit and reading.requests >= REQUESTS):
            found.append(Breach(self.vm, "io", reading.io_p95, limit))
        return found

    def _net(self, now: float, reading: Reading) -> list[Breach]:
        """Less than was promised, and it is the link's fault."""
        found = []
        for way, promised in sorted(self.promise.net.items()):
            got = reading.net.get(way)
            if got is None:
                continue
            if got >= ENOUGH * promised:
                self.had[way] = now
            elif reading.full and now - self.had.get(
                    way, -math.inf) <= HAD_IT:
                found.append(Breach(self.vm, f"net.{way}", got, promised))
        return found

    def _io_limit(self) -> Optional[float]:
        """Return the latency that is too high: promised, or by the past."""
        limits = [self.promise.io_p95] if self.promise.io_p95 else []
        known = sorted(each.io_p95 for each in self.before
                       if each.io_p95 is not None)
        if known:
            limits.append(max(SLOW_MS, WORSE * known[len(known) // 2]))
        return min(limits) if limits else None

    def remember(self, now: float, reading: Reading) -> None:
        """Take in a reading of a second in which nothing moves."""
        self._net(now, reading)
        self.before.append(reading)

    def was(self, now: float) -> frozenset[str]:
        """Return what was broken before the move: not its fault."""
        last = list(self.before)[-3:]
        sets = [{each.what for each in self._broken(now, reading)}
                for reading in last]
        return frozenset(set.intersection(*sets)) if sets else frozenset()


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
    return replace(
        grip, looks=(*grip.looks, bad)[-policy.of:],
        well=None if bad else seen.now if grip.well is None else grip.well,
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
    """
    Nobody suffers.

    What did harm a moment ago would do so again: to go on until it does costs
    a promise a quarter of all seconds.  What others use now need not be tried.
    """
    most = min(seen.grant, seen.room)
    if seen.now - grip.harmed < policy.probe:
        most = min(most, policy.below * grip.harm)
    rate = min(most, grip.rate + policy.up * seen.grant)
    return change(grip, seen, max(rate, grip.rate), "all is well")


def change(grip: Grip, seen: Seen, rate: float,
           why: str) -> tuple[Grip, Act]:
    """Return what is remembered after a change, if it is one."""
    if rate == grip.rate:
        return grip, Act.NOTHING
    return replace(grip, rate=rate, changed=seen.now, why=why,
                   disk=grip.disk and rate < seen.grant), Act.RATE


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
