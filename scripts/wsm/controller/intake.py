# SPDX-License-Identifier: GPL-2.0-or-later
"""Turn what agents say into the planner's Fleet.

What an agent says is data: it is taken if it can be, else dropped and counted.
What was not said stays as it was, and gets old; nothing is taken for idle.
"""

import dataclasses
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import Callable, Iterable, Mapping

from wsm.cli.home import HostEntry
from wsm.controller.placing import Rule, by_vm, for_planner, ruled
from wsm.plan.ends import File
from wsm.plan.filters import needs_of
from wsm.plan.fleet import ABSURD, Fleet, Flight, Guest, Node
from wsm.plan.inventory import Copy, Host, HostState, VmUse
from wsm.plan.plain import BadData
from wsm.plan.measured import Samples, VmSample
from wsm.plan.spec import NAME, Spec

HERE = (File.OWNER, File.LEAVING)
FRESH = 600.0                   # s for which a look at a VM's inside is good
LEAST = 0.05                    # cores of which a part that waits says something
RETRY = 60.0                    # s until one that did not work is tried again


@dataclass(frozen=True)
class Detail:
    """A VM's description, and what it has."""

    use: VmUse
    spec: Spec
    at: float
    epoch: int
    changed: int


@dataclass
class Intake:
    """Keeps @fleet, which nobody else changes but who lands a move."""

    fleet: Fleet
    joined: Callable[[str], float]      # when a host joined, s
    seen: dict[str, int] = field(default_factory=dict)      # host: sequence
    vms: dict[str, dict[str, VmSample]] = field(default_factory=dict)
    details: dict[str, Detail] = field(default_factory=dict)
    tried: dict[str, float] = field(default_factory=dict)   # VM: looked at
    swapped: dict[str, tuple[float, int]] = field(default_factory=dict)
    copies: dict[str, tuple[Copy, ...]] = field(default_factory=dict)
    dropped: Counter[str] = field(default_factory=Counter)  # host: samples
    split: set[str] = field(default_factory=set)    # VMs with two owners
    foreign: dict[str, Flight] = field(default_factory=dict)
    heard: set[str] = field(default_factory=set)    # hosts, in this round

    # Hosts

    def begin(self, now: float, entries: Mapping[str, HostEntry]) -> None:
        """Begin a round: forget hosts that were removed, and their VMs."""
        self.fleet.now = now
        at = time.localtime(now)
        self.fleet.local = (at.tm_wday * 86400.0 + at.tm_hour * 3600
                            + at.tm_min * 60 + at.tm_sec)
        self.heard = set()
        for name in set(self.fleet.nodes) - set(entries):
            for vm in list(self.fleet.nodes[name].guests):
                self.forget(vm)
            del self.fleet.nodes[name]
            self.vms.pop(name, None)
            self.copies.pop(name, None)
        for name, entry in entries.items():
            node = self.fleet.nodes.get(name)
            state = state_of(entry)
            if node and node.host.state is not state:
                node.host = dataclasses.replace(node.host, state=state)

    def take(self, name: str, found: Samples, entry: HostEntry,
             off: float = 0.0) -> bool:
        """
        Take a sample of a host; return whether it was believed.

        @off is by how much its clock differs, in s.  One that was taken
        already, or is too old, says nothing.
        """
        if found.seq == self.seen.get(name):
            return True
        if not believable(name, found) or found.age > 3 * self.fleet.interval:
            self.dropped[name] += 1
            return False
        self.seen[name] = found.seq
        self.heard.add(name)
        node = self._node(name, found.host)
        node.host = dataclasses.replace(
            found.host, state=state_of(entry), clock_off=off,
            copies=self.copies.get(name, ()))
        node.capacity = {**node.capacity, **capacity(found)}
        self.vms[name] = {vm.name: vm for vm in found.vms}
        good = [self.fleet.take(name, each, value)
                for each, value in used(found).items()]
        good += [self.fleet.take(name, each, value)
                 for each, value in signs(found).items()]
        if not all(good):
            self.dropped[name] += 1
        return all(good)

    def _node(self, name: str, host: Host) -> Node:
        node = self.fleet.nodes.get(name)
        if node is None:
            node = self.fleet.add_host(host)
            node.joined = self.joined(name)
        return node

    # VMs

    def owners(self) -> dict[str, str]:
        """Return the host of each VM that runs; one with two has none."""
        found: dict[str, str] = {}
        self.split = set()
        # What was heard now counts more than what a silent host once said
        for host in sorted(self.vms, key=lambda each: (each in self.heard,
                                                       each)):
            for name, vm in self.vms[host].items():
                if vm.owner not in HERE or not vm.runs:
                    continue
                other = found.get(name)
                if other and (other in self.heard) == (host in self.heard):
                    self.split.add(name)
                found[name] = host
        return {vm: host for vm, host in found.items()
                if vm not in self.split and host in self.fleet.nodes}

    def wanted(self, owners: Mapping[str, str]) -> list[tuple[str, str]]:
        """Return (host, VM) of what must be looked at again, the oldest first."""
        found = []
        for vm, host in owners.items():
            sample, known = self.vms[host][vm], self.details.get(vm)
            if self.fleet.now - self.tried.get(vm, -RETRY) < RETRY:
                continue
            if (known is None or known.use.host != host
                    or known.changed != sample.changed
                    or self.fleet.now - known.at > FRESH):
                found.append((known.at if known else -1.0, host, vm))
        return [(host, vm) for _, host, vm in sorted(found)]

    def learn(self, vm: str, use: VmUse, described: Spec) -> None:
        """Take in what a look at a VM has shown; raise BadData."""
        sample = self.vms.get(use.host, {}).get(vm)
        if sample is None or use.name != vm or described.name != vm:
            raise BadData(f"{use.host} says of {vm[:80]!r} what is another's")
        self.details[vm] = Detail(use, described, self.fleet.now,
                                  sample.epoch, sample.changed)

    def settle(self, owners: Mapping[str, str], rules: Iterable[Rule],
               ours: Mapping[str, Flight]) -> None:
        """Put VMs where they are, with what they use now."""
        rules = list(rules)
        self.fleet.rules = for_planner(rules)
        modes, copies = by_vm(rules), self._old_images()
        for vm in set(self.fleet.guests) - set(owners):
            # Whose host is silent stays, as long as nobody else has it
            if vm in self.split or self.fleet.guests[vm].use.host in self.vms:
                self.forget(vm)
        for vm, host in owners.items():
            detail = self.details.get(vm)
            if detail is None:
                continue
            if vm in self.fleet.guests and (
                    self.fleet.guests[vm].use.host != host):
                self.fleet.move(vm, host)
            self._refresh(vm, host, detail, modes.get(vm, ()))
            self.fleet.guests[vm].copies = copies.get(vm, set())
        self.foreign = self._foreign(owners, ours)

    def _old_images(self) -> dict[str, set[str]]:
        """Return the hosts at which old images of a VM lie, for each VM."""
        found: dict[str, set[str]] = {}
        for host, copies in self.copies.items():
            for copy in copies:
                found.setdefault(copy.vm, set()).add(host)
        return found

    def _refresh(self, vm: str, host: str, detail: Detail,
                 rules: Iterable[Rule]) -> None:
        sample = self.vms[host][vm]
        use = dataclasses.replace(
            detail.use, host=host, moving=sample.moving,
            touched=sample.resident or detail.use.touched)
        spec = ruled(detail.spec, rules)
        needs = needs_of(use, spec)
        guest = self.fleet.guests.get(vm)
        if guest is None:
            guest = self.fleet.add_guest(use, spec, needs)
        self.fleet.describe(guest, use, spec, needs)
        now = self.fleet.now
        if host not in self.heard:
            return
        if sample.cpu <= ABSURD * max(1, use.vcpus):
            guest.load["cpu"].add(now, sample.cpu)
        for name in ("rx", "tx", "disk"):
            guest.load[name].add(now, getattr(sample, name))
        if sample.cpu > LEAST:
            self.fleet.take_sign(vm, "wait", sample.wait / sample.cpu)
        swapped = self.swapped.get(vm)
        if swapped and now > swapped[0]:
            self.fleet.take_sign(vm, "swap", max(
                0, sample.swap - swapped[1]) / (now - swapped[0]))
        self.swapped[vm] = now, sample.swap
        there = self.fleet.nodes[host].host
        if not (there.moves_in or there.moves_out):
            self._short(guest, sample)

    def _short(self, guest: Guest, sample: VmSample) -> None:
        """
        Take in what of its promises a VM does not get.

        Not while its host moves VMs: that is what the agents' guard is for.
        """
        for name, promise in guest.promise.items():
            self.fleet.take_lack(sample.name, name, min(
                promise, getattr(sample, f"lack_{name}")))
        if sample.latency:
            self.fleet.take_sign(sample.name, "latency", sample.latency)

    def _foreign(self, owners: Mapping[str, str],
                 ours: Mapping[str, Flight]) -> dict[str, Flight]:
        """Return the moves that somebody else drives; they count, too."""
        found = {}
        for vm, host in owners.items():
            sample = self.vms[host][vm]
            if (sample.moving and vm not in ours and vm in self.fleet.guests
                    and sample.peer in self.fleet.nodes
                    and sample.peer != host):
                found[vm] = Flight(vm, host, sample.peer, "", False)
        return found

    def forget(self, vm: str) -> None:
        """A VM does not run any more."""
        guest = self.fleet.guests.pop(vm, None)
        if guest and guest.use.host in self.fleet.nodes:
            self.fleet.nodes[guest.use.host].guests.discard(vm)
        self.fleet.flights.pop(vm, None)
        self.details.pop(vm, None)
        self.tried.pop(vm, None)
        self.swapped.pop(vm, None)


