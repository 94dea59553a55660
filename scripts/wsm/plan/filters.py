# SPDX-License-Identifier: GPL-2.0-or-later
"""Whether a VM may run on a host, and why not, with numbers; and where."""

import dataclasses
import functools
from dataclasses import dataclass
from typing import Callable, Iterator, Mapping, Optional, Sequence

from wsm.plan import spec
from wsm.plan.estimate import Estimate
from wsm.plan.fingerprint import series, wsm_version
from wsm.plan.inventory import (MAX_COPIED, OLD, Host, HostState, VmUse, human,
                                too_full)

CLOCK_LIMIT = 2.0               # s
MAX_IN = MAX_OUT = 1            # moves at once


@dataclass(frozen=True)
class Refusal:
    """Why a VM may not run on a host."""

    filter: str                 # what --force names
    text: str


def needs_of(use: VmUse, vm: spec.Spec) -> dict[str, int]:
    """Return the bytes that each disk needs at a host without a copy."""
    return {disk.id: disk.allocated for disk in use.disks
            if disk.id in vm.disk}


@dataclass(frozen=True)
class Wish:
    """A VM that wants a place."""

    use: VmUse
    spec: spec.Spec
    here: Host
    needs: Mapping[str, int]    # disk: bytes that its image comes to

    def room(self, host: Host) -> dict[str, int]:
        """Return the bytes that its images need of each pool there."""
        found: dict[str, int] = {}
        for disk, needed in self.needs.items():
            described = self.spec.disk.get(disk)
            if described is None or host.name in described.path_at:
                continue
            there = max((copy.allocated for copy in host.copies
                         if (copy.vm, copy.disk) == (self.use.name, disk)
                         and copy.state in OLD), default=0)
            found[described.pool] = found.get(described.pool, 0) + max(
                0, needed - there)
        return found


def is_other(wish: Wish, host: Host) -> Iterator[str]:
    """Yield if it is there already."""
    if host.name == wish.use.host:
        yield f"{wish.use.name} is on {host.name} already"


def takes_vms(_wish: Wish, host: Host) -> Iterator[str]:
    """Yield if the host takes none."""
    if host.state is not HostState.ACTIVE:
        yield f"{host.name} is {host.state.value} and takes no VM"
    if host.moves_in >= MAX_IN:
        yield f"{host.name} takes in {host.moves_in} already, at most {MAX_IN}"


def is_ours(wish: Wish, _host: Host) -> Iterator[str]:
    """Yield if somebody else manages the VM, or it moves already."""
    if wish.use.managed:
        yield f"{wish.use.name} belongs to {wish.use.managed}: move it there"
    if wish.use.moving:
        yield f"{wish.use.name} is in move {wish.use.moving} already"


def is_let(wish: Wish, host: Host) -> Iterator[str]:
    """Yield what the VM's placement says against it."""
    place = wish.spec.placement
    if place.mode is spec.Mode.NEVER:
        yield f"{wish.use.name} has placement.mode = \"never\""
    if place.pin and host.name not in place.pin:
        yield f"{wish.use.name} is pinned to {', '.join(place.pin)}"
    for tag in place.tags:
        if tag not in host.tags:
            yield (f"{wish.use.name} wants tag {tag}; {host.name} has "
                   + (", ".join(host.tags) or "none"))


def has_qemu(wish: Wish, host: Host) -> Iterator[str]:
    """Yield if no QEMU there goes with the VM's."""
    use = wish.use
    qemus = [qemu for name, qemu in sorted(host.qemus.items())
             if wish.spec.qemu in ("", name)]
    if not qemus:
        yield (f"{host.name} has no QEMU {wish.spec.qemu or 'at all'} in "
               "agent.toml")
        return
    for qemu in qemus:
        if wsm_version(qemu.package) != wsm_version(use.package):
            why = (f"qemu-wsm {wsm_version(qemu.package)} there, "
                   f"{wsm_version(use.package)} here")
        elif series(qemu.version) != series(use.version):
            why = f"QEMU {qemu.version} there, {use.version} here"
        elif use.machine not in qemu.machines:
            why = f"QEMU there does not know machine type {use.machine}"
        else:
            return
    yield f"{host.name}: {why}"


