# SPDX-License-Identifier: GPL-2.0-or-later
"""Which VMs were moved lately: what keeps them where they are for a while."""

import bisect
import math
from dataclasses import dataclass, field
from typing import Iterator, Mapping, Sequence

from wsm.plan.fleet import Flight
from wsm.plan.policy import Calm

KEPT = 21600.0                  # s that trips are remembered


@dataclass(frozen=True)
class Trip:
    """A move that has ended well."""

    at: float                   # when it ended, s
    source: str
    to: str
    hard: bool                  # it broke the cooling of the one before
    spot: str = ""              # key of the hot spot that it was for
    goal: float = math.inf      # what that must be at most then


def trip_of(flight: Flight, now: float) -> Trip:
    """Return what a move is when it has ended well."""
    return Trip(now, flight.source, flight.to, flight.hard, flight.spot,
                flight.goal)


DAY = 86400.0
WAITS = (60.0, 300.0, 1800.0)   # s that a VM stays after 1, 2, 3 failures
# Moves that empty a host, or that a person wants
WANTED = ("drain ", "health ", "pack ", "errand ")


@dataclass
class Past:
    """Of all VMs.  Who moves them tells it."""

    trips: dict[str, list[Trip]] = field(default_factory=dict)
    ended: dict[str, float] = field(default_factory=dict)   # source: when
    began: list[float] = field(default_factory=list)        # rising
    failed: list[float] = field(default_factory=list)       # likewise
    # Moves that have ended and of which it is not yet known what came of them
    watched: list[Trip] = field(default_factory=list)
    # Source: when it was found that a move had not cooled it
    uncooled: dict[str, list[float]] = field(default_factory=dict)
    # Bytes that moves sent in a day: (when, host, bytes)
    sent: list[tuple[float, str, int]] = field(default_factory=list)
    # VM: when each of its moves has failed since the last that went well
    stayed: dict[str, list[float]] = field(default_factory=dict)
    # Source: the same
    refused: dict[str, list[float]] = field(default_factory=dict)

    def note_begin(self, now: float, flight: Flight | None = None) -> None:
        """A move begins; one that was asked for counts for no cap."""
        if flight is None or not flight.spot.startswith(WANTED):
            self.began.append(now)
        del self.began[:bisect.bisect_left(self.began, now - KEPT)]
        if flight:
            del self.sent[:bisect.bisect_left(self.sent, (now - DAY, "", 0))]
            self.sent += [(now, host, flight.bytes)
                          for host in (flight.source, flight.to)]

    def note_failed(self, now: float) -> None:
        """A move has ended, and the VM is where it was."""
        self.failed.append(now)
        del self.failed[:bisect.bisect_left(self.failed, now - KEPT)]

    def note_stayed(self, vm: str, source: str, now: float) -> None:
        """A move of a VM has not moved it, whyever."""
        for table, name in ((self.stayed, vm), (self.refused, source)):
            table[name] = [*(at for at in table.get(name, ())
                             if now - at <= KEPT), now][-len(WAITS):]

    def staying(self, vm: str) -> float:
        """Return until when a VM stays as its moves have failed; -inf: not."""
        return rest(self.stayed.get(vm, ()))

    def failures(self, vm: str, now: float) -> int:
        """Return how many of a VM's last moves have failed lately."""
        return sum(now - at <= KEPT for at in self.stayed.get(vm, ()))

    def refusing(self, host: str) -> float:
        """Return until when no other VM of a host is tried for that reason."""
        return rest(self.refused.get(host, ()))

    def note_heat(self, now: float, cools: float,
                  heat: Mapping[str, float]) -> None:
        """
        Note what is hot now: {key of the spot: how hot}.

        To be told after each round, so that it is seen which moves have not
        helped within @cools seconds.
        """
        # Just after a move samples are what they would have been without it
        due = [each for each in self.watched if now - each.at >= cools
               and not self.is_quiet(each.source, now, cools / 4)]
        self.watched = [each for each in self.watched if each not in due]
        for trip in due:
            if heat.get(trip.spot, 0.0) > trip.goal:
                self.uncooled.setdefault(trip.source, []).append(now)
        for host, times in list(self.uncooled.items()):
            self.uncooled[host] = [at for at in times if now - at <= KEPT]

    def sent_by(self, host: str, now: float) -> int:
        """Return the bytes of moves from or to a host within a day."""
        return sum(size for at, name, size in self.sent
                   if name == host and now - at < DAY)

    def note_end(self, vm: str, trip: Trip) -> None:
        """A move has ended well."""
        self.ended[trip.source] = trip.at
        self.stayed.pop(vm, None)
        self.refused.pop(trip.source, None)
        if trip.spot:
            self.watched.append(trip)
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

    def returns(self, vm: str, now: float, span: float) -> int:
        """Return how often a VM came back to a host within @span."""
        trips = [each for each in self.trips.get(vm, []) if now - each.at
                 <= span]
        return sum(any(earlier.source == trip.to for earlier in trips[:number])
                   for number, trip in enumerate(trips))

    def latest(self, goal: str) -> Iterator[Trip]:
        """Yield the moves whose spot's key begins with @goal."""
        for trips in self.trips.values():
            yield from (each for each in trips if each.spot.startswith(goal))

    def hosts(self, vm: str) -> dict[str, float]:
        """Return the hosts that a VM was on lately, and when it left them."""
        return {each.source: each.at for each in self.trips.get(vm, [])}


def rest(failed: Sequence[float]) -> float:
    """Return until when nothing is tried again; -inf: it may be."""
    return failed[-1] + WAITS[len(failed) - 1] if failed else -math.inf
