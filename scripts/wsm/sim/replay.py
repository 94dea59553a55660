# SPDX-License-Identifier: GPL-2.0-or-later
"""A world in which VMs do what those of a trace did."""

import random
from typing import Mapping

from wsm.plan.fleet import Fleet
from wsm.plan.inventory import GIB, DiskUse
from wsm.plan.series import percentile
from wsm.plan.spec import Spec
from wsm.sim.trace import STEP, Trace
from wsm.sim.simworld import Loads, World, a_host, a_vm

# Where a trace says nothing
DISK = 20 * GIB                 # allocated, of each vCPU
WRITTEN = 0.4 * GIB / 3600      # bytes/s that are new
SIZES = (1, 1, 1, 2, 2, 4)      # vCPUs
DIRTY = {"1": 40 << 20, "4": 120 << 20}     # bytes of RAM; see estimate.Load
MBIT = 10000
LARGEST = 0.4                   # of a host: VMs above it are left out
METRICS = {"rx": "nr", "tx": "nt"}


class TraceLoads(Loads):
    """See simworld.Loads."""

    def __init__(self, trace: Trace, vcpus: Mapping[str, int],
                 memory: Mapping[str, int]) -> None:
        self.trace, self.vcpus, self.memory = trace, vcpus, memory

    def touched(self, vm: str, _now: float) -> int:
        """Return the bytes of RAM that it uses."""
        return self.memory[vm] // 2

    def wants(self, vm: str, now: float) -> Mapping[str, float]:
        """Return what a VM wants in the step that ends at @now."""
        step, values = int(now / STEP) - 1, self.trace.values[vm]
        found = {"cpu": values["cpu"][step] / 1000 * self.vcpus[vm]}
        for name, metric in METRICS.items():
            if metric in values:
                found[name] = values[metric][step] * 1000.0
        return found

    def written(self, vm: str, since: float, now: float) -> float:
        """Return the bytes that it has written, each time anew."""
        row = self.trace.values[vm].get("dw")
        if row is None:
            return WRITTEN * max(0.0, now - since)
        return sum(row[max(0, int(since / STEP)):int(now / STEP)]) * 1e3 * STEP


def mean(trace: Trace, vcpus: Mapping[str, int]) -> float:
    """Return the cores that all VMs together use in the mean."""
    return sum(count * sum(trace.values[vm]["cpu"])
               for vm, count in vcpus.items()) / 1000 / trace.steps


def sizes(trace: Trace, room: float, chance: random.Random) -> dict[str, int]:
    """
    Return the vCPUs of each VM.

    VMs whose 99th percentile is too large a part of a host are left out; a
    host has @room of the mean of all.
    """
    vcpus = {vm: trace.vcpus.get(vm) or chance.choice(SIZES)
             for vm in sorted(trace.values)}
    most = 1000 * LARGEST * room * mean(trace, vcpus)
    return {vm: count for vm, count in vcpus.items()
            if count * percentile(trace.values[vm]["cpu"], 0.99) <= most}


def world(trace: Trace, hosts: int, load: float, seed: int) -> World:
    """
    Return @hosts equal hosts on which the VMs of a trace lie by chance.

    Their cores are such that @load of them is used in the mean.
    """
    chance = random.Random(seed)
    vcpus = sizes(trace, 1 / (load * hosts), chance)
    cores = mean(trace, vcpus) / load / hosts
    memory = {vm: trace.memory.get(vm) or 2 * GIB * vcpus[vm] for vm in vcpus}
    each = int(1.5 * sum(memory.values()) / hosts) + max(memory.values())
    fleet = Fleet(STEP, -86400.0)       # so that no host is new
    made = World(fleet, TraceLoads(trace, vcpus, memory))
    for number in range(hosts):
        # Hosts have at least the threads that the largest VM has vCPUs
        node = fleet.add_host(a_host(
            f"h{number:04}", max(cores, *vcpus.values()), each, MBIT))
        node.capacity = {**node.capacity, "cpu": cores}
    fleet.now = 0.0
    order = sorted(vcpus)
    chance.shuffle(order)
    filled = dict.fromkeys(fleet.nodes, 0)
    for vm in order:
        host = min(filled, key=lambda name: (filled[name], name))
        filled[host] += vcpus[vm]
        disk = DISK * vcpus[vm]
        fleet.add_guest(a_vm(vm, host, vcpus[vm], memory[vm],
                             DiskUse("vd0", disk, disk), DIRTY),
                        Spec(vm, ()), {})
        made.use_memory(host, vm, 1)
    return made
