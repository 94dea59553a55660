# SPDX-License-Identifier: GPL-2.0-or-later
"""Hosts and VMs that use what they are told to, on a clock of their own.

Whatever moves VMs sees a Fleet as an agent's samples would fill it.  A move
takes the time and the bytes that the estimate says, and counts at both ends.
"""

import dataclasses
import math
from abc import ABC, abstractmethod
from collections import Counter
from dataclasses import dataclass, field
from typing import Mapping

from wsm.plan.estimate import Basis, Estimate, Link, Load, estimate
from wsm.plan.fleet import RESOURCES, Fleet, Flight, Guest, Node
from wsm.plan.inventory import DiskUse, Host, Qemu, VmUse
from wsm.plan.pace import Due
from wsm.plan.past import Past, trip_of

SHARE = 0.8                     # of a link that moves may have
LEAST = 0.25                    # of it: on a full one, a move competes
AGAIN = 3600.0                  # s
BACK = 21600.0                  # s
SWAPPED = 10.0                  # s in which what does not fit is swapped out
USED = 0.02                     # of a host: who uses less is not hurt


QEMU = Qemu("", "10.0", "qemu-wsm", ("pc",))


def a_host(name: str, cores: float, memory: int, mbit: int,
           tags: tuple[str, ...] = ()) -> Host:
    """Return an empty host, as an agent would describe it."""
    return Host(name, cores, memory, memory, address=name, mbit=mbit,
                qemus={"": QEMU}, reserve_cores=0.0, tags=tags)


def a_vm(name: str, host: str, vcpus: int, memory: int, disk: DiskUse,
         dirty: Mapping[str, int], managed: str = "",
         machine: str = "") -> VmUse:
    """Return a VM that runs on any of these hosts; see VmUse."""
    return VmUse(name, host, vcpus, memory, memory // 2,
                 machine=machine or QEMU.machines[0], managed=managed,
                 package=QEMU.package,
                 version=QEMU.version, disks=(disk,), dirty=dirty)


class Loads(ABC):
    """What VMs want."""

    @abstractmethod
    def wants(self, vm: str, now: float) -> Mapping[str, float]:
        """Return what a VM wants of each resource that it uses."""

    @abstractmethod
    def touched(self, vm: str, now: float) -> int:
        """Return the bytes of its RAM that it uses."""

    def host_signs(self, _host: str, _now: float) -> Mapping[str, float]:
        """Return what else is seen of a host; see fleet.SIGNS."""
        return {}

    def guest_signs(self, _vm: str, _now: float) -> Mapping[str, float]:
        """Return what else is seen of a VM; see fleet.GUEST_SIGNS."""
        return {}

    @abstractmethod
    def written(self, vm: str, since: float, now: float) -> float:
        """Return the bytes of its disks that it has written meanwhile."""


def nothing() -> dict[str, float]:
    """Return no amount of each resource."""
    return dict.fromkeys(RESOURCES, 0.0)


@dataclass
class Tally:
    """What became of the VMs, and what it cost."""

    wanted: dict[str, float] = field(default_factory=nothing)
    unmet: dict[str, float] = field(default_factory=nothing)
    vm_steps: int = 0
    hurt: int = 0               # of them, on a host that was too small
    moves: int = 0
    bytes: int = 0
    again: int = 0              # moved twice within an hour
    back: int = 0               # on a former host within 6 hours
    longest: int = 0            # steps that a host was too small, on end


