# SPDX-License-Identifier: GPL-2.0-or-later
"""What moves VMs in a simulation: ours, and others to compare it with.

The others are written anew in the style of what there is; none is exactly a
product.  Each is asked once a step, and begins moves by World.begin().
"""

import math
import statistics
from collections import deque
from typing import Callable

from wsm.plan import planner
from wsm.plan.fleet import RESOURCES
from wsm.plan.policy import Policy
from wsm.plan.series import Series, ar1, percentile
from wsm.sim.trace import STEP
from wsm.sim.simworld import World

DAY = 86400.0
Rule = Callable[[World], None]


def newest(series: Series) -> float:
    """Return the last sample, 0.0 if there is none."""
    return series.samples[-1] if series.samples else 0.0


class Use:
    """What of each resource is used, if all moves have ended."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.on: dict[str, set[str]] = {name: set(node.guests) for name, node
                                        in world.fleet.nodes.items()}
        self.part: dict[str, dict[str, float]] = {}
        for vm, flight in world.fleet.flights.items():
            self.on[flight.source].discard(vm)
            self.on[flight.to].add(vm)
        self.used = {each: {vm: newest(guest.load[each]) for vm, guest
                            in world.fleet.guests.items()}
                     for each in RESOURCES}
        self.coming: dict[str, int] = {}        # bytes of memory
        for name, there in self.on.items():
            self.part[name] = {each: math.fsum(map(used.__getitem__, there))
                               / self.capacity(name, each)
                               for each, used in self.used.items()}
            self.coming[name] = sum(
                world.fleet.guests[vm].use.memory
                for vm in there & world.fleet.flights.keys())

    def of(self, vm: str, resource: str) -> float:
        """Return what a VM uses now."""
        return self.used[resource][vm]

    def capacity(self, host: str, resource: str) -> float:
        """Return what a host has."""
        return self.world.fleet.nodes[host].capacity[resource]

    def fullest(self, host: str) -> float:
        """Return how full the fullest resource of a host is."""
        return max(self.part[host].values())

    def stay(self, host: str) -> list[str]:
        """Return the VMs of a host that could leave it."""
        return sorted(vm for vm in self.world.fleet.nodes[host].guests
                      if vm not in self.world.fleet.flights)

    def with_vm(self, vm: str, host: str) -> float:
        """Return how full a host is with a VM."""
        return max(part + self.of(vm, each) / self.capacity(host, each)
                   for each, part in self.part[host].items())

    def has_room(self, vm: str, host: str) -> bool:
        """Return whether a VM's memory is free on another host."""
        use = self.world.fleet.guests[vm].use
        return (host != use.host and self.world.fleet.nodes[
            host].host.available - self.coming[host] >= use.memory)

    def begin(self, vm: str, to: str) -> None:
        """Begin a move."""
        source = self.world.fleet.guests[vm].use.host
        self.world.begin(vm, to)
        for host, sign in ((source, -1), (to, 1)):
            for each in RESOURCES:
                self.part[host][each] += (sign * self.of(vm, each)
                                          / self.capacity(host, each))
        self.on[source].discard(vm)
        self.on[to].add(vm)
        self.coming[to] += self.world.fleet.guests[vm].use.memory

    def largest(self, host: str) -> str:
        """Return the VM that uses most of what is scarcest, "" if none."""
        part = self.part[host]
        what = max(part, key=lambda each: part[each])
        return max(self.stay(host), key=lambda vm: (self.of(vm, what), vm),
                   default="")

    def ends(self, resource: str) -> tuple[str, str]:
        """Return the emptiest and the fullest host."""
        order = sorted(self.part, key=lambda host: (self.part[host][resource],
                                                    host))
        return order[0], order[-1]

    def nearest(self, high: str, low: str, resource: str, gap: float) -> str:
        """Return the VM that best halves what two hosts differ by."""
        unit = self.capacity(high, resource)
        able = [vm for vm in self.stay(high) if self.has_room(vm, low)
                and self.of(vm, resource) / unit < gap]
        return min(able, key=lambda vm: (abs(self.of(vm, resource) / unit
                                             - gap / 2), vm), default="")

    def coolest(self, vm: str) -> str:
        """Return where a VM fits best, "" if nowhere."""
        able = [host for host in self.part if self.has_room(vm, host)]
        return min(able, key=lambda host: (self.with_vm(vm, host), host),
                   default="")


def none(_world: World) -> None:
    """Nobody moves."""


