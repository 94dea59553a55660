# SPDX-License-Identifier: GPL-2.0-or-later
"""How many bytes and seconds a move takes, and for how long the guest stops.

The one place for it.  Everything that goes into a figure is among its terms,
so that it can be shown.
"""

import math
from dataclasses import dataclass, field
from typing import Callable, Mapping, Optional, Sequence

from wsm.plan.inventory import Copy, DiskUse, human

START = 1.5                     # s in which nothing is sent: begin and end
PAUSE = 0.100                   # s that a handover takes by itself
RTT = 0.0005                    # s of a round trip, if nobody has measured it
MAX_ROUNDS = 30
DISK_OVERHEAD = 1.01            # messages
PAGE = 4096
ZERO_PAGE = 9                   # bytes that stand for a page of zeroes
MAX_RESIDUE = 1.0               # s, as in QEMU
HASHES = 0.008                  # of the bytes that are compared
HASH_SPEED = 1.5e9              # bytes/s of a core
HASH_CORES = 4
CPU_PER_GIB = 1.5               # s on both hosts together
LEAST_DIRTY = 4096.0
FACTOR_LIMIT = 3.0              # a learned factor is 1/3 to 3


@dataclass(frozen=True)
class Basis:
    """What the move of a disk builds on, and the bytes that it needs."""

    disk: str
    kind: str                   # "sync-point", "partial", "content", "full"
    data: int                   # bytes to be sent
    hashed: int = 0             # bytes that are compared before
    path: str = ""              # the image, if it is an old one
    reason: str = ""


@dataclass(frozen=True)
class Link:
    """What carries a move."""

    rate: float                 # bytes/s
    rtt: float = RTT            # s
    disk_read: float = 1e9      # bytes/s of the slower host's disks
    cores: int = 2
    known: bool = True          # nobody had to guess the rate
    full: float = 0.0           # bytes/s without the move's limit; 0: none

    @property
    def unlimited(self) -> float:
        """Bytes per second while the guest stands still, and after it."""
        return max(self.full, self.rate)


@dataclass(frozen=True)
class Load:
    """What the guest does meanwhile."""

    touched: int                                    # bytes of RAM in use
    dirty: Mapping[str, int] = field(default_factory=dict)  # window: bytes
    memory: int = 0                                 # bytes of RAM
    written: float = 0.0                            # bytes/s of disks, new
    allocated: int = 0                              # bytes of all disks
    downtime: float = 0.3                           # s, downtime-limit


@dataclass(frozen=True)
class Estimate:
    """What a move costs."""

    bytes: int
    seconds: float              # inf: its memory never converges
    downtime: float             # s
    disk_seconds: float
    ram_seconds: float
    post_seconds: float
    rounds: int
    converges: bool
    needs_rate: float           # bytes/s with which it would converge
    cpu: float                  # s
    bases: tuple[Basis, ...] = ()
    terms: tuple[tuple[str, float], ...] = ()


def spread(done: float, pace: float, seconds: float, most: float) -> float:
    """
    Return how many bytes of @most are written at least once in the end.

    @done of them are already; @pace new ones per second at first, and fewer
    the more of them were hit before, as writes come to all places alike.
    """
    left = most - done
    if left <= 0:
        return most
    return done + left * -math.expm1(-pace * seconds / left)


def dirtied(load: Load, seconds: float) -> float:
    """
    Return how many bytes of RAM are written at least once in @seconds.

    Between the measured windows it is linear, after the last one it goes on
    as between the last two, evenly over what is in use; never more than that,
    nor less for longer.
    """
    points = sorted([(0.0, 0.0), *((float(window), float(size))
                                   for window, size in load.dirty.items())])
    best = 0.0
    for (t0, w0), (t1, w1) in zip(points, points[1:]):
        w0, w1 = max(best, w0), max(best, w0, w1)
        if seconds <= t1:
            return min(load.touched, w0 + (w1 - w0) * (seconds - t0)
                       / (t1 - t0))
        best = w1
    if len(points) < 2:
        return 0.0
    (t0, w0), (t1, _) = points[-2:]
    pace = max(0.0, best - w0) / (t1 - t0)
    return spread(min(best, load.touched), pace, seconds - t1, load.touched)


def rounds(load: Load, rate: float, first: Optional[float] = None
           ) -> tuple[float, float, float, int, bool]:
    """
    Return (seconds, bytes, rest, rounds, whether it ends) for the RAM.

    @first: bytes that are left of it, if it has begun.
    """
    zeroes = max(0, load.memory - load.touched) / PAGE * ZERO_PAGE
    left, seconds, total = load.touched + zeroes, 0.0, 0.0
    if first is not None:
        left = first
    for number in range(1, MAX_ROUNDS + 1):
        took = left / rate
        seconds += took
        total += left
        left = dirtied(load, took)
        if left <= max(rate * load.downtime, LEAST_DIRTY):
            return seconds, total, left, number, True
    return math.inf, total, left, MAX_ROUNDS, False


def needed_rate(load: Load, rate: float) -> float:
    """Return the least rate, up to 1000 times @rate, at which it converges."""
    low, high = rate, rate * 1000
    if not rounds(load, high)[4]:
        return math.inf
    while high > low * 1.02:
        middle = math.sqrt(low * high)
        low, high = ((low, middle) if rounds(load, middle)[4]
                     else (middle, high))
    return high


