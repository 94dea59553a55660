# SPDX-License-Identifier: GPL-2.0-or-later
"""Hosts and VMs with what they used lately: what a decision is made of.

Whoever collects samples keeps one Fleet; planner.decide() only reads it.
"""

import dataclasses
import math
from dataclasses import dataclass, field
from typing import Mapping

from wsm.plan.inventory import Host, VmUse
from wsm.plan.ruling import Rule
from wsm.plan.series import RING, Series
from wsm.plan.spec import Spec

# What VMs share on a host, in cores, bytes/s, bytes/s, and time (1: all)
ABSURD = 2.0                    # times what can be
RESOURCES = ("cpu", "rx", "tx", "disk")
# Signs of trouble of a host, if its agent knows them, and the most that can be:
# part of the demand that waits for a CPU, of the memory that is in use, of the
# time in which nothing runs for want of memory, s that a disk takes, 1: well
SIGNS = {"wait": 1.0, "memory": 2.0, "stall": 1.0, "latency": 60.0,
         "health": 1.0}
# Of a VM: the same; bytes/s of it that are swapped out
GUEST_SIGNS = {"wait": 1.0, "latency": 60.0, "swap": math.inf}
Loads = dict[str, Series]


def loads(interval: float) -> Loads:
    """Return empty series."""
    return {name: Series(interval) for name in RESOURCES}


def promises(spec: Spec) -> dict[str, float]:
    """
    Return what a VM was promised of resources that are shared.

    Received and sent are as a host sees it: what comes in for the VM goes
    through the host's "rx".
    """
    wire = spec.sla.net_mbit_min
    return {name: wire[way] * 1e6 / 8 for name, way in (("rx", "in"),
                                                        ("tx", "out"))
            if way in wire}


@dataclass
class Guest:
    """A VM."""

    use: VmUse
    spec: Spec
    needs: Mapping[str, int]            # pool: bytes that its images need
    load: Loads
    # What it was promised of a resource, and lacks of that if it wants it
    promise: Mapping[str, float] = field(default_factory=dict)
    lacks: Loads = field(default_factory=dict)
    signs: Loads = field(default_factory=dict)          # some of GUEST_SIGNS
    copies: set[str] = field(default_factory=set)   # hosts with an old image


@dataclass
class Node:
    """A host."""

    host: Host
    capacity: Mapping[str, float]       # 0.0: not known, so never too small
    load: Loads
    swap: Series                        # bytes/s that are swapped out
    joined: float = 0.0                 # s
    guests: set[str] = field(default_factory=set)
    signs: Loads = field(default_factory=dict)          # some of SIGNS
    nonsense: int = 0                   # samples that were not believed


@dataclass(frozen=True)
class Flight:
    """A move that is under way: the VM counts at both ends."""

    vm: str
    source: str
    to: str
    spot: str                           # key of that which it is for
    hard: bool                          # it broke the cooling of the VM
    goal: float = math.inf              # what the spot must be at most then
    bytes: int = 0                      # that it is said to send
    due: float = 0.0                    # when it must have ended; 0: any time


@dataclass(frozen=True)
class Errand:
    """A VM that a person wants elsewhere by a time; see errand.py."""

    vm: str
    due: float                          # s, of the fleet's clock
    to: str = ""                        # the host on which it is to be,
    away: str = ""                      # or if any will do, the one it leaves
    who: str = ""
    at: float = 0.0                     # when that was said