@dataclass
class World:
    """All of it at one moment; step() goes on by fleet.interval."""

    fleet: Fleet
    loads: Loads
    past: Past = field(default_factory=Past)
    tally: Tally = field(default_factory=Tally)
    ends: dict[str, float] = field(default_factory=dict)    # VM: when
    # VM: host: since when what lies there is old; None: nobody knows
    copies: dict[str, dict[str, float | None]] = field(default_factory=dict)
    short: Counter[str] = field(default_factory=Counter)
    silent: set[str] = field(default_factory=set)   # hosts without samples
    dead: set[str] = field(default_factory=set)     # hosts, with their moves
    broken: set[str] = field(default_factory=set)   # VMs whose moves fail
    lies: dict[tuple[str, str], float] = field(default_factory=dict)
    signs: bool = False             # whether signs of trouble are measured
    # What moves of a VM would cost now, by rate and basis
    _costs: dict[tuple[str, float, Basis], Estimate] = field(
        default_factory=dict)

    # Moves

    def basis(self, guest: Guest, to: str) -> Basis:
        """Return what the disks of a VM are built on at a host."""
        vm = guest.use.name
        data = sum(disk.allocated for disk in guest.use.disks)
        there = self.copies.get(vm, {})
        if to not in there:
            return Basis("all", "full", data)
        since = there[to]
        if since is None:
            return Basis("all", "content", data, data)
        new = self.loads.written(vm, since, self.fleet.now)
        return Basis("all", "sync-point", min(data, int(new)))

    def cost(self, guest: Guest, to: str) -> Estimate:
        """Return what a move costs; see planner.Cost."""
        rate = min(self.free(guest.use.host, "tx"), self.free(to, "rx"))
        basis = self.basis(guest, to)
        key = guest.use.name, rate, basis
        if key not in self._costs:
            self._costs[key] = estimate([basis], self.load(guest), Link(rate))
        return self._costs[key]

    def load(self, guest: Guest) -> Load:
        """Return what a VM does while it moves."""
        now = self.fleet.now
        written = self.loads.written(guest.use.name, now - AGAIN, now) / AGAIN
        return Load(guest.use.touched, guest.use.dirty, guest.use.memory,
                    written, sum(disk.allocated for disk in guest.use.disks))

    def free(self, host: str, resource: str) -> float:
        """Return what a move gets of a host's link, bytes/s."""
        node = self.fleet.nodes[host]
        unit = node.capacity[resource]
        return max(LEAST * unit, min(SHARE * unit,
                                     unit - node.load[resource].now))

    def begin(self, vm: str, to: str, spot: str = "", hard: bool = False,
              goal: float = math.inf, due: float = 0.0) -> Flight:
        """Begin a move; one that is @due takes its time until then."""
        guest, now = self.fleet.guests[vm], self.fleet.now
        cost = self.cost(guest, to)
        flight = Flight(vm, guest.use.host, to, spot, hard, goal, cost.bytes,
                        due)
        self.fleet.flights[vm] = flight
        self.ends[vm] = now + max(cost.seconds, Due(now, due).aim(now)
                                  if due else 0.0)
        self.past.note_begin(now, flight)
        trips = self.past.trips.get(vm, [])
        self.tally.moves += 1
        self.tally.bytes += cost.bytes
        self.tally.again += bool(trips) and now - trips[-1].at < AGAIN
        self.tally.back += any(each.source == to and now - each.at < BACK
                               for each in trips)
        return flight

    def break_move(self, vm: str) -> None:
        """A move fails: the VM is where it was."""
        source = self.fleet.flights.pop(vm).source
        del self.ends[vm]
        self.past.note_failed(self.fleet.now)
        self.past.note_stayed(vm, source, self.fleet.now)

    def end(self, vm: str) -> None:
        """A VM ends, and with it its move."""
        self.fleet.flights.pop(vm, None)
        self.ends.pop(vm, None)
        host = self.fleet.guests[vm].use.host
        self.use_memory(host, vm, -1)
        self.fleet.nodes[host].guests.discard(vm)
        del self.fleet.guests[vm]

    def land(self) -> None:
        """End the moves that are done by now."""
        now = self.fleet.now
        for vm in [vm for vm, end in self.ends.items() if end <= now]:
            ends = self.fleet.flights[vm]
            if vm in self.broken or self.dead & {ends.source, ends.to}:
                self.break_move(vm)
                continue
            flight = self.fleet.flights.pop(vm)
            del self.ends[vm]
            self.fleet.move(vm, flight.to)
            copies = self.copies.setdefault(vm, {})
            copies[flight.source] = now
            copies.pop(flight.to, None)
            guest = self.fleet.guests[vm]
            guest.copies = set(copies)
            self.past.note_end(vm, trip_of(flight, now))
            self.use_memory(flight.source, vm, -1)
            self.use_memory(flight.to, vm, 1)

    def use_memory(self, host: str, vm: str, sign: int) -> None:
        """A VM has come to a host (@sign 1), or left it (-1)."""
        node = self.fleet.nodes[host]
        node.host = dataclasses.replace(
            node.host, available=node.host.available
            - sign * self.fleet.guests[vm].use.memory)

    # Time

    def step(self) -> None:
        """Go on: what is wanted, what hosts can give, what is measured."""
        fleet = self.fleet
        fleet.now += fleet.interval
        self._costs.clear()
        wants = {vm: self.loads.wants(vm, fleet.now) for vm in fleet.guests}
        for name, node in fleet.nodes.items():
            # fsum: a set has no order, and a sum must not depend on one
            there = [wants[vm] for vm in node.guests]
            total = {each: math.fsum([want[each] for want in there
                                      if each in want])
                     for each in RESOURCES}
            parts = {each: min(1.0, node.capacity[each] / max(value, 1e-9))
                     for each, value in total.items()}
            self.count(name, node, total, wants)
            if name in self.silent:
                continue
            self.sense(name, node, total)
            for vm in node.guests:
                self.measure(vm, parts, wants[vm])
        self.land()

    def sense(self, name: str, node: Node,
              total: Mapping[str, float]) -> None:
        """Take the samples of a host."""
        now = self.fleet.now
        for each, value in total.items():
            # What waits for a CPU is seen, what waits for a wire is not
            lie = self.lies.get((name, each))
            if lie is not None:
                self.fleet.take(name, each, lie)
                continue
            node.load[each].add(now, value if each == "cpu" else
                                min(value, node.capacity[each]))
        self.remember(node)
        if not self.signs:
            return
        waits = max(0.0, 1 - node.capacity["cpu"] / max(total["cpu"], 1e-9))
        used = math.fsum(self.fleet.guests[vm].use.touched
                         for vm in node.guests)
        for sign, value in {"wait": waits, "memory": used / node.host.memory,
                            **self.loads.host_signs(name, now)}.items():
            self.fleet.take(name, sign, value)

    def remember(self, node: Node) -> None:
        """Take the sample of memory: what does not fit is swapped out."""
        used = 0
        for vm in node.guests:
            guest = self.fleet.guests[vm]
            touched = self.loads.touched(vm, self.fleet.now)
            if touched != guest.use.touched:
                guest.use = dataclasses.replace(guest.use, touched=touched)
            used += touched
        node.swap.add(self.fleet.now,
                      max(0, used - node.host.memory) / SWAPPED)

    def measure(self, vm: str, parts: Mapping[str, float],
                want: Mapping[str, float]) -> None:
        """
        Take the sample of a VM: what it got, and lacks of its promises.

        @parts are what its host gives of all that is wanted.
        """
        guest, now = self.fleet.guests[vm], self.fleet.now
        for sign, value in self.loads.guest_signs(vm, now).items():
            self.fleet.take_sign(vm, sign, value)
        for each, value in want.items():
            part = parts[each]
            got = value if each == "cpu" else value * part
            guest.load[each].add(now, got)
            if each in guest.lacks:
                promise = guest.promise.get(each, 0.0)
                self.fleet.take_lack(vm, each, max(
                    0.0, min(value, promise) - value * part))

    def count(self, name: str, node: Node, total: Mapping[str, float],
              wants: Mapping[str, Mapping[str, float]]) -> None:
        """Tally what a host could not give."""
        self.tally.vm_steps += len(node.guests)
        short = {each for each, value in total.items()
                 if value > node.capacity[each]}
        for each, value in total.items():
            self.tally.wanted[each] += value
            if each in short:
                self.tally.unmet[each] += value - node.capacity[each]
        self.short[name] = self.short[name] + 1 if short else 0
        self.tally.longest = max(self.tally.longest, self.short[name])
        if short:
            self.tally.hurt += sum(
                any(wants[vm].get(each, 0.0) > USED * node.capacity[each]
                    for each in short) for vm in node.guests)
