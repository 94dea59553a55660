# SPDX-License-Identifier: GPL-2.0-or-later
"""Laws of the planner, over invented fleets with rules and trouble."""

import random
import re
import unittest
from pathlib import Path
from typing import Mapping, TypeVar

from wsm.plan import explain, planner
from wsm.plan.booked import Booked
from wsm.plan.detect import Kind
from wsm.plan.fleet import Fleet
from wsm.plan.inventory import GIB, DiskUse
from wsm.plan.policy import Policy
from wsm.plan.ruling import Book, Rule, RuleKind, problems
from wsm.plan.spec import Mode, Placement, Spec
from wsm.plan.window import is_in
from wsm.plan.window import problems as bad_times
from wsm.sim import events, scenario
from wsm.sim.simworld import Loads, World, a_host, a_vm

from tests.scripts.plan.properties import over

T = TypeVar("T")
SCENES = sorted((Path(__file__).parent / "scenes").glob("*.toml"))
POLICY = Policy()
HOSTS = [f"h{number}" for number in range(6)]
NUMBER = re.compile(r"[0-9]")


def shuffled(things: dict[str, T], chance: random.Random) -> dict[str, T]:
    """Return the same in another order."""
    items = list(things.items())
    chance.shuffle(items)
    return dict(items)


class Steady(Loads):
    """VMs want the same all the time."""

    def __init__(self, cpu: Mapping[str, float]) -> None:
        self.cpu = cpu

    def wants(self, vm: str, _now: float) -> Mapping[str, float]:
        """Return what a VM wants."""
        return {"cpu": self.cpu[vm]}

    def touched(self, _vm: str, _now: float) -> int:
        """Return the bytes of RAM that it uses."""
        return GIB

    def written(self, _vm: str, _since: float, _now: float) -> float:
        """Return the bytes that it has written."""
        return 0.0


def some_rule(chance: random.Random, vms: list[str]) -> Rule:
    """Return a rule that can be meant."""
    kind = chance.choice(list(RuleKind))
    group = kind in (RuleKind.APART, RuleKind.TOGETHER)
    rule = Rule(kind, tuple(chance.sample(vms, 3)),
                () if group else tuple(chance.sample(HOSTS, 3)),
                chance.choice((1, 2)), chance.choice(("host", "rack")))
    assert not list(problems(rule))
    return rule


def some_fleet(seed: int) -> World:
    """Return hosts and VMs with rules, modes, and hosts that drain."""
    chance = random.Random(seed)
    vms = [f"v{number:02}" for number in range(24)]
    cpu = {vm: chance.choice((0.1, 0.5, 1.0, 2.0)) for vm in vms}
    made = World(Fleet(10.0, -86400.0), Steady(cpu))
    for number, name in enumerate(HOSTS):
        made.fleet.add_host(a_host(name, 8.0, 32 * GIB, 10000,
                                   (f"rack:r{number // 2}",)))
    made.fleet.now = 0.0
    for vm in vms:
        host = HOSTS[min(5, int(chance.expovariate(0.6)))]
        memory = chance.choice((1, 2, 4)) * GIB
        if made.fleet.nodes[host].host.available < memory:
            host = HOSTS[5]
        made.fleet.add_guest(a_vm(vm, host, 2, memory, DiskUse(
            "vd0", 10 * GIB, 10 * GIB), {"1": 1 << 20}), Spec(
                vm, (), placement=Placement(mode=chance.choice(
                    (Mode.AUTO, Mode.AUTO, Mode.AUTO, Mode.ASK,
                     Mode.NEVER)))), {})
        made.use_memory(host, vm, 1)
    made.fleet.rules = tuple(some_rule(chance, vms) for _ in range(4))
    if chance.random() < 0.5:
        events.act(made, f"drain {chance.choice(HOSTS)}")
    return made


def book_of(fleet: Fleet, booked: Booked) -> Book:
    """Return its rules."""
    return Book(fleet.rules, lambda name: fleet.nodes[name].host,
                booked.where)