@dataclass
class Fleet:
    """All of it, as of @now (s, any clock)."""

    interval: float
    now: float = 0.0
    nodes: dict[str, Node] = field(default_factory=dict)
    guests: dict[str, Guest] = field(default_factory=dict)
    flights: dict[str, Flight] = field(default_factory=dict)
    rules: tuple[Rule, ...] = ()
    local: float = 0.0          # s since Monday began, as people there have it
    # Nobody need look at VMs that have lacked nothing lately (what is promised
    # anew counts from then on), or that may be on any host
    uneasy: dict[str, float] = field(default_factory=dict)  # VM: lacked when
    pinned: set[str] = field(default_factory=set)
    errands: tuple[Errand, ...] = ()
    dues: Mapping[str, float] = field(default_factory=dict)     # host: empty by

    def add_host(self, host: Host, disk: float = 1.0) -> Node:
        """Let a host join; return it."""
        wire = host.mbit * 1e6 / 8
        node = Node(host, {"cpu": host.cores, "rx": wire, "tx": wire,
                           "disk": disk}, loads(self.interval),
                    Series(self.interval), self.now)
        self.nodes[host.name] = node
        return node

    def add_guest(self, use: VmUse, spec: Spec,
                  needs: Mapping[str, int]) -> Guest:
        """Let a VM be where @use says; return it."""
        promise = promises(spec)
        guest = Guest(use, spec, needs, loads(self.interval), promise,
                      {each: Series(self.interval) for each in promise})
        self.guests[use.name] = guest
        self.nodes[use.host].guests.add(use.name)
        self.describe(guest, use, spec, needs)
        return guest

    def describe(self, guest: Guest, use: VmUse, spec: Spec,
                 needs: Mapping[str, int]) -> None:
        """A VM is so now."""
        if spec is not guest.spec:
            guest.promise = promises(spec)
            guest.lacks = {each: guest.lacks.get(each, Series(self.interval))
                           for each in guest.promise}
        guest.use, guest.spec, guest.needs = use, spec, needs
        (self.pinned.add if spec.placement.pin else self.pinned.discard)(
            use.name)

    def move(self, vm: str, to: str) -> None:
        """
        A move has ended: the VM is there now, and so is its history.

        Both hosts' hours are what they would have been, so that neither is
        judged by a VM that it no longer has, or has just got.
        """
        guest = self.guests[vm]
        source, there = self.nodes[guest.use.host], self.nodes[to]
        source.guests.discard(vm)
        there.guests.add(vm)
        for name in RESOURCES:
            source.load[name].include(guest.load[name], -1)
            there.load[name].include(guest.load[name], 1)
        guest.use = dataclasses.replace(guest.use, host=to)

    def take(self, host: str, name: str, value: float) -> bool:
        """
        Take a sample of a host, as of now; return whether it was believed.

        @name is a resource, a sign, or "swap".  A sensor may lie: what cannot
        be is not taken, and so after a while nothing is known of that host.
        """
        node = self.nodes[host]
        most = SIGNS.get(name, math.inf)
        if name in RESOURCES:
            most = ABSURD * max(node.capacity[name], sum(
                self.guests[vm].use.vcpus for vm in node.guests)
                if name == "cpu" else 0.0) or math.inf
        if not 0.0 <= value <= most or math.isinf(value):
            node.nonsense += 1
            return False
        self.series(node, name).add(self.now, value)
        return True

    def series(self, node: Node, name: str) -> Series:
        """Return the series of a resource or sign of a host."""
        if name == "swap":
            return node.swap
        if name in RESOURCES:
            return node.load[name]
        return node.signs.setdefault(name, Series(self.interval))

    def take_sign(self, vm: str, name: str, value: float) -> bool:
        """Take a sign of a VM; return whether it was believed."""
        if not 0.0 <= value <= GUEST_SIGNS[name] or math.isinf(value):
            return False
        guest = self.guests[vm]
        guest.signs.setdefault(name, Series(self.interval)).add(
            self.now, value)
        self._note(vm, value > guest.spec.sla.signs.get(name, math.inf))
        return True

    def take_lack(self, vm: str, name: str, value: float) -> None:
        """Take what a VM lacks of a resource that it was promised."""
        self.guests[vm].lacks[name].add(self.now, value)
        self._note(vm, value > 0.0)

    def _note(self, vm: str, lacks: bool) -> None:
        if lacks:
            self.uneasy[vm] = self.now
        elif (vm in self.uneasy and self.now - self.uneasy[vm]
              > (RING + 1) * self.interval):
            del self.uneasy[vm]

    def is_known(self, name: str, stale: float) -> bool:
        """Whether a host was heard of lately, in @stale intervals."""
        return (self.now - self.nodes[name].load["cpu"].last
                <= stale * self.interval)
