# SPDX-License-Identifier: GPL-2.0-or-later
"""Watch each second what VMs here were promised, and hold moves back.

Of VMs at the other host its agent tells; see other.py.  Only VMs whose
description has figures in [sla] are watched: a class alone is no promise, and
a host without promises pays nothing.
"""

import dataclasses
import logging
import math
import time
from dataclasses import dataclass, field
from typing import Callable, Mapping, Optional, Protocol

from wsm.agent import latency, samples
from wsm.agent.monitor import Monitor
from wsm.agent.other import Peers, Told
from wsm.plan import guard, spec
from wsm.plan.guard import Act, Grip, Hold, Seen
from wsm.plan.promise import (FULL, ROOM, Account, Breach, Promise, Reading,
                              Short, Watch)

LOG = logging.getLogger("wsm-agent")
MBIT = 125000.0                 # bytes/s
LEAST = 0.1                     # of a link, for a move in any case
GONE = ("freeze", "postcopy")   # the VM that moves does not run here any more


@dataclass(frozen=True)
class Resident:
    """A VM that runs here."""

    name: str
    pid: int
    sla: spec.Sla
    taps: tuple[str, ...] = ()


class House(Protocol):
    """What is asked of the rest of the agent."""

    def residents(self) -> list[Resident]:
        """Return the VMs that run here."""

    async def monitor(self, name: str) -> Monitor:
        """Return a VM's monitor; raise QmpGone."""


@dataclass
class Held:
    """A move that is guarded."""

    grip: Grip
    since: float
    # What was broken before it, of each VM
    was: Mapping[str, frozenset[str]] = field(default_factory=dict)


def promise_of(sla: spec.Sla) -> Promise:
    """Return what is guarded: figures that were given, not a class's."""
    return Promise(dict(sla.net_mbit_min), sla.cpu_wait_max,
                   sla.io_p95_ms_max, sla.swap_kib_s_max)


def room(mbit: float, taken: float) -> float:
    """
    Return the bytes/s that a link has beside @taken Mbit/s of others.

    Never so few that a move would begin and never end.
    """
    if not mbit or not taken:
        return math.inf
    return max(LEAST * mbit, ROOM * mbit - taken) * MBIT


