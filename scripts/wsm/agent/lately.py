# SPDX-License-Identifier: GPL-2.0-or-later
"""What guests have used lately: bytes written to their disks, CPU time."""

import contextlib
import os
import time
from collections import deque
from typing import Any, Mapping, Optional, Sequence

from wsm.agent.facts import disk_name

KEPT = 30.0             # s
LEAST = 1.0             # s between two readings that say something
NS = 10**9              # in a second
TICK = NS // os.sysconf("SC_CLK_TCK")           # ns

Reading = tuple[float, Mapping[str, int]]


def written(answer: Sequence[dict[str, Any]]) -> dict[str, int]:
    """Return the bytes written to each disk, by query-blockstats."""
    return {disk_name(entry): int(entry["stats"]["wr_bytes"])
            for entry in answer if entry.get("qdev") or entry.get("device")}


def traffic(answer: Sequence[dict[str, Any]]) -> int:
    """Return the bytes read from and written to all disks."""
    return sum(int(entry["stats"]["rd_bytes"]) + int(entry["stats"]["wr_bytes"])
               for entry in answer if entry.get("qdev") or entry.get("device"))


def text_of(path: str) -> str:
    """Return a file of the kernel's, "" if it is not there."""
    with contextlib.suppress(OSError), open(path, "rb", buffering=0) as stream:
        return stream.read().decode("ascii", "replace")
    return ""


def threads(pid: int) -> dict[str, tuple[int, int]]:
    """
    Return the ns for which each thread of a process ran, and waited to run.

    A kernel without schedstat knows nothing of waiting, and only of all
    threads together.
    """
    found = {}
    with contextlib.suppress(OSError):
        for thread in os.listdir(f"/proc/{pid}/task"):
            words = text_of(f"/proc/{pid}/task/{thread}/schedstat").split()
            if len(words) == 3 and all(map(str.isdigit, words)):
                found[thread] = int(words[0]), int(words[1])
    if not any(ran for ran, _ in found.values()):
        fields = text_of(f"/proc/{pid}/stat").rpartition(")")[2].split()
        if len(fields) > 12:
            return {"": ((int(fields[11]) + int(fields[12])) * TICK, 0)}
    return found


def wanted(pid: int) -> dict[str, int]:
    """
    Return the ns for which each thread wanted a CPU; {} if there is none.

    What waits is wanted, too: else a VM on a full host would look small.
    """
    return {thread: sum(each) for thread, each in threads(pid).items()}


class Lately:
    """Readings of counters of each QEMU in the last half minute."""

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
        """Return by how much each counter grows per second; {}: not known."""
        kept = self._kept.get(pid)
        if not kept:
            return {}
        (since, old), (until, new) = kept[0], kept[-1]
        if until - since < LEAST:
            return {}
        return {name: max(0, count - old.get(name, count)) / (until - since)
                for name, count in new.items()}

    def pids(self) -> list[int]:
        """Return the QEMUs that were read."""
        return list(self._kept)

    def only(self, pids: Sequence[int]) -> None:
        """Forget all other QEMUs."""
        for pid in set(self._kept) - set(pids):
            del self._kept[pid]
