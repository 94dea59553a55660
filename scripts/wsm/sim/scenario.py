# SPDX-License-Identifier: GPL-2.0-or-later
"""A small world that is told in TOML: what happens, and what is to follow.

    about = "A hot host whose best VM may not be moved: the next best goes"
    hosts.alpha = { cores = 8, mem = "32G", mbit = 10000 }
    vms.web = { host = "alpha", vcpus = 4, mem = "2G", disk = "10G", cpu = "3" }
    events = [{ at = "300s", do = "freeze-sensor alpha" }]
    run = "900s"
    expect = [{ move = ["web"], to = ["beta"], after = "60s", before = "130s" }]

Loads are "value; value @ time", in vCPUs (cpu) and Mbit/s (net_in_wanted,
net_out_wanted), or "square LOW HIGH period P phase F".  What may happen is in events.py.
"""

from dataclasses import dataclass, field
from typing import Iterator, Mapping

from wsm.plan import planner
from wsm.plan.fleet import Fleet
from wsm.plan.inventory import DiskUse, Host, VmUse
from wsm.plan.policy import Policy
from wsm.plan.policy import loads as policy_of
from wsm.plan.spec import Placement, Spec
from wsm.sim.events import act
from wsm.sim.script import (Expected, Scene, SceneHost, SceneVm, course, loads,
                           number)
from wsm.sim.simworld import Loads, World, a_host, a_vm

__all__ = ["Story", "loads", "misses", "play"]
DIRTY = {"1": 16 << 20, "4": 48 << 20}      # bytes of RAM; see estimate.Load
WIRE = 1e6 / 8                  # bytes/s of a Mbit/s
UNIT = {"cpu": 1.0, "disk": 1.0}


class SceneLoads(Loads):
    """See simworld.Loads."""

    def __init__(self, scene: Scene) -> None:
        self.courses = {name: {"cpu": course(vm.cpu),
                               "rx": course(vm.net_in_wanted),
                               "tx": course(vm.net_out_wanted),
                               "disk": course(vm.disk_wanted)}
                        for name, vm in scene.vms.items()}
        self.memory = {name: course(vm.touched or str(number(vm.mem) / 2))
                       for name, vm in scene.vms.items()}
        self.of_hosts = {name: {sign: course(text) for sign, text in (
            ("health", host.health), ("latency", host.latency)) if text}
            for name, host in scene.hosts.items()}
        self.of_vms = {name: {"latency": course(vm.latency)} if vm.latency
                       else {} for name, vm in scene.vms.items()}
        self.old = {name: {host: number(copy.since) for host, copy
                           in vm.stale_copies.items()}
                    for name, vm in scene.vms.items()}

    def wants(self, vm: str, now: float) -> Mapping[str, float]:
        """Return what a VM wants of each resource."""
        return {name: value(now) * UNIT.get(name, WIRE)
                for name, value in self.courses[vm].items()}

    def host_signs(self, host: str, now: float) -> Mapping[str, float]:
        """Return the signs of a host."""
        return {sign: value(now) for sign, value
                in self.of_hosts.get(host, {}).items()}

    def guest_signs(self, vm: str, now: float) -> Mapping[str, float]:
        """Return the signs of a VM."""
        return {sign: value(now) for sign, value in self.of_vms[vm].items()}

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
    return a_host(name, host.cores, memory, host.mbit, host.tags)


def use_of(name: str, vm: SceneVm) -> VmUse:
    """Return a VM as an agent would describe it."""
    disk = DiskUse("vd0", int(number(vm.disk)),
                   int(number(vm.allocated or vm.disk)))
    dirty = {"1": int(number(vm.dirty)), "4": int(4 * number(vm.dirty))
             } if vm.dirty else DIRTY
    return a_vm(name, vm.host, vm.vcpus, int(number(vm.mem)), disk, dirty,
                vm.managed, vm.machine)


def join(made: World, scene: Scene, name: str) -> None:
    """Let a host join."""
    made.fleet.add_host(host_of(name, scene.hosts[name]))