class Static:
    """Once, after a day: by the 95th percentile of that day, best first."""

    def __call__(self, world: World) -> None:
        if world.fleet.now != DAY:
            return
        steps = [STEP * number for number in range(1, int(DAY / STEP) + 1)]
        need = {vm: percentile([world.loads.wants(vm, now)["cpu"]
                                for now in steps], 0.95)
                for vm in world.fleet.guests}
        full = dict.fromkeys(world.fleet.nodes, 0.0)
        for vm in sorted(need, key=lambda vm: (-need[vm], vm)):
            to = min(full, key=lambda host: (full[host], host))
            full[to] += need[vm]
            if to != world.fleet.guests[vm].use.host:
                world.begin(vm, to)


def threshold(world: World, limit: float = 0.80) -> None:
    """Whoever is over 80 % gives its largest VM to the emptiest host."""
    use = Use(world)
    for host in sorted(use.part, key=lambda host: (-use.fullest(host), host)):
        for _ in range(4):
            vm = use.largest(host)
            to = use.coolest(vm) if vm else ""
            if (use.fullest(host) <= limit or not to
                    or use.with_vm(vm, to) > limit):
                break
            use.begin(vm, to)


def spread(world: World, points: float = 0.10, most: int = 5) -> None:
    """Fullest and emptiest differ by 10 points: one VM, at most 5 a step."""
    use = Use(world)
    for each in ("cpu", "rx"):
        for _ in range(most):
            low, high = use.ends(each)
            gap = use.part[high][each] - use.part[low][each]
            vm = use.nearest(high, low, each, gap) if gap > points else ""
            if not vm:
                break
            use.begin(vm, low)


def variation(world: World, limit: float = 0.15) -> None:
    """Coefficient of variation over 0.15: the move that lowers it most."""
    use = Use(world)
    if world.fleet.flights:
        return
    parts = {host: part["cpu"] for host, part in use.part.items()}

    def value() -> float:
        mean = statistics.fmean(parts.values())
        return statistics.pstdev(parts.values()) / mean if mean > 0.05 else 0.0

    best = (value(), "", "")
    if best[0] <= limit:
        return
    order = sorted(parts, key=lambda host: (parts[host], host))
    for high in order[-2:]:
        for low in order[:2]:
            for vm in use.stay(high):
                load = use.of(vm, "cpu") / use.capacity(high, "cpu")
                parts[high] -= load
                parts[low] += load
                if use.has_room(vm, low) and value() < best[0]:
                    best = (value(), vm, low)
                parts[high] += load
                parts[low] -= load
    if best[1]:
        use.begin(best[1], best[2])


class Sandpiper:
    """3 of 5 and AR(1); the VM with most volume per memory goes first."""

    def __init__(self, limit: float = 0.75) -> None:
        self.limit = limit
        self.seen: dict[str, deque[float]] = {}

    def __call__(self, world: World) -> None:
        use = Use(world)
        hot = []
        for host in use.part:
            seen = self.seen.setdefault(host, deque(maxlen=12))
            seen.append(use.fullest(host))
            recent = list(seen)
            if (sum(value > self.limit for value in recent[-5:]) >= 3
                    and ar1(recent) > self.limit):
                hot.append(host)
        for host in sorted(hot, key=lambda host: (-self.volume(use, host),
                                                  host)):
            self.relieve(use, host)

    @staticmethod
    def volume(use: Use, host: str) -> float:
        """Return 1 / ((1 - cpu) (1 - net)), as the paper has it."""
        result = 1.0
        for each in ("cpu", "rx", "tx"):
            result /= max(0.01, 1.0 - use.part[host][each])
        return result

    def relieve(self, use: Use, host: str) -> None:
        """Move VMs until the host is no longer too full."""
        fleet = use.world.fleet

        def density(vm: str) -> float:
            part = max(use.of(vm, each) / use.capacity(host, each)
                       for each in RESOURCES)
            return part / fleet.guests[vm].use.memory

        order: list[str] = []
        for vm in sorted(use.stay(host), key=lambda vm: (-density(vm), vm)):
            if use.fullest(host) <= self.limit:
                return
            order = order or sorted(use.part, key=lambda each: (
                self.volume(use, each), each))
            for to in order:
                if (use.has_room(vm, to)
                        and use.with_vm(vm, to) <= self.limit):
                    use.begin(vm, to)
                    order = []
                    break


class Ours:
    """The planner, as the controller has it."""

    def __init__(self, policy: Policy) -> None:
        self.policy = policy

    def __call__(self, world: World) -> None:
        decision = planner.decide(world.fleet, self.policy, world.past,
                                  world.cost)
        world.past.note_heat(world.fleet.now, self.policy.breaker.cools,
                             decision.heat())
        for step in decision.steps:
            world.begin(step.vm, step.to, step.spot, step.hard, step.goal)


def rules(policy: Policy) -> dict[str, Rule]:
    """Return all rules anew."""
    return {"none": none, "static": Static(), "threshold": threshold,
            "spread": spread, "variation": variation,
            "sandpiper": Sandpiper(), "ours": Ours(policy)}
