# SPDX-License-Identifier: GPL-2.0-or-later
"""Fleets with their loads in a file: made by chance, the same for a seed.

Lines of JSON, packed by xz if the name ends in ".xz".  The first says what it is,
then come hosts, then VMs, then rules:

    {"format": "wsm-fleet 1", "step": 300, "steps": 576}
    {"host": "h00000", "cores": 32, "memory": 274877906944, "mbit": 10000,
     "tags": ["rack:r0"]}
    {"vm": "v000000", "on": "h00000", "vcpus": 4, "memory": 8589934592,
     "disk": 85899345920, "cpu": [120, 118, ...]}
    {"rule": "apart", "vms": ["v000001", "v000007"]}

Bytes; "cpu" is what a VM wants, in thousandths of its vCPUs, one number for each
"step" seconds.
"""

import json
import lzma
import math
import random
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Iterator, Mapping

from wsm.plan.fleet import Fleet
from wsm.plan.inventory import GIB, DiskUse
from wsm.plan.plain import BadData, from_plain
from wsm.plan.ruling import Rule, RuleKind
from wsm.plan.spec import Spec
from wsm.sim import crowd, trace
from wsm.sim.replay import DIRTY, WRITTEN
from wsm.sim.simworld import Loads, World, a_host, a_vm

FORMAT = "wsm-fleet 1"
BIG = 4 << 30                   # bytes that are unpacked at most
VCPUS = (1, 1, 2, 2, 4, 8)


@dataclass(frozen=True)
class FleetHost:
    """A host."""

    host: str
    cores: float
    memory: int
    mbit: int = 10000
    tags: tuple[str, ...] = ()


@dataclass(frozen=True)
class FleetVm:
    """A VM."""

    vm: str
    on: str
    vcpus: int
    memory: int
    disk: int
    cpu: tuple[int, ...]


@dataclass
class FleetFile:
    """All of it."""

    step: float
    steps: int
    hosts: list[FleetHost] = field(default_factory=list)
    vms: list[FleetVm] = field(default_factory=list)
    rules: list[Rule] = field(default_factory=list)
    names: set[str] = field(default_factory=set)    # of hosts

    def mean(self, vm: FleetVm) -> float:
        """Return the cores that a VM wants in the mean."""
        return vm.vcpus * sum(vm.cpu) / 1000 / self.steps


def made(hosts: int, vms: int, days: float, seed: int,
         load: float) -> Iterator[Mapping[str, Any]]:
    """Yield the lines of a fleet that uses @load of its hosts in the mean."""
    chance = random.Random(seed)
    invented = trace.made(vms, days, seed)
    yield {"format": FORMAT, "step": trace.STEP, "steps": invented.steps}
    cores = [chance.choice(crowd.CORES) for _ in range(hosts)]
    for number, count in enumerate(cores):
        yield {"host": f"h{number:05}", "cores": count,
               "memory": 8 * count * GIB, "mbit": 10000,
               "tags": [f"rack:r{number // crowd.RACK}"]}
    rows = [invented.values[str(number)]["cpu"] for number in range(vms)]
    sizes = [chance.choice(VCPUS) for _ in range(vms)]
    scale = load * sum(cores) * 1000 * invented.steps / sum(
        size * sum(row) for size, row in zip(sizes, rows))
    places = chance.choices(range(hosts), cores, k=vms)
    for number, (size, row) in enumerate(zip(sizes, rows)):
        yield {"vm": f"v{number:06}", "on": f"h{places[number]:05}",
               "vcpus": size, "memory": 2 * size * GIB,
               "disk": 20 * size * GIB,
               "cpu": [min(1000, round(scale * value)) for value in row]}
    for _ in range(int(vms * crowd.RULES / 4)):
        yield {"rule": "apart", "vms": [f"v{each:06}" for each
                                        in chance.sample(range(vms), 4)]}


def write(path: Path, lines: Iterator[Mapping[str, Any]]) -> int:
    """Write a file; return how many lines it has."""
    found = [json.dumps(line, separators=(",", ":")) for line in lines]
    data = ("\n".join(found) + "\n").encode("ascii")
    path.write_bytes(lzma.compress(data) if path.suffix == ".xz" else data)
    return len(found)


