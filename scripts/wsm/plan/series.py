# SPDX-License-Identifier: GPL-2.0-or-later
"""What a figure was lately: now, its peak of the last hour, what comes next.

A series holds samples at about equal intervals and, for an hour, the highest
of each minute.  Nothing is made up: a sample that did not come is not there.
"""

import math
from array import array
from typing import Sequence

RING = 32                       # samples that are kept
HOUR = 3600.0                   # s
MINUTE = 60.0
NOW = 3                         # samples whose mean is "now"
PEAK = 0.95                     # the percentile of the maxima
FORECAST = 12                   # samples that a forecast looks at
YOUNG = 900.0                   # s until an hour can be told from a part of it


def percentile(values: Sequence[float], part: float) -> float:
    """Return the value below which @part of @values are; 0.0 of none."""
    if not values:
        return 0.0
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(part * len(ordered)))]


def ar1(values: Sequence[float]) -> float:
    """
    Return the next value by a first-order autoregression.

    As in Sandpiper (Wood et al., NSDI 2007, section 5): the distance from the
    mean shrinks by the correlation of neighbours, 0 to 1.
    """
    if len(values) < 3:
        return values[-1] if values else 0.0
    mean = math.fsum(values) / len(values)
    off = [value - mean for value in values]
    spread = math.fsum(each * each for each in off[:-1])
    if spread <= 0.0:
        return values[-1]
    phi = math.fsum(a * b for a, b in zip(off, off[1:])) / spread
    return mean + min(1.0, max(0.0, phi)) * off[-1]


class Series:
    """Of one figure.  @interval in s is how often a sample comes."""

    __slots__ = ("last", "samples", "maxima", "_minute", "_slot", "_peak",
                 "_now")

    def __init__(self, interval: float = 10.0) -> None:
        self.last = -math.inf           # when the newest came, s
        self.samples = array("f")
        self.maxima = array("f")       # the newest is not whole yet
        self._minute = max(MINUTE, interval)
        self._slot = 0
        self._peak = -1.0               # of the whole minutes; -1: to be found
        self._now = -1.0                # the same

    def add(self, at: float, value: float) -> None:
        """Take a sample; one that is older than the last is dropped."""
        if at <= self.last:
            return
        slot = int(at // self._minute)
        if self.maxima and slot == self._slot:
            self.maxima[-1] = max(self.maxima[-1], value)
        else:
            self.maxima.append(value)
            del self.maxima[:-int(HOUR // self._minute)]
            self._slot = slot
            self._peak = -1.0
        self.samples.append(value)
        if len(self.samples) > RING:
            del self.samples[:-RING]
        self.last, self._now = at, -1.0

    def recent(self, count: int) -> list[float]:
        """Return the newest samples, at most @count, the newest last."""
        return list(self.samples[-count:])

    def was_over(self, limit: float, count: int) -> bool:
        """Whether one of the newest @count samples was over a limit."""
        newest = self.samples[-count:]
        return bool(newest) and max(newest) > limit

    @property
    def now(self) -> float:
        """Mean of the newest samples."""
        if self._now < 0.0:
            newest = self.samples[-NOW:]
            self._now = math.fsum(newest) / len(newest) if newest else 0.0
        return self._now

    @property
    def peak(self) -> float:
        """What it was at most, but for short times, in the last hour."""
        if self._peak < 0.0:
            self._peak = percentile(self.maxima[:-1] or self.maxima,
                                    PEAK if self.grown else 1.0)
        return max(self._peak, self.now)

    def lately(self, seconds: float) -> Sequence[float]:
        """Return the maxima of so long; none if it was not looked at so long."""
        count = max(1, int(seconds // self._minute))
        return self.maxima[-count:] if len(self.maxima) >= count else ()

    @property
    def grown(self) -> bool:
        """Whether it has been looked at for long enough to say more."""
        return len(self.maxima) * self._minute >= YOUNG

    @property
    def forecast(self) -> float:
        """What the next sample may be."""
        return ar1(self.samples[-FORECAST:])

    def include(self, other: "Series", sign: int) -> None:
        """
        Be the sum with @other (@sign 1), or the rest without it (-1).

        As if a VM had always, or never, been on this host.  Maxima of sums
        are taken for sums of maxima: not too low when one comes.
        """
        for mine, others in ((self.samples, other.samples),
                             (self.maxima, other.maxima)):
            for back in range(1, min(len(mine), len(others)) + 1):
                mine[-back] = max(0.0, mine[-back] + sign * others[-back])
        self._peak = self._now = -1.0
