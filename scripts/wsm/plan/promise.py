# SPDX-License-Identifier: GPL-2.0-or-later
"""Whether a VM gets, in a second, what it was promised."""

import math
from collections import Counter, deque
from dataclasses import dataclass, field
from typing import Deque, Iterable, Mapping, Optional, Sequence

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
HALF = 0.5                  # of the way to a breach: no faster
WAS, OF_LAST = 3, 5         # so many breaches in so many seconds before a move


def median(values: Iterable[float]) -> float:
    """Return the one in the middle; 0.0 if there is none."""
    found = sorted(values)
    return found[len(found) // 2] if found else 0.0


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
        # Another host's agent may be newer, and know of more
        unit = {"net": "Mbit/s", "cpu": "of the time waits", "io": "ms",
                "swap": "KiB/s"}.get(self.what.split(".")[0], "")
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
        if any(each.io_p95 is not None for each in self.before):
            limits.append(max(SLOW_MS, WORSE * self._usual()))
        return min(limits) if limits else None

    def near(self, reading: Reading) -> bool:
        """Return whether its disk is half way to a broken promise."""
        limit = self.promise.io_p95 or self._io_limit()
        return (limit is not None and reading.io_p95 is not None
                and reading.io_p95 > max(HALF * limit, HALF * WORSE
                                         * self._usual())
                and reading.requests >= REQUESTS)

    def _usual(self) -> float:
        """Return the latency of before the move, ms; 0.0: not known."""
        return median(each.io_p95 for each in self.before
                      if each.io_p95 is not None)

    def remember(self, now: float, reading: Reading) -> None:
        """Take in a reading of a second in which nothing moves."""
        self._net(now, reading)
        self.before.append(reading)

    def was(self, now: float) -> frozenset[str]:
        """Return what was broken before the move: not its fault."""
        last = list(self.before)[-OF_LAST:]
        broken = Counter(each.what for reading in last
                         for each in self._broken(now, reading))
        return frozenset(what for what, times in broken.items()
                         if times >= min(WAS, len(last)))


@dataclass(frozen=True)
class Short:
    """What a VM had too little of lately."""

    lacks: Mapping[str, float] = field(default_factory=dict)    # way: Mbit/s
    io_p95: float = 0.0         # ms; 0.0: not known


@dataclass
class Account:
    """Counts the seconds of a VM until it is asked."""

    seconds: int = 0
    lacks: dict[str, float] = field(default_factory=dict)   # way: Mbit
    io_p95: list[float] = field(default_factory=list)       # ms, each second

    def add(self, broken: Sequence[Breach], reading: Reading) -> None:
        """Take in a second."""
        self.seconds += 1
        for each in broken:
            if each.what.startswith("net."):
                way = each.what.removeprefix("net.")
                self.lacks[way] = (self.lacks.get(way, 0.0) + each.limit
                                   - each.got)
        if reading.io_p95 is not None and reading.requests >= REQUESTS:
            self.io_p95.append(reading.io_p95)

    def close(self) -> Short:
        """Return what the seconds were like; others begin."""
        found = Short({way: mbit / self.seconds for way, mbit
                       in self.lacks.items()},
                      median(self.io_p95))
        self.seconds = 0
        self.lacks.clear()
        self.io_p95.clear()
        return found