def read(path: Path) -> FleetFile:
    """Return what is in a file; raise BadData, OSError."""
    data = path.read_bytes()
    if path.suffix == ".xz":
        try:
            data = lzma.LZMADecompressor().decompress(data, BIG)
        except lzma.LZMAError as error:
            raise BadData(f"{path}: {error}") from error
    found = FleetFile(0.0, 0)
    for number, text in enumerate(data.decode("utf-8", "replace").splitlines(),
                                  1):
        where = f"{path}:{number}"
        try:
            take(found, json.loads(text), where)
        except (ValueError, RecursionError) as error:
            raise BadData(f"{where}: {error}") from error
    if not found.hosts or not found.vms:
        raise BadData(f"{path}: has {len(found.hosts)} hosts and "
                      f"{len(found.vms)} VMs: 'wsmctl sim gen' makes one")
    return found


def take(found: FleetFile, line: Any, where: str) -> None:
    """Take in a line; raise BadData."""
    if not isinstance(line, dict):
        raise BadData(f"{where}: is no JSON object")
    if not found.steps:
        if line.get("format") != FORMAT or not (
                isinstance(line.get("steps"), int) and line["steps"] > 0):
            raise BadData(f"{where}: the first line says format \"{FORMAT}\" "
                          "and steps")
        found.step, found.steps = float(line.get("step", 0)) or trace.STEP, (
            line["steps"])
    elif "host" in line:
        found.hosts.append(from_plain(FleetHost, line, where))
        found.names.add(found.hosts[-1].host)
    elif "vm" in line:
        vm = from_plain(FleetVm, line, where)
        if len(vm.cpu) != found.steps:
            raise BadData(f"{where}: {len(vm.cpu)} values of cpu, "
                          f"{found.steps} are needed")
        if vm.on not in found.names:
            raise BadData(f"{where}: there is no host {vm.on[:80]} before it")
        found.vms.append(vm)
    elif "rule" in line:
        found.rules.append(Rule(RuleKind(line["rule"]), tuple(
            map(str, line["vms"])), tuple(map(str, line.get("hosts", ())))))
    else:
        raise BadData(f"{where}: is no host, vm or rule")


class FileLoads(Loads):
    """See simworld.Loads."""

    def __init__(self, found: FleetFile) -> None:
        self.step, self.steps = found.step, found.steps
        self.vms = {vm.vm: vm for vm in found.vms}

    def wants(self, vm: str, now: float) -> Mapping[str, float]:
        """Return what a VM wants; after the last step it begins anew."""
        one = self.vms[vm]
        slot = max(0, math.ceil(now / self.step) - 1) % self.steps
        return {"cpu": one.cpu[slot] / 1000 * one.vcpus}

    def touched(self, vm: str, _now: float) -> int:
        """Return the bytes of RAM that it uses."""
        return self.vms[vm].memory // 2

    def written(self, _vm: str, since: float, now: float) -> float:
        """Return the bytes that it has written, each time anew."""
        return WRITTEN * max(0.0, now - since)


def world(found: FleetFile, interval: float, loads: Loads,
          signs: bool = False) -> World:
    """Return the fleet of a file, before anything has happened."""
    made_of = World(Fleet(interval, -86400.0), loads, signs=signs)
    for host in found.hosts:
        made_of.fleet.add_host(a_host(host.host, host.cores, host.memory,
                                      host.mbit, host.tags))
    made_of.fleet.now = 0.0
    for vm in found.vms:
        made_of.fleet.add_guest(a_vm(vm.vm, vm.on, vm.vcpus, vm.memory, DiskUse(
            "vd0", vm.disk, vm.disk), DIRTY), Spec(vm.vm, ()), {})
        made_of.use_memory(vm.on, vm.vm, 1)
    made_of.fleet.rules = tuple(found.rules)
    return made_of


def course(found: FleetFile) -> World:
    """Return its days, step by step: for 'sim compare'."""
    return world(found, found.step, FileLoads(found))


def crowded(found: FleetFile, seed: int) -> World:
    """Return it with each VM at its mean: for 'sim scale' and 'sim growth'."""
    return world(found, 10.0, crowd.Level(
        {vm.vm: found.mean(vm) for vm in found.vms}, seed), True)