def has_cpu(wish: Wish, host: Host) -> Iterator[str]:
    """Yield if a VM with its host's CPU meets another one."""
    if wish.use.host_cpu and host.cpu != wish.here.cpu:
        yield (f"{wish.use.name} runs with -cpu host, and the CPU of "
               f"{host.name} is another")


def has_cores(wish: Wish, host: Host) -> Iterator[str]:
    """Yield if it has too few cores, or no time on them."""
    if wish.use.vcpus > host.cores:
        yield (f"{wish.use.name} has {wish.use.vcpus} vCPUs, {host.name} "
               f"{host.cores:g} cores")
    usable = host.cores * (1 - host.reserve_cores)
    if host.demand + wish.use.demand > usable:
        yield (f"{wish.use.name} uses {wish.use.demand:.2f} cores, {host.name} "
               f"has {max(0.0, usable - host.demand):.2f} of {host.cores:g} "
               f"free besides its reserve of {host.reserve_cores:.0%}")


def has_memory(wish: Wish, host: Host) -> Iterator[str]:
    """Yield if the memory that it may come to use is not there."""
    if wish.use.huge:
        if wish.use.memory > host.huge_free:
            yield (f"{wish.use.name} needs {human(wish.use.memory)} of huge "
                   f"pages, {host.name} has {human(host.huge_free)} free")
        return
    usable = host.available - int(host.memory * host.reserve_memory)
    if wish.use.memory > usable:
        yield (f"{wish.use.name} has {human(wish.use.memory)} of memory, "
               f"{host.name} {human(max(0, usable))} free besides its reserve "
               f"of {human(host.memory * host.reserve_memory)}")


def has_space(wish: Wish, host: Host) -> Iterator[str]:
    """Yield each pool that is missing or too full."""
    room = wish.room(host)
    for name in sorted(set(room) - set(host.pools)):
        yield (f"{host.name} has no pool {name}: it is not in agent.toml, or "
               "its folder is not there")
    for names, needed, pool in too_full(room, host.pools):
        yield (f"pool {' and '.join(names)} of {host.name}: {human(needed)} "
               f"are needed, {human(pool.usable)} are free besides the "
               f"reserve of {pool.reserve:.0%}")


def has_networks(wish: Wish, host: Host) -> Iterator[str]:
    """Yield each network that is missing."""
    for name in sorted({net.network for net in wish.spec.net.values()}):
        if name not in host.networks:
            yield (f"{host.name} has no network {name} in agent.toml, only "
                   + (", ".join(sorted(host.networks)) or "none"))


def has_files(wish: Wish, host: Host) -> Iterator[str]:
    """Yield each file that is missing and too large to be copied."""
    for name, file in sorted(wish.spec.file.items()):
        if (file.sha256 not in host.files and file.size > MAX_COPIED):
            yield (f"{host.name} lacks file {name} ({human(file.size)}, "
                   f"sha256 {file.sha256[:12]}...): copy it into a pool there")


def has_clock(_wish: Wish, host: Host) -> Iterator[str]:
    """Yield if its clock is wrong."""
    if abs(host.clock_off) > CLOCK_LIMIT:
        yield (f"the clock of {host.name} is {host.clock_off:+.1f} s off, at "
               f"most {CLOCK_LIMIT:g} s are allowed")


def has_address(_wish: Wish, host: Host) -> Iterator[str]:
    """Yield if a migration could not reach it."""
    if not host.address:
        yield f"{host.name} has no migration.addr in agent.toml"


