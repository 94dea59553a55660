# SPDX-License-Identifier: GPL-2.0-or-later
"""A small world that is told in TOML: what happens, and what is to follow.

    about = "A hot host whose best VM may not be moved: the next best goes"
    hosts.alpha = { cores = 8, mem = "32G", mbit = 10000 }
    vms.web = { host = "alpha", vcpus = 4, mem = "2G", disk = "10G", cpu = "3" }
    events = [{ at = "300s", do = "freeze-sensor alpha" }]
    run = "900s"
    expect = [{ move = ["web"], to = ["beta"], after = "60s", before = "130s" }]

Loads are "value; value @ time", in vCPUs (cpu) and Mbit/s (net_in_wanted,
net_out_wanted), or "square LOW HIGH period P phase F".
"""

import re
from dataclasses import dataclass, field
from typing import Callable, Iterator, Mapping

from wsm.plan import planner, toml
from wsm.plan.fleet import Fleet
from wsm.plan.inventory import DiskUse, Host, VmUse
from wsm.plan.plain import BadData
from wsm.plan.policy import Policy
from wsm.plan.spec import Placement, Sla, Spec
from wsm.sim.simworld import Loads, World, a_host, a_vm

DIRTY = {"1": 16 << 20, "4": 48 << 20}      # bytes of RAM; see estimate.Load
UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40,
         "s": 1, "m": 60, "h": 3600, "d": 86400}
WIRE = 1e6 / 8                  # bytes/s of a Mbit/s
Value = Callable[[float], float]


def number(text: str) -> float:
    """Return "32G" or "12h" in bytes or seconds; raise BadData."""
    found = re.fullmatch(r"([0-9.]+)([KMGTsmhd]?)", text.strip())
    if not found:
        raise BadData(f"{text!r} is no number with a unit")
    return float(found[1]) * UNITS[found[2]]


def course(text: str) -> Value:
    """Return what a load is at a time; raise BadData."""
    words = text.split()
    if words[:1] == ["square"]:
        low, high = float(words[1]), float(words[2])
        period, phase = number(words[4]), number(words[6])
        return lambda now: (high if (now + phase) % period < period / 2
                            else low)
    points = []
    for part in text.split(";"):
        value, _, at = part.partition("@")
        points.append((number(at) if at else 0.0, number(value)))
    points.sort()
    return lambda now: next((value for at, value in reversed(points)
                             if now >= at), 0.0)


@dataclass(frozen=True)
class SceneHost:
    """A host."""

    cores: float
    mem: str
    mbit: int = 10000
    joins: str = "0s"


@dataclass(frozen=True)
class SceneCopy:
    """An old image of a VM."""

    since: str                  # bytes that were written since
    stamp: bool = True          # nobody else has touched it


@dataclass(frozen=True)
class SceneVm:
    """A VM."""

    host: str
    vcpus: int
    mem: str
    disk: str
    cpu: str = "0"
    allocated: str = ""         # the whole disk
    pin: tuple[str, ...] = ()
    net_in_wanted: str = "0"
    net_out_wanted: str = "0"
    touched: str = ""           # bytes; half of mem
    sla: Sla = Sla()
    stale_copies: Mapping[str, SceneCopy] = field(default_factory=dict)


@dataclass(frozen=True)
class SceneEvent:
    """What happens to a host, as words."""

    at: str
    do: str


@dataclass(frozen=True)
class Expected:
    """What is to be: one of move, no_move, no_moves, moves_max, nothing."""

    move: tuple[str, ...] = ()      # one of these moves
    to: tuple[str, ...] = ()
    after: str = "0s"
    before: str = ""
    reason: tuple[str, ...] = ()    # "host.cpu"
    basis: str = ""
    no_move: str = ""
    no_moves: bool = False
    moves_max: int = -1
    nothing: str = ""           # words of why nothing is done in the end


@dataclass(frozen=True)
class Scene:
    """All of it."""

    about: str
    run: str
    hosts: Mapping[str, SceneHost]
    vms: Mapping[str, SceneVm]
    expect: tuple[Expected, ...]
    events: tuple[SceneEvent, ...] = ()


def loads(text: str) -> Scene:
    """Return the scene in @text; raise BadData."""
    return toml.loads(Scene, text)


