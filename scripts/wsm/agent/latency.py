# SPDX-License-Identifier: GPL-2.0-or-later
"""How long requests of VMs to their disks take, as QEMU counts it."""

import contextlib
from typing import Any, Awaitable, Callable, Mapping, Optional, Sequence

from wsm.agent.monitor import Monitor, QmpFailed, QmpGone

MS = 10**6                      # ns
ANSWER = 1.0                    # s; who is slower is not looked at
# Of latencies, in ns: fine where promises are made
BOUNDS = [MS * each for each in (1, 2, 3, 5, 7, 10, 15, 20, 30, 50, 75, 100,
                                 200, 500, 1000, 5000)]
HISTOGRAMS = ("rd_latency_histogram", "wr_latency_histogram",
              "flush_latency_histogram")


def p95(bins: Sequence[int]) -> Optional[float]:
    """Return the 95th percentile in ms of a histogram over BOUNDS."""
    total, sum_ = sum(bins), 0
    for index, count in enumerate(bins):
        sum_ += count
        if total and sum_ >= 0.95 * total:
            return BOUNDS[min(index, len(BOUNDS) - 1)] / MS
    return None


class Latencies:
    """Those of the VMs of a host; @monitor: by name, raises QmpGone."""

    def __init__(self, monitor: Callable[[str], Awaitable[Monitor]]) -> None:
        self._monitor = monitor
        self._bins: dict[str, list[int]] = {}

    def forget(self, vm: str) -> None:
        """A VM is not looked at any more."""
        self._bins.pop(vm, None)

    async def of(self, vm: str) -> list[int]:
        """Return how many requests took how long since the last look."""
        with contextlib.suppress(QmpGone, QmpFailed):
            monitor = await self._monitor(vm)
            stats = await monitor.call("query-blockstats", timeout=ANSWER)
            bins = [0] * (len(BOUNDS) + 1)
            for entry in stats:
                for kind in HISTOGRAMS:
                    found = entry["stats"].get(kind, {})
                    if found.get("boundaries") == BOUNDS:
                        bins = list(map(sum, zip(bins, found["bins"])))
            if not any(bins) and vm not in self._bins:
                await self._measure(monitor, stats)
            before = self._bins.get(vm, bins)
            self._bins[vm] = bins
            return [max(0, a - b) for a, b in zip(bins, before)]
        return []

    @staticmethod
    async def _measure(monitor: Monitor,
                       stats: Sequence[Mapping[str, Any]]) -> None:
        """Let QEMU count latencies; it does so from now on."""
        for entry in stats:
            if entry.get("qdev"):
                await monitor.call("block-latency-histogram-set", {
                    "id": entry["qdev"], "boundaries": BOUNDS},
                    timeout=ANSWER)
