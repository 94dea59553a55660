# SPDX-License-Identifier: GPL-2.0-or-later
"""What moves were like, counted since the start, for Prometheus."""

import bisect
from typing import Iterator, Sequence

from prometheus_client.core import (CounterMetricFamily,
                                    HistogramMetricFamily)

from wsm.controller.journal import Entry, Journal

SECONDS = (10, 30, 60, 120, 300, 600, 1800, 3600, 7200)
DOWNTIME = (0.05, 0.1, 0.2, 0.3, 0.5, 1, 2, 5, 30)
RATIO = (0.33, 0.5, 0.67, 0.8, 0.9, 1.1, 1.25, 1.5, 2, 3)
LATE = 60.0                     # s until an end is in the journal


class Counts:
    """How many values were at most each of @bounds, and their sum."""

    def __init__(self, name: str, text: str,
                 bounds: Sequence[float]) -> None:
        self.name, self.text, self.bounds = name, text, bounds
        self.count = [0] * (len(bounds) + 1)
        self.sum = 0.0

    def add(self, value: float) -> None:
        """Count a value."""
        self.count[bisect.bisect_left(self.bounds, value)] += 1
        self.sum += value

    def family(self) -> HistogramMetricFamily:
        """Return it as Prometheus has it."""
        so_far, buckets = 0, []
        for bound, count in zip((*map(float, self.bounds), "+Inf"),
                                self.count):
            so_far += count
            buckets.append((str(bound), so_far))
        made = HistogramMetricFamily(self.name, self.text)
        made.add_metric([], buckets, self.sum)
        return made


class Moved:
    """Reads the journal whenever somebody asks."""

    def __init__(self, journal: Journal, now: float) -> None:
        self.journal = journal
        self._begun = self._since = now
        self._seen: set[str] = set()    # that were counted, of the last ones
        self._ends: dict[tuple[str, str], int] = {}
        self._bytes = 0
        self._seconds = Counts("wsm_move_seconds", "length of moves", SECONDS)
        self._downtime = Counts("wsm_move_downtime_seconds",
                                "pause of guests that were moved", DOWNTIME)
        self._ratio = Counts("wsm_prediction_ratio", "seconds that moves took "
                             "/ seconds that were expected", RATIO)

    def _take(self, entry: Entry) -> None:
        move = entry.move
        key = entry.spot.split(" ")[0] or "people", move.result
        self._ends[key] = self._ends.get(key, 0) + 1
        self._bytes += move.bytes
        if move.result == "moved":
            self._seconds.add(move.seconds)
            self._downtime.add(move.downtime_ms / 1000)
            if move.expected_seconds > 0:
                self._ratio.add(move.seconds / move.expected_seconds)

    def families(self) -> Iterator[object]:
        """Yield all of it."""
        ended = self.journal.ended_since(self._since - LATE)
        for entry in ended:
            if entry.move.id not in self._seen and (
                    entry.move.ended >= self._begun):
                self._take(entry)
                self._since = max(self._since, entry.move.ended)
        self._seen = {entry.move.id for entry in ended}
        ends = CounterMetricFamily("wsm_moves", "moves that have ended",
                                   labels=["reason", "result"])
        for key, count in sorted(self._ends.items()):
            ends.add_metric(list(key), count)
        sent = CounterMetricFamily("wsm_move_bytes", "bytes that moves sent")
        sent.add_metric([], self._bytes)
        yield ends
        yield sent
        for each in (self._seconds, self._downtime, self._ratio):
            yield each.family()
