# SPDX-License-Identifier: GPL-2.0-or-later
"""How fast a running move must be to end at its time, and no faster.

Asked again every few seconds, with what query-wsm says then: a guest that
begins to write, or a link that gives less, makes the rest faster.
"""

import dataclasses
import math
from dataclasses import dataclass
from typing import Any, Mapping

from wsm.plan.estimate import (DISK_OVERHEAD, START, Link, Load, needed_rate,
                               passes, rate_for, rounds, unique)
from wsm.plan.headway import END_SHARE, LATE, is_known

EARLY = 0.05                    # of all the time: for what goes wrong,
EARLIER = 0.10                  # of a short time,
MOMENT = 5.0                    # s, as to end takes a moment in any case
LEAST = 262144.0                # bytes/s
UNSEEN = 0.05                   # of what QEMU takes for memory, at least
SURELY = 1.3                    # times the rate at which memory just ends
BEGUN = ("disk-precopy", "ram-precopy", *LATE)


@dataclass(frozen=True)
class Due:
    """When a move must have ended; s of one clock."""

    begun: float
    at: float

    def aim(self, now: float) -> float:
        """Return the seconds in which it should end, a little before."""
        whole = self.at - self.begun
        return self.at - max(EARLY * whole, min(EARLIER * whole, MOMENT)) - now


@dataclass(frozen=True)
class Pace:
    """What it needs."""

    rate: float                 # bytes/s; as fast as it can: Link.unlimited
    seconds: float              # until it ends then
    late: float = 0.0           # s that it is late although it is that fast


def rest_of(figures: Mapping[str, Any], load: Load) -> tuple[float, float]:
    """Return the bytes that are left of disks, and of memory."""
    left = float(figures.get("remaining", 0))
    dirty = float(sum(int(disk.get("dirty", 0))
                      for disk in figures.get("disks", [])))
    if figures.get("phase") == "disk-precopy":
        return min(dirty, max(0.0, left - load.touched)), float(load.touched)
    disks = min(dirty, left)
    memory = left - disks
    if not is_known(figures):       # zeroes count as memory yet
        sent = float(figures.get("ram", {}).get("transferred", 0))
        memory = min(memory, max(load.touched - sent, UNSEEN * memory))
    return disks, memory


def as_seen(figures: Mapping[str, Any], load: Load) -> Load:
    """Return what the guest does, as QEMU sees it now."""
    ram = figures.get("ram", {})
    pace = float(ram.get("dirty-pages-rate", 0)) * float(
        ram.get("page-size", 4096))
    if figures.get("phase") != "ram-precopy" or not pace:
        return load
    return dataclasses.replace(load, dirty={"1": round(pace)})


def ending(load: Load, link: Link) -> float:
    """
    Return the rate of the memory, when its turn comes.

    Disks may be slower than what lets memory end: it has a rate of its own.
    """
    if rounds(load, link.rate)[4]:
        return link.rate
    return min(link.unlimited, SURELY * needed_rate(load, link.rate))


def takes(figures: Mapping[str, Any], load: Load, link: Link,
          factor: float = 1.0, start: float = START) -> float:
    """Return how long what is left of a move takes."""
    load, phase = as_seen(figures, load), figures.get("phase")
    disks, memory = rest_of(figures, load)
    end = END_SHARE * start
    if phase in LATE:
        return end + factor * (disks + memory) / link.rate
    seconds = 0.0
    rate = link.rate
    if phase == "disk-precopy":
        seconds, _, disks = passes(DISK_OVERHEAD * disks, load, link.rate)
        rate = ending(load, link)
    ram, _, _, _, ends = rounds(load, rate,
                                memory if phase == "ram-precopy" else None)
    if not ends:
        return math.inf
    rest = unique(load, ram, disks) / link.unlimited
    return end + factor * (seconds + ram + rest)


def gentle(figures: Mapping[str, Any], load: Load, link: Link, due: Due,
           now: float, factor: float = 1.0, start: float = START) -> Pace:
    """
    Return the lowest rate with which a running move ends in time.

    If none is high enough, the full one, and how late it will be.
    """
    def seconds(rate: float) -> float:
        return takes(figures, load, dataclasses.replace(
            link, rate=rate), factor, start)

    full = link.unlimited
    # A guest that runs there waits for what is here: that ends soon
    rate = (full if figures.get("phase") in LATE
            else rate_for(seconds, full, due.aim(now), LEAST))
    found = seconds(rate)
    return Pace(rate, found, max(0.0, found - (due.at - now)))
