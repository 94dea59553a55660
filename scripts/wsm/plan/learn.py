# SPDX-License-Identifier: GPL-2.0-or-later
"""What earlier moves teach about the next one."""

import functools
import math
from dataclasses import dataclass, field
from typing import Callable, Mapping, Optional, Sequence

from wsm.plan.estimate import FACTOR_LIMIT, START

WEIGHT = 0.3                    # of the last one in a mean, at least
WRONG = 10.0                    # times, that one move can teach
LAST = 5                        # moves that tell how fast a link is
START_LIMITS = (0.3, 30.0)      # s
SENDING = ("disk-precopy", "ram-precopy", "freeze", "postcopy")


@dataclass(frozen=True)
class Past:
    """A move that has come to its end; in the order of time."""

    vm: str
    source: str
    destination: str
    rate: int                   # bytes/s that it was given; 0: no limit
    bytes: int                  # sent
    seconds: float
    phases: Mapping[str, int]   # ms in each
    expected_seconds: float
    expected_start: float       # s of them in which nothing is sent
    factor: float               # that was in them; 0: teaches nothing
    # Of disks that were compared: the part that had to be sent
    differed: Mapping[str, float] = field(default_factory=dict)

    @property
    def sending(self) -> float:
        """Seconds in which bytes were sent."""
        return sum(self.phases.get(each, 0) for each in SENDING) / 1000

    def joins(self, one: str, two: str) -> bool:
        """Return whether it was between these hosts."""
        return {self.source, self.destination} == {one, two}


def mean(values: Sequence[float], first: float) -> float:
    """
    Return a mean in which the last ones count most.

    @first, which nobody has seen, counts as one of the first few.
    """
    found = first
    for number, value in enumerate(values):
        found += max(WEIGHT, 1 / (number + 2)) * (value - found)
    return found


def nearest(past: Sequence[Past], one: str, two: str) -> list[Past]:
    """Return the moves between two hosts, or all if there are none."""
    return [each for each in past if each.joins(one, two)] or list(past)


def start(past: Sequence[Past], one: str, two: str) -> float:
    """Return the seconds in which nothing is sent."""
    values = [each.seconds - each.sending
              for each in nearest(past, one, two) if each.phases]
    low, high = START_LIMITS
    return min(high, max(low, mean(values, START)))


def factor(past: Sequence[Past], one: str, two: str) -> float:
    """Return by what an estimate between two hosts is multiplied."""
    logs = []
    for each in past:
        if not each.joins(one, two) or each.factor <= 0 or each.differed:
            continue
        raw = (each.expected_seconds - each.expected_start) / each.factor
        if raw > 0 and each.sending > 0:
            logs.append(math.log(min(WRONG, max(1 / WRONG,
                                                each.sending / raw))))
    return min(FACTOR_LIMIT, max(1 / FACTOR_LIMIT, math.exp(mean(logs, 0.0))))


def speed(past: Sequence[Past], one: str, two: str) -> Optional[float]:
    """Return the bytes per second that a link has shown lately."""
    seen = [each.bytes / each.sending for each in past
            if each.joins(one, two) and not each.rate and not each.differed
            and each.sending > 0 and each.bytes > 0]
    return max(seen[-LAST:], default=None)


@dataclass(frozen=True)
class Taught:
    """All that moves teach of two hosts."""

    start: float                # s in which nothing is sent
    factor: float
    speed: Optional[float]      # bytes/s of the link; None: nobody has seen it
    # VM: disk: what differed when it was last compared
    differed: Mapping[str, Mapping[str, float]]


def look_up(past: Sequence[Past], one: str, two: str) -> Taught:
    """Look all of it up."""
    differed: dict[str, dict[str, float]] = {}
    for each in past:
        if each.differed and each.joins(one, two):
            differed.setdefault(each.vm, {}).update(each.differed)
    return Taught(start(past, one, two), factor(past, one, two),
                  speed(past, one, two), differed)


class Lessons(tuple[Past, ...]):
    """Moves that teach, of which each pair of hosts is looked up once."""

    def about(self, one: str, two: str) -> Taught:
        """Return what they teach of two hosts, whichever is the source."""
        key = min(one, two), max(one, two)
        if key not in self._known:
            self._known[key] = look_up(self, one, two)
        return self._known[key]

    @functools.cached_property
    def _known(self) -> dict[tuple[str, str], Taught]:
        return {}


def about(past: Sequence[Past], one: str, two: str) -> Taught:
    """Return what moves teach of two hosts."""
    return (past.about(one, two) if isinstance(past, Lessons)
            else look_up(past, one, two))


def differs(past: Sequence[Past], vm: str, one: str,
            two: str) -> Callable[[str], float]:
    """Return what of a disk differed when it was last compared, else 1."""
    known = about(past, one, two).differed.get(vm, {})
    return lambda disk: known.get(disk, 1.0)
