# SPDX-License-Identifier: GPL-2.0-or-later
"""Which VMs were moved lately: what keeps them where they are for a while."""

import bisect
import math
from dataclasses import dataclass, field

from wsm.plan.policy import Calm

KEPT = 21600.0                  # s that trips are remembered


@dataclass(frozen=True)
class Trip:
    """A move that has ended well."""

    at: float                   # when it ended, s
    source: str
    to: str
    hard: bool                  # it broke the cooling of the one before


@dataclass
class Past:
    """Of all VMs.  Who moves them tells it."""

    trips: dict[str, list[Trip]] = field(default_factory=dict)
    ended: dict[str, float] = field(default_factory=dict)   # source: when
    began: list[float] = field(default_factory=list)        # rising

    def note_begin(self, now: float) -> None:
        """A move begins."""
        self.began.append(now)
        del self.began[:bisect.bisect_left(self.began, now - KEPT)]

    def note_end(self, vm: str, trip: Trip) -> None:
        """A move has ended well."""
        self.ended[trip.source] = trip.at
        kept = [each for each in self.trips.get(vm, [])
                if trip.at - each.at <= KEPT]
        self.trips[vm] = [*kept, trip]

    def began_since(self, at: float) -> int:
        """Return how many moves have begun since then."""
        return len(self.began) - bisect.bisect_left(self.began, at)

    def is_quiet(self, host: str, now: float, pause: float) -> bool:
        """Whether a VM has left a host so lately that nothing can be said."""
        return now - self.ended.get(host, float("-inf")) < pause

    def cooling(self, vm: str, now: float, calm: Calm) -> float:
        """
        Return until when a VM stays where it is; -inf if it need not.

        The time is doubled for each further move in calm.memory.
        """
        trips = [each for each in self.trips.get(vm, [])
                 if now - each.at <= calm.memory]
        if not trips:
            return float("-inf")
        return trips[-1].at + min(calm.longest, math.ldexp(
            calm.cooling, len(trips) - 1))

    def is_cooling(self, vm: str, now: float, hard: bool, calm: Calm) -> bool:
        """Whether a VM may not move now; great need breaks that once."""
        if now >= self.cooling(vm, now, calm):
            return False
        return not hard or self.trips[vm][-1].hard

    def hosts(self, vm: str) -> dict[str, float]:
        """Return the hosts that a VM was on lately, and when it left them."""
        return {each.source: each.at for each in self.trips.get(vm, [])}