def unique(load: Load, seconds: float, done: float = 0.0) -> float:
    """
    Return how many bytes of disks are written at least once.

    @done of them were before.
    """
    most = float(max(load.allocated, done))
    if not math.isfinite(seconds):
        return most
    return spread(done, load.written, seconds, most)


def passes(data: float, load: Load, rate: float,
           least: float = 0.0) -> tuple[float, float, float]:
    """
    Return (seconds, bytes, rest) of sending disks until memory begins.

    As migration/wsm/policy/passes.h has it.  @least: seconds that the first
    pass takes in any case, to compare.
    """
    ram = float(max(load.memory, load.touched))
    before, left, seconds, total = math.inf, data, 0.0, 0.0
    for number in range(MAX_ROUNDS):
        took = left / rate if number else max(left / rate, least)
        sent, seconds, total = left, seconds + took, total + left
        left = unique(load, took)
        if (left / rate <= MAX_RESIDUE or left > min(before, sent) / 3
                or left + ram > (sent + ram) / 2
                and left / rate <= 10 * MAX_RESIDUE):
            break
        before = sent
    return seconds, total, left


def basis_of(disk: DiskUse, copies: Sequence[Copy],
             template: bool = False, differs: float = 1.0) -> Basis:
    """
    Return the cheapest thing to build on, in this order of kinds.

    @copies are images of this VM at the destination; @differs is the part of
    the content that differed the last time.
    """
    best: Optional[Basis] = None
    # One of a disk that has grown since is made anew
    copies = [copy for copy in copies if copy.disk == disk.id
              and copy.size in (0, disk.size)]
    for copy in copies:
        if not copy.fits:
            continue
        for point, here in sorted(disk.points.items()):
            there = copy.points.get(point, -1)
            if there is None:
                there = 0
            if there < 0 or copy.state not in ("handed-over", "incomplete",
                                               "current"):
                continue
            kind = "partial" if copy.state == "incomplete" else "sync-point"
            data = min(disk.allocated, here + there)
            if best is None or data < best.data:
                best = Basis(disk.id, kind, data, path=copy.path, reason=(
                    f"{human(here)} written here and {human(there)} there "
                    "since both were equal"))
    if best:
        return best
    old = next((copy for copy in copies if copy.state != "leaving"), None)
    if old or template:
        share = min(1.0, max(0.0, differs))
        return Basis(disk.id, "content", int(disk.allocated
                                             * min(1.0, share + HASHES)),
                     disk.allocated, old.path if old else "",
                     "content is compared: " + (
                         "an old image whose sync points do not fit"
                         if old else "a template"))
    return Basis(disk.id, "full", disk.allocated,
                 reason="nothing of it is there")


def estimate(bases: Sequence[Basis], load: Load, link: Link,
             factor: float = 1.0, pause: float = PAUSE,
             start: float = START) -> Estimate:
    """
    Return what a move costs.

    @factor, @pause and @start are what was learned of this pair of hosts.
    """
    factor = min(FACTOR_LIMIT, max(1 / FACTOR_LIMIT, factor))
    data = float(sum(basis.data for basis in bases))
    hashing = sum(basis.hashed for basis in bases) / min(
        link.disk_read, HASH_SPEED * max(1, min(link.cores, HASH_CORES)))
    disk_seconds, disk_bytes, left = passes(
        DISK_OVERHEAD * data, load, link.rate, hashing)
    ram_seconds, ram_bytes, rest, count, converges = rounds(load, link.rate)
    residue = unique(load, ram_seconds, left)
    post_seconds = residue / link.unlimited + link.rtt
    total = disk_bytes + ram_bytes + rest + residue
    seconds = start + factor * (disk_seconds + ram_seconds + post_seconds)
    # QEMU stops the guest as soon as the rest fits, so it hardly is less
    stop = max(rest, min(load.touched, link.rate * load.downtime))
    downtime = pause + 2 * link.rtt + stop / link.unlimited
    terms = (("start", start), ("disks", disk_seconds), ("hashing", hashing),
             ("memory", ram_seconds), ("post-copy", post_seconds),
             ("factor", factor), ("disk bytes", disk_bytes),
             ("memory bytes", ram_bytes + rest), ("post-copy bytes", residue),
             ("rate", link.rate), ("known", float(link.known)),
             ("round trip", link.rtt))
    return Estimate(
        int(total), seconds, downtime, disk_seconds, ram_seconds,
        post_seconds, count, converges,
        link.rate if converges else needed_rate(load, link.rate),
        CPU_PER_GIB * total / (1 << 30), tuple(bases), terms)


def rate_for(takes: Callable[[float], float], full: float, seconds: float,
             least: float) -> float:
    """
    Return the lowest rate that is done in @seconds; @full if none is.

    For a deadline: as gently as possible.  @takes: seconds at a rate.
    """
    low, high = min(least, full), full
    if takes(high) > seconds or takes(low) <= seconds:
        return high if takes(high) > seconds else low
    while high > low * 1.01:
        middle = math.sqrt(low * high)
        low, high = (low, middle) if takes(middle) <= seconds else (middle,
                                                                    high)
    return high