def state_of(entry: HostEntry) -> HostState:
    """
    Return the state of a host for the planner.

    One that wsmctl drains is emptied by wsmctl; here it only takes no VM.
    """
    state = HostState(entry.state)
    return HostState.CORDONED if state is HostState.DRAINING else state


def signs(found: Samples) -> dict[str, float]:
    """Return signs of trouble of a host; see fleet.SIGNS."""
    host = found.host
    values = {"swap": found.swap,
              "memory": 1 - host.available / max(host.memory, 1)}
    wants = sum(vm.cpu for vm in found.vms)
    if wants > LEAST:
        values["wait"] = min(1.0, sum(vm.wait for vm in found.vms) / wants)
    if "memory.full" in found.psi:
        values["stall"] = min(1.0, found.psi["memory.full"])
    return values


def believable(name: str, found: Samples) -> bool:
    """Return whether a sample is of that host, and can be."""
    figures = [found.seconds, found.age, found.steal, found.swap,
               found.host.cores, found.host.memory, found.host.mbit,
               *(figure for vm in found.vms for figure in (
                   vm.cpu, vm.wait, vm.rx, vm.tx, vm.disk, vm.lack_rx,
                   vm.lack_tx, vm.latency))]
    return (found.host.name == name and found.seconds > 0
            and found.host.cores > 0 and min(figures) >= 0
            and found.host.available <= found.host.memory
            and all(NAME.fullmatch(vm.name) for vm in found.vms))


def capacity(found: Samples) -> dict[str, float]:
    """Return what a host can give: less what its own host took from it."""
    wire = found.host.mbit * 1e6 / 8
    return {"cpu": found.host.cores * (1 - min(found.steal, 0.9)),
            "rx": wire, "tx": wire, "disk": 1.0}


def used(found: Samples) -> dict[str, float]:
    """
    Return what a host uses of each resource.

    While it moves VMs, what goes over its wire is more than what they need:
    then what goes to and from them counts.
    """
    values = {"cpu": found.cpu, "rx": found.rx, "tx": found.tx,
              "disk": found.disk}
    if found.host.moves_in or found.host.moves_out:
        for way in ("rx", "tx"):
            values[way] = min(values[way], sum(getattr(vm, way)
                                               for vm in found.vms))
    return values
