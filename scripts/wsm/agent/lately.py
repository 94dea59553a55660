# SPDX-License-Identifier: GPL-2.0-or-later
"""How many bytes per second guests write to their disks, lately."""

import time
from collections import deque
from typing import Any, Mapping, Optional, Sequence

from wsm.agent.facts import disk_name

KEPT = 30.0             # s
LEAST = 1.0             # s between two readings that say something

Reading = tuple[float, Mapping[str, int]]


def written(answer: Sequence[dict[str, Any]]) -> dict[str, int]:
    """Return the bytes written to each disk, by query-blockstats."""
    return {disk_name(entry): int(entry["stats"]["wr_bytes"])
            for entry in answer if entry.get("qdev") or entry.get("device")}


class Writes:
    """Readings of the last half minute of each QEMU."""

    def __init__(self) -> None:
        self._kept: dict[int, deque[Reading]] = {}

    def add(self, pid: int, counts: Mapping[str, int],
            now: Optional[float] = None) -> None:
        """Take in a reading of a QEMU."""
        when = time.monotonic() if now is None else now
        kept = self._kept.setdefault(pid, deque())
        kept.append((when, counts))
        # One that is older stays as the begin of it
        while len(kept) > 2 and kept[1][0] <= when - KEPT:
            kept.popleft()

    def rates(self, pid: int) -> dict[str, float]:
        """Return the bytes per second of each disk; {} if not known."""
        kept = self._kept.get(pid)
        if not kept:
            return {}
        (since, old), (until, new) = kept[0], kept[-1]
        if until - since < LEAST:
            return {}
        return {disk: max(0, count - old.get(disk, count)) / (until - since)
                for disk, count in new.items()}

    def only(self, pids: Sequence[int]) -> None:
        """Forget all other QEMUs."""
        for pid in set(self._kept) - set(pids):
            del self._kept[pid]
