# SPDX-License-Identifier: GPL-2.0-or-later
"""A large fleet that is made up, to see how long a round takes."""

import random
import resource
import time
from dataclasses import dataclass
from typing import Mapping

from wsm.plan import planner
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
LOAD = 0.55


class Level(Loads):
    """Each VM wants about the same all the time."""

    def __init__(self, level: Mapping[str, float], seed: int) -> None:
        self.level, self.chance = level, random.Random(seed)

    def wants(self, vm: str, _now: float) -> Mapping[str, float]:
        """Return what a VM wants."""
        return {"cpu": self.level[vm] * self.chance.uniform(0.9, 1.1),
                "rx": 1e6, "tx": 1e6, "disk": 0.001}

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


def world(hosts: int, vms: int, seed: int) -> World:
    """Return hosts with VMs of which a few of a hundred are too many."""
    chance = random.Random(seed)
    made = World(Fleet(10.0, -86400.0), Level({}, seed))
    hosts_of(made, hosts, chance)
    made.fleet.now = 0.0
    weights = [node.host.cores for node in made.fleet.nodes.values()]
    mean = LOAD * sum(weights) / vms
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
    hot: int                    # hosts, in the first round


def measure(hosts: int, vms: int, rounds: int, seed: int) -> Figures:
    """Return what rounds of a large fleet take."""
    made, policy = world(hosts, vms, seed), Policy()
    begin = time.process_time()
    for _ in range(5):
        made.step()
    took = [(time.process_time() - begin) / 5]
    spent, moves, hot = [], 0, -1
    for _ in range(rounds):
        made.step()
        begin = time.process_time()
        decision = planner.decide(made.fleet, policy, made.past, made.cost)
        spent.append(time.process_time() - begin)
        moves += len(decision.steps)
        hot = len(decision.spots) if hot < 0 else hot
        for step in decision.steps:
            made.begin(step.vm, step.to, step.spot, step.hard, step.goal)
    return Figures(percentile(spent, 0.5), percentile(spent, 0.99), max(spent),
                   1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss,
                   vms / took[0], moves, hot)