FILTERS: dict[str, Callable[[Wish, Host], Iterator[str]]] = {
    "other": is_other,
    "state": takes_vms,
    "ours": is_ours,
    "placement": is_let,
    "qemu": has_qemu,
    "cpu": has_cpu,
    "cores": has_cores,
    "memory": has_memory,
    "space": has_space,
    "networks": has_networks,
    "files": has_files,
    "clock": has_clock,
    "address": has_address,
}
# Never overridden: the move could not work, or would not be one
FIRM = frozenset(["other", "ours", "qemu", "networks", "address"])


def refusals(wish: Wish, host: Host,
             force: frozenset[str] = frozenset()) -> list[Refusal]:
    """Return why a VM may not run there; [] if it may."""
    return [Refusal(name, text) for name, each in FILTERS.items()
            if name in FIRM or name not in force
            for text in each(wish, host)]


def heat(wish: Wish, host: Host) -> float:
    """Return how full a host is with the VM: the fuller of CPU and memory."""
    cpu = (host.demand + wish.use.demand) / max(host.cores, 0.01)
    used = host.memory - host.available + wish.use.touched
    return max(cpu, used / max(host.memory, 1))


@dataclass(frozen=True)
class Choice:
    """A host for a VM, or why it is none."""

    host: str
    refusals: tuple[Refusal, ...]
    heat: float
    estimate: Optional[Estimate] = None


def choose(wish: Wish, hosts: Sequence[Host],
           cost: Callable[[Host], Estimate]) -> list[Choice]:
    """
    Return all hosts, the best first, then those that may not.

    Of hosts that are about as full (a tenth) the one to which the move is
    the cheapest; that is where an old image lies.
    """
    found = []
    for host in sorted(hosts, key=lambda each: each.name):
        why = tuple(refusals(wish, host))
        found.append(Choice(host.name, why, heat(wish, host),
                            None if why else cost(host)))
    return sorted(found, key=lambda each: (
        bool(each.refusals), int(each.heat * 10),
        each.estimate.seconds if each.estimate else 0.0, each.host))


@dataclass(frozen=True)
class DrainStep:
    """A VM that leaves."""

    vm: str
    to: str
    estimate: Estimate


@dataclass(frozen=True)
class DrainPlan:
    """All that leave, in the order of their moves, and those that cannot."""

    steps: tuple[DrainStep, ...]
    stay: tuple[tuple[str, tuple[Choice, ...]], ...]


def with_vm(wish: Wish, host: Host) -> Host:
    """Return a host as it is when the VM is there."""
    pools = dict(host.pools)
    for name, needed in wish.room(host).items():
        here = pools[name].device if name in pools else 0
        for each, old in pools.items():
            if each == name or here and old.device == here:
                pools[each] = dataclasses.replace(old, free=old.free - needed)
    return dataclasses.replace(
        host, pools=pools, demand=host.demand + wish.use.demand,
        available=host.available - wish.use.memory)


def drain(wishes: Sequence[Wish], hosts: Sequence[Host],
          cost: Callable[[Wish, Host], Estimate]) -> DrainPlan:
    """
    Return where each VM goes.

    Placed by size, as large ones have the fewest places; moved shortest
    first, as each that is gone makes the next one easier.
    """
    there = {host.name: host for host in hosts}
    steps, stay = [], []
    for wish in sorted(wishes, key=lambda each: (-each.use.memory,
                                                 each.use.name)):
        choices = choose(wish, list(there.values()),
                         functools.partial(cost, wish))
        best = choices[0] if choices else None
        if best is None or best.refusals or best.estimate is None:
            stay.append((wish.use.name, tuple(choices)))
            continue
        steps.append(DrainStep(wish.use.name, best.host, best.estimate))
        there[best.host] = with_vm(wish, there[best.host])
    steps.sort(key=lambda step: (
        round(min(step.estimate.seconds, 1e9)), step.vm))
    return DrainPlan(tuple(steps), tuple(stay))
