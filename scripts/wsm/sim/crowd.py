# SPDX-License-Identifier: GPL-2.0-or-later
"""A large fleet that is made up, to see how long a round takes."""

import gc
import random
import resource
import time
from dataclasses import dataclass, field
from typing import Mapping

from wsm.plan import planner
from wsm.plan.decision import Decision
from wsm.plan.fleet import Fleet
from wsm.plan.inventory import GIB, DiskUse
from wsm.plan.policy import Policy
from wsm.plan.ruling import Rule, RuleKind
from wsm.plan.series import percentile
from wsm.plan.spec import Spec
from wsm.sim.simworld import Loads, World, a_host, a_vm

CORES = (16, 32, 64)            # of hosts
RACK = 40                       # hosts
RULES = 0.1                     # part of the VMs that is in one
LOAD = 0.50
HEATED = 0.9                    # of a host that is to be hot
SEEN = 5                        # rounds until it is seen


class Level(Loads):
    """Each VM wants about the same all the time, but for hosts in trouble."""

    def __init__(self, level: Mapping[str, float], seed: int) -> None:
        self.level, self.chance = level, random.Random(seed)
        self.more: dict[str, float] = {}        # VM: times its level
        self.heated: dict[str, int] = {}        # host: rounds since then

    def wants(self, vm: str, _now: float) -> Mapping[str, float]:
        """Return what a VM wants."""
        return {"cpu": self.level[vm] * self.more.get(vm, 1.0)
                * self.chance.uniform(0.9, 1.1),
                "rx": 1e6, "tx": 1e6, "disk": 0.001}

    def heat(self, made: World, count: int) -> None:
        """Let the VMs of so many more hosts want more than there is."""
        nodes = made.fleet.nodes
        self.heated = {host: age + 1 for host, age in self.heated.items()}
        able = sorted(host for host, node in nodes.items()
                      if node.guests and host not in self.heated)
        young = sum(age < SEEN for age in self.heated.values())
        for host in self.chance.sample(able, max(0, count - young)):
            node = nodes[host]
            more = HEATED * node.capacity["cpu"] / sum(
                self.level[vm] for vm in sorted(node.guests))
            self.more.update(dict.fromkeys(node.guests, max(1.0, more)))
            self.heated[host] = 0

    def guest_signs(self, _vm: str, _now: float) -> Mapping[str, float]:
        """Return what else is seen of a VM: it hardly waits."""
        return {"wait": self.chance.uniform(0.0, 0.02)}

    def touched(self, vm: str, _now: float) -> int:
        """Return the bytes of RAM that it uses."""
        return 2 * GIB

    def written(self, _vm: str, since: float, now: float) -> float:
        """Return the bytes that it has written."""
        return 1e5 * (now - since)


def hosts_of(made: World, hosts: int, chance: random.Random) -> None:
    """Let hosts join."""
    for number in range(hosts):
        cores = chance.choice(CORES)
        made.fleet.add_host(a_host(
            f"h{number:05}", cores, 8 * cores * GIB, 10000,
            (f"rack:r{number // RACK}",)))


def world(hosts: int, vms: int, seed: int, load: float = LOAD) -> World:
    """Return hosts with VMs that use @load of them in the mean."""
    chance = random.Random(seed)
    made = World(Fleet(10.0, -86400.0), Level({}, seed), signs=True)
    hosts_of(made, hosts, chance)
    made.fleet.now = 0.0
    weights = [node.host.cores for node in made.fleet.nodes.values()]
    mean = load * sum(weights) / vms
    level: dict[str, float] = {}
    for number, host in enumerate(chance.choices(list(made.fleet.nodes),
                                                 weights, k=vms)):
        name = f"v{number:06}"
        # Log-normal, with @mean
        level[name] = mean * chance.lognormvariate(-0.125, 0.5)
        made.fleet.add_guest(a_vm(name, host, 4, 4 * GIB, DiskUse(
            "vd0", 80 * GIB, 80 * GIB), {"1": 16 << 20}), Spec(name, ()), {})
        made.use_memory(host, name, 1)
    made.loads = Level(level, seed)
    names = list(level)
    made.fleet.rules = tuple(
        Rule(RuleKind.APART, tuple(chance.sample(names, 4)))
        for _ in range(int(vms * RULES / 4)))
    return made


@dataclass(frozen=True)
class Figures:
    """What it took, in s of one CPU and in bytes."""

    median: float
    p99: float
    most: float
    memory: int
    samples: float              # of VMs that were taken in a second
    moves: int
    hot: float                  # hosts in a round, the median


@dataclass
class Rounds:
    """What was seen of rounds."""

    spent: list[float] = field(default_factory=list)    # s of one CPU
    hot: list[float] = field(default_factory=list)
    moves: int = 0

    def make(self, made: World, policy: Policy) -> Decision:
        """Make a round, and begin its moves."""
        gc.disable()            # as the controller does
        begin = time.process_time()
        decision = planner.decide(made.fleet, policy, made.past, made.cost)
        self.spent.append(time.process_time() - begin)
        gc.enable()
        self.hot.append(len(decision.spots))
        self.moves += len(decision.steps)
        for step in decision.steps:
            made.begin(step.vm, step.to, step.spot, step.hard, step.goal)
        return decision


def measure(made: World, rounds: int, hot: float) -> Figures:
    """
    Return what rounds of a large fleet take.

    Whenever less than the part @hot of the hosts is hot, others become so.
    """
    policy, loads, most = Policy(), made.loads, int(hot * len(made.fleet.nodes))
    assert isinstance(loads, Level)
    begin, first, seen = time.process_time(), Rounds(), Rounds()
    for _ in range(SEEN):
        loads.heat(made, most)
        made.step()
    took = (time.process_time() - begin) / SEEN
    decision = first.make(made, policy)
    for _ in range(rounds):
        loads.heat(made, most - len(decision.spots))
        made.step()
        decision = seen.make(made, policy)
    return Figures(percentile(seen.spent, 0.5), percentile(seen.spent, 0.99),
                   max(seen.spent),
                   1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss,
                   len(made.fleet.guests) / took, seen.moves,
                   percentile(seen.hot, 0.5))