def world(scene: Scene, interval: float) -> World:
    """Return the world of a scene before anything has happened."""
    fleet = Fleet(interval, -86400.0)       # so that no host is new
    made = World(fleet, SceneLoads(scene), signs=True)
    for name, host in scene.hosts.items():
        if not number(host.joins):
            join(made, scene, name)
    fleet.now, fleet.rules = 0.0, scene.rules
    for name, vm in scene.vms.items():
        fleet.add_guest(use_of(name, vm), Spec(
            name, (), sla=vm.sla, placement=Placement(
                vm.tags, vm.pin, vm.mode)), {})
        made.use_memory(vm.host, name, 1)
        made.copies[name] = {host: -1.0 if copy.stamp else None
                             for host, copy in vm.stale_copies.items()}
        fleet.guests[name].copies = set(made.copies[name])
    return made


@dataclass
class Story:
    """What happened in a scene."""

    moves: list[tuple[float, planner.Step]] = field(default_factory=list)
    asked: set[str] = field(default_factory=set)
    breakers: set[str] = field(default_factory=set)
    said: set[str] = field(default_factory=set)
    last: planner.Decision = planner.Decision()
    where: dict[str, str] = field(default_factory=dict)

    def note(self, now: float, decision: planner.Decision) -> None:
        """A round has come to this."""
        self.last = decision
        self.moves += [(now, step) for step in decision.steps]
        self.asked.update(step.vm for step in decision.asked)
        self.breakers.update(decision.breakers)
        for each in decision.nothing:
            self.said.update(each.lines())


def happen(made: World, scene: Scene, begin: float) -> None:
    """Let all events since @begin happen; raise BadData."""
    for name, host in scene.hosts.items():
        if max(0.0, begin) < number(host.joins) <= made.fleet.now:
            join(made, scene, name)
    for event in sorted(scene.events, key=lambda event: number(event.at)):
        if begin < number(event.at) <= made.fleet.now:
            act(made, event.do)


def play(scene: Scene, policy: Policy) -> Story:
    """Let a scene happen; return what was done."""
    made, story = world(scene, policy.interval), Story()
    if scene.policy:
        policy = policy_of(scene.policy)
    begin = -1.0
    while made.fleet.now < number(scene.run):
        happen(made, scene, begin)
        begin = made.fleet.now
        made.step()
        made.fleet.local = number(scene.monday) + made.fleet.now
        decision = planner.decide(made.fleet, policy, made.past, made.cost)
        made.past.note_heat(made.fleet.now, policy.breaker.cools,
                            decision.heat())
        story.note(made.fleet.now, decision)
        for step in decision.steps:
            made.begin(step.vm, step.to, step.spot, step.hard, step.goal,
                       step.due)
    story.where = {name: guest.use.host for name, guest
                   in made.fleet.guests.items()}
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
    if len(story.moves) < expected.moves_min:
        yield f"{len(story.moves)} moves, {expected.moves_min} are right: {done}"
    yield from other_misses(expected, story)
    order = [step.vm for _, step in story.moves if step.vm in expected.order]
    if expected.order and order != list(expected.order):
        yield f"the order is {order}, not {list(expected.order)}"


def other_misses(expected: Expected, story: Story) -> Iterator[str]:
    """Yield what is not as it was expected, but for moves."""
    for vm, host in expected.ends_on.items():
        if story.where.get(vm) != host:
            yield f"{vm} ends on {story.where.get(vm)}, not on {host}"
    if expected.asked and expected.asked not in story.asked:
        yield f"nobody is asked for {expected.asked}: {story.asked}"
    for words, told in ((expected.breaker, story.breakers),
                        (expected.said, story.said)):
        if words and not any(words in each for each in told):
            yield f"nothing says {words!r}: {sorted(told)}"
    if expected.nothing not in story.last.text():
        yield f"{story.last.text()!r} does not say {expected.nothing!r}"