class LawTest(unittest.TestCase):
    """What holds in each state, also while moves are under way."""

    def check_step(self, made: World, step: planner.Step) -> None:
        """A step breaks no rule, wherever the others of that time end."""
        fleet = made.fleet
        booked = Booked(fleet)
        there = fleet.nodes[step.to].host
        self.assertEqual(list(book_of(fleet, booked).refusals(
            step.vm, there)), [], step)
        self.assertIsNot(fleet.guests[step.vm].spec.placement.mode, Mode.NEVER)
        made.begin(step.vm, step.to, step.spot, step.hard, step.goal)
        room = Booked(fleet).host(step.to)
        self.assertGreaterEqual(room.available,
                                room.memory * room.reserve_memory - 1)
        self.assertLessEqual(room.moves_in, 1)

    @over(lambda some: some.integers(0, 10 ** 6))
    def test_no_state_is_wrong(self, value: int) -> None:
        """Rules and room hold in each state of two hours."""
        made = some_fleet(value)
        for _ in range(90):
            made.step()
            decision = planner.decide(made.fleet, POLICY, made.past, made.cost)
            made.past.note_heat(made.fleet.now, 300.0, decision.heat())
            for step in decision.steps:
                self.check_step(made, step)
            again = planner.decide(made.fleet, POLICY, made.past, made.cost)
            drains = (Kind.DRAIN.value, Kind.RULE.value)
            self.assertEqual([step for step in again.steps if step.source in {
                each.source for each in decision.steps}
                and step.reason not in drains], [])

    @over(lambda some: some.integers(0, 10 ** 6))
    def test_order_does_not_matter(self, value: int) -> None:
        """Hosts and VMs may come in any order."""
        made = some_fleet(value)
        for _ in range(5):
            made.step()
        first = planner.decide(made.fleet, POLICY, made.past, made.cost)
        fleet = made.fleet
        chance = random.Random(value)
        fleet.nodes = shuffled(fleet.nodes, chance)
        fleet.guests = shuffled(fleet.guests, chance)
        self.assertEqual(first, planner.decide(fleet, POLICY, made.past,
                                               made.cost))

    @over(lambda some: some.tuples(some.integers(0, 10 ** 6), some.lists(
        some.floats(allow_nan=True) | some.floats(0.0, 16.0), min_size=40,
        max_size=40)))
    def test_one_liar(self, value: tuple[int, list[float]]) -> None:
        """Whatever one host says, one VM a round moves for it, few in all."""
        chance = random.Random(value[0])
        vms = {f"v{number}": 0.3 for number in range(18)}
        made = World(Fleet(10.0, -86400.0), Steady(vms))
        for name in HOSTS:
            made.fleet.add_host(a_host(name, 8.0, 32 * GIB, 10000))
        made.fleet.now = 0.0
        for number, vm in enumerate(vms):
            made.fleet.add_guest(a_vm(vm, HOSTS[number % 6], 2, GIB, DiskUse(
                "vd0", GIB, GIB), {}), Spec(vm, ()), {})
        liar, moved = chance.choice(HOSTS), 0
        for told in value[1] * 3:
            made.lies[liar, "cpu"] = told
            made.step()
            decision = planner.decide(made.fleet, POLICY, made.past, made.cost)
            made.past.note_heat(made.fleet.now, 300.0, decision.heat())
            self.assertLessEqual(len(decision.steps), 1)
            for step in decision.steps:
                self.assertEqual(step.source, liar)
                made.begin(step.vm, step.to, step.spot, step.hard, step.goal)
                moved += 1
        self.assertLessEqual(moved, 3)


class WordsTest(unittest.TestCase):
    """Everything has a sentence with numbers."""

    def test_scenes(self) -> None:
        """Each step and each refusal of each scene."""
        told = 0
        for path in SCENES:
            if path.stem in ("quiet", "day", "turns"):
                continue                    # 24 hours of silence
            story = scenario.play(scenario.loads(path.read_text("utf-8")),
                                  POLICY)
            lines = [step.why for _, step in story.moves]
            lines += [part for text in story.said for part
                      in text.splitlines()]
            lines += [story.last.text(), *story.breakers]
            for line in lines:
                told += 1
                self.assertRegex(line, NUMBER, path.stem)
        self.assertGreater(told, 300)

    def test_why_not(self) -> None:
        """Each VM and each host of invented fleets."""
        for seed in range(4):
            made = some_fleet(seed)
            for _ in range(5):
                made.step()
            world = made.fleet, POLICY, made.past, made.cost
            now, decision = planner.a_round(*world), planner.decide(*world)
            for vm in sorted(made.fleet.guests)[:6]:
                for host in HOSTS:
                    lines = explain.why_not(now, decision, vm, host)
                    self.assertTrue(lines)
                    for line in lines:
                        self.assertRegex(line, NUMBER)

    def test_windows(self) -> None:
        """Times of a week."""
        night = "Mon-Fri 22:00-06:00; Sat,Sun"
        for at, inside in ((21.9, False), (22.0, True), (29.9, True),
                           (30.0, False), (5 * 24 + 3.0, True),
                           (6 * 24 + 12.0, True), (1.0, False)):
            self.assertIs(is_in(night, at * 3600), inside, at)
        for text in ("Mon 25:00-26:00", "Someday", "10:00", "Mon 9:60-10:00"):
            self.assertTrue(list(bad_times(text)), text)
        self.assertEqual(list(bad_times("Fri-Mon; 1:00-2:00")), [])
