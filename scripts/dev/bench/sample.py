# SPDX-License-Identifier: GPL-2.0-or-later
"""What one move showed, and how it is taken from the guest's heartbeats."""

import statistics
from dataclasses import asdict, dataclass, field
from typing import Any, Iterator

from dev.rig.guest import Beat
from dev.rig.qmp import Json

SETTLE_SECONDS = 2.0            # heartbeats after the switchover
BIN_SECONDS = 0.5               # of the time line


@dataclass
class Sample:
    """What one migration showed; seconds since it was begun."""
    way: str
    load: str
    failure: str = ''
    running: float = 0.0            # the guest runs at the destination
    synchronised: float = 0.0       # the source is needed no more
    disk_bytes: int = 0             # allocated, at the begin
    ram_bytes: int = 0              # sent in the main stream
    link_bytes: int = 0             # all that left the source's host
    t0: float = 0.0
    rate_before: float = 0.0        # guest writes per second, median
    rates: list[float] = field(default_factory=list)    # without the freeze
    rates_after: list[float] = field(default_factory=list)
    gap: float = 0.0                # heartbeat gap at the switchover
    longest_gap: float = 0.0        # anywhere from begin to end
    longest_gap_before: float = 0.0     # without any migration
    stopped: float = 0.0            # from STOP there to RESUME here
    worst_write: float = 0.0        # longest guest write, seconds
    wrong: int = -1                 # blocks with the wrong content, -1: unseen
    du_before: int = 0
    du_after: int = 0
    load_average: float = 0.0       # of the machine, when it began
    memory: dict[str, int] = field(default_factory=dict)    # growth, bytes
    cpu: dict[str, float] = field(default_factory=dict)     # seconds, by side
    phases: dict[str, float] = field(default_factory=dict)  # when each began
    # time since the begin, guest writes per second
    series: list[tuple[float, float]] = field(default_factory=list)
    # "before", "during", "after": percentile -> milliseconds; see latencies()
    latency: dict[str, dict[str, float]] = field(default_factory=dict)
    numbers: dict[str, float] = field(default_factory=dict)     # others
    wsm: Json = field(default_factory=dict)     # the source's query-wsm

    def as_json(self) -> Json:
        return {key: shorten(value) for key, value in asdict(self).items()}


# (key of the row, sample) as they are measured
Samples = Iterator[tuple[str, Sample]]


def shorten(value: Any) -> Any:
    """Numbers with no more digits than were measured."""
    if isinstance(value, float):
        return round(value, 4)
    if isinstance(value, (list, tuple)):
        return [shorten(item) for item in value]
    return value


def rates_between(beats: list[Beat], since: float,
                  until: float) -> list[float]:
    """Guest writes in each whole second between two moments.

    A second in which the guest was silent counts, with what it wrote.
    """
    inside = [beat for beat in beats if since <= beat.time <= until]
    rates: list[float] = []
    if not inside:
        return rates
    first = last = inside[0]
    for beat in inside[1:]:
        if beat.time >= first.time + 1:
            rates.append((beat.writes - first.writes)
                         / (beat.time - first.time))
            first = beat
        last = beat
    if not rates and last.time - first.time > 0.5:
        rates.append((last.writes - first.writes) / (last.time - first.time))
    return rates


def series(beats: list[Beat], start: float) -> list[tuple[float, float]]:
    """The time line of guest writes per second, in bins; see BIN_SECONDS."""
    result: list[tuple[float, float]] = []
    first = None
    for beat in beats:
        first = first or beat
        seconds = beat.time - first.time
        if seconds >= BIN_SECONDS:
            rate = (beat.writes - first.writes) / seconds
            result.append((round(first.time - start, 2), round(rate)))
            result.append((round(beat.time - start, 2), round(rate)))
            first = beat
    return result


def longest_gap(beats: list[Beat], since: float, until: float) -> float:
    """Longest silence that lies in this time at least in part."""
    times = [beat.time for beat in beats]
    gaps = [b - a for a, b in zip(times, times[1:])
            if b >= since and a <= until]
    return max(gaps, default=until - since)


def percentiles(values: list[float]) -> dict[str, float]:
    """In the unit of the values; empty if there are too few to tell."""
    if len(values) < 2:
        return {}
    cuts = statistics.quantiles(values, n=1000, method='inclusive')
    return {'p50': cuts[499], 'p95': cuts[949], 'p99': cuts[989],
            'max': max(values)}


def latencies(beats: list[Beat], since: float, until: float,
              name: str = 'worst_write_us') -> dict[str, float]:
    """Of guest writes, or others of that @name, in milliseconds.

    A heartbeat tells the longest write since the one before, so these are
    percentiles of the worst in each 5 ms.  At more than 200 writes a second
    this is worse than the percentiles of all writes.
    """
    values = [getattr(beat, name) / 1000 for beat in beats
              if since <= beat.time <= until and getattr(beat, name)]
    return {name: round(value, 3)
            for name, value in percentiles(values).items()}