class SceneLoads(Loads):
    """See simworld.Loads."""

    def __init__(self, scene: Scene) -> None:
        self.courses = {name: {"cpu": course(vm.cpu),
                               "rx": course(vm.net_in_wanted),
                               "tx": course(vm.net_out_wanted)}
                        for name, vm in scene.vms.items()}
        self.memory = {name: course(vm.touched or str(number(vm.mem) / 2))
                       for name, vm in scene.vms.items()}
        self.old = {name: {host: number(copy.since) for host, copy
                           in vm.stale_copies.items()}
                    for name, vm in scene.vms.items()}

    def wants(self, vm: str, now: float) -> Mapping[str, float]:
        """Return what a VM wants of each resource."""
        return {name: value(now) * (1.0 if name == "cpu" else WIRE)
                for name, value in self.courses[vm].items()}

    def written(self, vm: str, since: float, _now: float) -> float:
        """Return the bytes that it has written meanwhile."""
        if since < 0.0:                 # a copy from before the scene
            return max(self.old[vm].values(), default=0.0)
        return 0.0

    def touched(self, vm: str, now: float) -> int:
        """Return the bytes of RAM that a VM uses."""
        return int(self.memory[vm](now))


def host_of(name: str, host: SceneHost) -> Host:
    """Return a host as an agent would describe it."""
    memory = int(number(host.mem))
    return a_host(name, host.cores, memory, host.mbit)


def use_of(name: str, vm: SceneVm) -> VmUse:
    """Return a VM as an agent would describe it."""
    disk = DiskUse("vd0", int(number(vm.disk)),
                   int(number(vm.allocated or vm.disk)))
    return a_vm(name, vm.host, vm.vcpus, int(number(vm.mem)), disk, DIRTY)


def world(scene: Scene, interval: float) -> World:
    """Return the world of a scene before anything has happened."""
    fleet = Fleet(interval, -86400.0)       # so that no host is new
    made = World(fleet, SceneLoads(scene))
    for name, host in scene.hosts.items():
        fleet.add_host(host_of(name, host))
    fleet.now = 0.0
    for name, vm in scene.vms.items():
        fleet.add_guest(use_of(name, vm), Spec(
            name, (), sla=vm.sla, placement=Placement(pin=vm.pin)), {})
        made.use_memory(vm.host, name, 1)
        made.copies[name] = {host: -1.0 if copy.stamp else None
                             for host, copy in vm.stale_copies.items()}
    return made


@dataclass
class Story:
    """What happened in a scene."""

    moves: list[tuple[float, planner.Step]] = field(default_factory=list)
    last: planner.Decision = planner.Decision()


def act(made: World, event: SceneEvent) -> None:
    """Let something happen to a host; raise BadData."""
    what, host, *values = event.do.split()
    if host not in made.fleet.nodes:
        raise BadData(f"events: there is no host {host}")
    if what == "freeze-sensor":
        made.silent.add(host)
    elif what == "report":
        made.fleet.take(host, values[0], float(values[1]))
    else:
        raise BadData(f"events: {what!r} is neither freeze-sensor nor report")


def play(scene: Scene, policy: Policy) -> Story:
    """Let a scene happen; return what was done."""
    made, story = world(scene, policy.interval), Story()
    events = sorted(scene.events, key=lambda event: number(event.at))
    while made.fleet.now < number(scene.run):
        while events and number(events[0].at) <= made.fleet.now:
            act(made, events.pop(0))
        made.step()
        story.last = planner.decide(made.fleet, policy, made.past, made.cost)
        made.past.note_heat(made.fleet.now, policy.breaker.cools,
                            story.last.heat())
        for step in story.last.steps:
            story.moves.append((made.fleet.now, step))
            made.begin(step.vm, step.to, step.spot, step.hard, step.goal)
    return story


def is_met(expected: Expected, at: float, step: planner.Step) -> bool:
    """Return whether a move is the one that was expected."""
    return (step.vm in expected.move
            and (not expected.to or step.to in expected.to)
            and at >= number(expected.after)
            and (not expected.before or at < number(expected.before))
            and (not expected.reason
                 or step.spot.split()[0] in expected.reason)
            and expected.basis in ("", step.estimate.bases[0].kind))


def misses(expected: Expected, story: Story) -> Iterator[str]:
    """Yield what is not as it was expected."""
    done = "; ".join(f"{at:.0f} s: {step.vm} to {step.to} for {step.spot}"
                     for at, step in story.moves) or "nothing"
    if expected.move and not any(is_met(expected, at, step)
                                 for at, step in story.moves):
        yield f"no such move: {expected}; what was done: {done}"
    if expected.no_move and any(step.vm == expected.no_move
                                for _, step in story.moves):
        yield f"{expected.no_move} was moved: {done}"
    most = 0 if expected.no_moves else expected.moves_max
    if 0 <= most < len(story.moves):
        yield f"{len(story.moves)} moves, at most {most} are right: {done}"
    if expected.nothing not in story.last.text():
        yield f"{story.last.text()!r} does not say {expected.nothing!r}"