class Sentry:
    """All guards of a host; used from the event loop only."""

    def __init__(self, house: House, mbit: float, policy: Hold = Hold(),
                 clock: Callable[[], float] = time.monotonic,
                 peers: Optional[Peers] = None) -> None:
        self.house = house
        self.policy = policy
        self.clock = clock
        self.peers = peers or Peers(clock=clock)
        self.device = ""                # of migrations
        self.held: dict[str, Held] = {}         # by move
        self.breaches: tuple[Breach, ...] = ()  # of the last second
        self.near = False               # somebody's disk is nearly too slow
        self._mbit = mbit               # of the link; 0: not known
        self._best = 0.0                # the most that was seen
        self._watches: dict[str, Watch] = {}
        self._accounts: dict[str, Account] = {}
        self._last: Optional[samples.Counters] = None
        self._swap: dict[str, int] = {}
        self._latencies = latency.Latencies(house.monitor)

    # Looking

    async def look(self) -> None:
        """Take in a second."""
        wanted = {each.name: each for each in self.house.residents()
                  if promise_of(each.sla) != Promise()}
        for name in set(self._watches) - set(wanted):
            self._forget(name)
        old, self._last = self._last, None
        if not wanted:
            self.breaches, self.near = (), False
            return
        now = self.clock()
        new = samples.count([each.pid for each in wanted.values()
                             if each.sla.cpu_wait_max is not None], now)
        self._last = new
        if old is None or new.at <= old.at:
            return
        found, near = list[Breach](), False
        full = self._is_full(old, new)
        for each in wanted.values():
            promise = promise_of(each.sla)
            watch = self._watches.setdefault(
                each.name, Watch(each.name, promise))
            watch.promise = promise     # it may be another one now
            reading = dataclasses.replace(
                await self._reading(each, old, new), full=full)
            broken = watch.breaches(now, reading)
            self._accounts.setdefault(each.name, Account()).add(broken,
                                                                reading)
            found += broken
            near = near or watch.near(reading)
            if not self.held:
                watch.remember(now, reading)
        self.breaches, self.near = tuple(found), near

    def _forget(self, name: str) -> None:
        self._watches.pop(name, None)
        self._accounts.pop(name, None)
        self._swap.pop(name, None)
        self._latencies.forget(name)

    async def _reading(self, vm: Resident, old: samples.Counters,
                       new: samples.Counters) -> Reading:
        seconds = new.at - old.at
        wire = [samples.speed(old, new, tap, seconds) for tap in vm.taps]
        ran = wait = 0.0
        if vm.pid in old.spent:
            (ran0, wait0), (ran1, wait1) = old.spent[vm.pid], new.spent[vm.pid]
            ran, wait = ran1 - ran0, wait1 - wait0
        total = ran + wait
        bins = (await self._latencies.of(vm.name)
                if vm.sla.io_p95_ms_max else [])
        return Reading(
            # What a host receives from a tap is what the VM sends
            {"out": sum(each[0] for each in wire) / MBIT,
             "in": sum(each[1] for each in wire) / MBIT} if wire else {},
            wait=wait / total if total > 0 else None, cores=total / seconds,
            io_p95=latency.p95(bins), requests=sum(bins),
            swap=self._swapping(vm, seconds))

    def _is_full(self, old: samples.Counters, new: samples.Counters) -> bool:
        """Return whether the link of moves has no room, in one direction."""
        used = max(samples.speed(old, new, self.device,
                                 new.at - old.at)) / MBIT
        self._best = max(self._best, used)
        return used > 0 and used >= FULL * (self._mbit or self._best)

    def _swapping(self, vm: Resident, seconds: float) -> Optional[float]:
        if vm.sla.swap_kib_s_max is None:
            return None
        _, swapped = samples.memory_of(vm.pid)
        before = self._swap.get(vm.name, swapped)
        self._swap[vm.name] = swapped
        return max(0, swapped - before) / 1024 / seconds

    def short(self, vm: str) -> Short:
        """Return what a VM had too little of since this was last asked."""
        return self._accounts.get(vm, Account()).close()

    # Holding

    def watches(self) -> bool:
        """Return whether anybody here was promised anything."""
        return bool(self._watches)

    def cares(self, move: str) -> bool:
        """Return whether a move must be looked at, for somebody's sake."""
        return self.watches() or self.peers.watches(move)

    def grant(self, given: int, phase: str) -> float:
        """
        Return what a move may use, in bytes/s: no more than the link has.

        Of a link whose speed nobody has told it is known only afterwards what
        it can do; post-copy is held at a part of that.
        """
        link = self._mbit or (self._best if phase == "postcopy" else 0.0)
        return min(given, link * MBIT) if link else given

    def leaves(self, way: str, but: str = "", at_begin: bool = False) -> float:
        """
        Return the bytes/s that VMs here leave to a move, in a direction.

        By what they use; before it begins also what they were promised is
        left to them, as they may want it as soon as they cannot get it.
        """
        taken = 0.0
        for name, watch in self._watches.items():
            if name != but and way in watch.promise.net:
                taken += max(watch.uses(way), at_begin
                             * watch.promise.net[way])
        return room(self._mbit, taken)

    def told(self, move: str, vm: str) -> Told:
        """
        Return what the source of a move of @vm must know of this host.

        What comes in here for VMs goes the way of the move.
        """
        held = self._held(move, Grip(0.0))
        broken = tuple(
            each for each in self.breaches if each.vm != vm
            and each.what not in held.was.get(each.vm, ()))
        now, begin = (None if math.isinf(each) else each for each in (
            self.leaves("in", vm), self.leaves("in", vm, True)))
        return Told(self.watches(), broken, now, begin, self.heeds_disks(vm),
                    self.near)

    def heeds_disks(self, but: str) -> bool:
        """Return whether others' disks were promised to be fast."""
        return any(watch.promise.io_p95 for name, watch
                   in self._watches.items() if name != but)

    def begins(self, move: str, vm: str, grant: float) -> Grip:
        """A move begins that may use @grant; return its rate for now."""
        rate = min(grant, self.leaves("out", vm, True),
                   self.peers.leaves(move, True))
        slow = min(rate, self.policy.disk)
        if self.heeds_disks(vm) or self.peers.heeds_disks(move):
            found = Grip(slow, disk=rate == grant > slow)
        else:
            found = Grip(rate)
        self.held[move] = Held(found, self.clock())
        return found

    def _held(self, move: str, was: Grip) -> Held:
        """Return a move; of one that is new, @was is set."""
        held = self.held.setdefault(move, Held(was, self.clock()))
        if not held.was:
            held.was = {name: watch.was(held.since)
                        for name, watch in self._watches.items()}
        return held

    def ended(self, move: str) -> None:
        """Forget a move."""
        self.held.pop(move, None)
        self.peers.forget(move)

    def decide(self, move: str, vm: str, was: Grip,
               seen: Seen) -> tuple[Grip, Act]:
        """
        Return what is to be done with a move of @vm in this second.

        @was: what is set; for an agent that has just started.
        """
        held = self._held(move, was)
        here = [each for each in self.breaches
                if each.what not in held.was.get(each.vm, ())
                and not (each.vm == vm and seen.phase in GONE)]
        seen = dataclasses.replace(
            seen, breaches=[*here, *self.peers.breaches(move)], room=min(
                self.leaves("out", vm), self.peers.leaves(move)),
            near=self.near or self.peers.near(move))
        held.grip, act = guard.hold(held.grip, seen, self.policy)
        if act is not Act.NOTHING:
            LOG.info("move %s: %s, %.1f MiB/s: %s", move, act.value,
                     held.grip.rate / (1 << 20), held.grip.why)
        return held.grip, act
