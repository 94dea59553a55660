# SPDX-License-Identifier: GPL-2.0-or-later
"""Tests of what the planner decides: scenes, laws, limits."""

import copy
import dataclasses
import os
import random
import subprocess
import tempfile
import unittest
from pathlib import Path
from typing import Any, TypeVar
from xml.etree import ElementTree

from dev.common import ROOT
from wsm.plan import planner, policy, spec
from wsm.plan.detect import Kind, Spot
from wsm.plan.fleet import Fleet, Flight
from wsm.plan.heat import is_full, is_hot
from wsm.plan.booked import Booked
from wsm.plan.past import Past, Trip
from wsm.plan.plain import BadData
from wsm.plan.policy import Limit, Policy
from wsm.plan.spec import Mode, Placement
from wsm.sim import drawing, replay, rules, scenario, script, trace
from wsm.sim.simworld import World

from tests.scripts.plan.test_series import filled

T = TypeVar("T")
SCENES = sorted((Path(__file__).parent / "scenes").glob("*.toml"))
CALM = Policy().calm


def change(thing: Any, **values: Any) -> Any:
    """Return @thing with other values."""
    return dataclasses.replace(thing, **values)


def shuffled(things: dict[str, T], chance: random.Random) -> dict[str, T]:
    """Return the same in another order."""
    items = list(things.items())
    chance.shuffle(items)
    return dict(items)


def some_world(seed: int, steps: int = 40, load: float = 0.7) -> World:
    """Return a world of 6 hosts in which something is hot."""
    data = trace.made(60, 0.25, seed)
    made = replay.world(data, 6, load, seed)
    for _ in range(steps):
        made.step()
    return made


def idlest(world: World, host: str) -> str:
    """Return the VM whose move helps a host least."""
    return min(world.fleet.nodes[host].guests,
               key=lambda vm: world.fleet.guests[vm].load["cpu"].now)


def decide(world: World, **values: Any) -> planner.Decision:
    """Return the decision of one round."""
    return planner.decide(world.fleet, change(Policy(interval=300.0),
                                              **values), world.past,
                          world.cost)


class SceneTest(unittest.TestCase):
    """Whole stories on a clock of their own."""

    def test_scenes(self) -> None:
        """Each is as it expects."""
        self.assertTrue(SCENES)
        for path in SCENES:
            with self.subTest(path.stem):
                one = scenario.loads(path.read_text("utf-8"))
                self.assertTrue(one.expect)
                story = scenario.play(one, Policy())
                self.assertEqual([text for each in one.expect for text
                                  in scenario.misses(each, story)], [])
                for _, step in story.moves:
                    self.assertRegex(step.why, r"[0-9].*about [0-9]+ s")

    def test_a_miss_is_seen(self) -> None:
        """A scene that expects what does not happen says so."""
        text = SCENES[0].read_text("utf-8") + '\n[[expect]]\nmove = ["zz"]\n'
        one = scenario.loads(text)
        self.assertEqual(len(list(scenario.misses(
            one.expect[-1], scenario.play(one, Policy())))), 1)

    def test_bad_scenes(self) -> None:
        """What cannot be read is named."""
        for text, words in (("x = 1", "x is not known"), ("run = ", "no TOML"),
                            ('about=""\nrun="1q"\nhosts={}\nvms={}\n'
                             'expect=[]', "'1q' is no number")):
            with self.assertRaises(BadData) as caught:
                scenario.play(scenario.loads(text), Policy())
            self.assertIn(words, str(caught.exception))


class LawTest(unittest.TestCase):
    """Over many worlds."""

    def test_pure(self) -> None:
        """Nothing is changed by looking; the same world, the same plan."""
        for seed in range(12):
            world = some_world(seed)
            before = copy.deepcopy(world)
            first = decide(world)
            self.assertEqual(first, decide(before))
            self.assertEqual(first, decide(world))
            self.assertEqual(world.fleet.flights, before.fleet.flights)

    def test_order_does_not_matter(self) -> None:
        """Hosts and VMs may come in any order."""
        for seed in range(12):
            world = some_world(seed)
            first = decide(world)
            chance = random.Random(seed)
            world.fleet.nodes = shuffled(world.fleet.nodes, chance)
            world.fleet.guests = shuffled(world.fleet.guests, chance)
            self.assertEqual(first, decide(world))

    def test_steps_are_right(self) -> None:
        """Each step frees a hot host, and its target stays cool enough."""
        steps = 0
        for seed in range(30):
            world = some_world(seed)
            decision = decide(world)
            sources = [step.source for step in decision.steps]
            self.assertEqual(len(sources), len(set(sources)))
            targets = [step.to for step in decision.steps]
            self.assertEqual(len(targets), len(set(targets)))
            model = Booked(world.fleet)
            for step in decision.steps:
                steps += 1
                self.assertIn(step.vm, world.fleet.nodes[step.source].guests)
                self.assertIn(step.spot, [spot.key for spot
                                          in decision.spots])
                before = model.peak(step.source, "cpu") / (
                    world.fleet.nodes[step.source].capacity["cpu"])
                world.begin(step.vm, step.to)
                after = Booked(world.fleet).fullest(step.to)
                if step.why.startswith(f"{step.vm}: makes room on "):
                    continue
                self.assertTrue(after < 0.65 or after < before - 0.20,
                                f"{step}: {after} of {before}")
        self.assertGreater(steps, 20)

    def test_memory_counts_at_both_ends(self) -> None:
        """What is in flight has its memory at the target already."""
        world = some_world(3)
        step = decide(world).steps[0]
        world.begin(step.vm, step.to)
        there = Booked(world.fleet).host(step.to)
        self.assertEqual(there.available,
                         world.fleet.nodes[step.to].host.available
                         - world.fleet.guests[step.vm].use.memory)
        self.assertEqual((there.moves_in, Booked(world.fleet).host(
            step.source).moves_out), (1, 1))

    def test_nothing_twice(self) -> None:
        """Once a move is under way, nothing else is done for its host."""
        for seed in range(12):
            world = some_world(seed)
            for step in decide(world).steps[:1]:
                world.begin(idlest(world, step.source), step.to)
                again = decide(world)
                self.assertIn(step.spot, [spot.key for spot in again.spots])
                self.assertNotIn(step.source, [each.source
                                               for each in again.steps])

    def test_coming_counts(self) -> None:
        """A host is as full as it will be."""
        world = some_world(3)
        step = decide(world).steps[0]
        booked = Booked(world.fleet)
        before = booked.fullest(step.to)
        booked.fly(Flight(step.vm, step.source, step.to, "", False))
        self.assertAlmostEqual(
            booked.fullest(step.to), before
            + world.fleet.guests[step.vm].load["cpu"].peak
            / world.fleet.nodes[step.to].capacity["cpu"])

    def test_one_liar(self) -> None:
        """Whatever one host says, at most one VM moves a round for it."""
        chance = random.Random(5)
        for seed in range(10):
            world = some_world(seed, load=0.3)
            self.assertEqual(decide(world).steps, ())
            name, node = next(iter(world.fleet.nodes.items()))
            for _ in range(12):
                world.fleet.now += 300.0
                for other, each in world.fleet.nodes.items():
                    if other != name:
                        each.load["cpu"].add(world.fleet.now,
                                             each.load["cpu"].now)
                world.fleet.take(name, "cpu", chance.choice(
                    (0.0, 1e9, float("nan"), -1.0,
                     1.9 * node.capacity["cpu"])))
                self.assertLessEqual(len(decide(world).steps), 1)


class RuleTest(unittest.TestCase):
    """What keeps a VM where it is, each by itself."""

    def setUp(self) -> None:
        self.world = some_world(3)
        self.step = decide(self.world).steps[0]

    def moved(self, **values: Any) -> set[str]:
        """Return which VMs leave that host now."""
        return {step.vm for step in decide(self.world, **values).steps
                if step.source == self.step.source}

    def test_mode(self) -> None:
        """A VM that must be asked for, or pinned, stays."""
        guest = self.world.fleet.guests[self.step.vm]
        for placed in ({"mode": Mode.ASK},
                       {"mode": Mode.NEVER},
                       {"pin": (self.step.source,)}):
            guest.spec = change(guest.spec, placement=Placement(
                **placed))                      # type: ignore[arg-type]
            self.assertNotIn(self.step.vm, self.moved())

    def test_cooling(self) -> None:
        """A VM that has moved stays; great need breaks that once."""
        past, now = Past(), 100000.0
        self.assertFalse(past.is_cooling("a", now, False, CALM))
        past.note_end("a", Trip(now, "x", "y", False))
        self.assertTrue(past.is_cooling("a", now + 1799, False, CALM))
        self.assertFalse(past.is_cooling("a", now + 1800, False, CALM))
        self.assertFalse(past.is_cooling("a", now + 10, True, CALM))
        past.note_end("a", Trip(now + 100, "y", "x", True))
        self.assertTrue(past.is_cooling("a", now + 110, True, CALM))
        self.assertTrue(past.is_cooling("a", now + 3699, False, CALM))
        self.assertFalse(past.is_cooling("a", now + 3700, False, CALM))

    def test_not_back(self) -> None:
        """Nobody goes back where it was within two hours."""
        tried = 0
        for seed in range(40):
            world = some_world(seed, load=0.5)
            for step in decide(world).steps:
                for ago, stays in ((7199, True), (7201, False)):
                    world.past.trips.clear()
                    world.past.note_end(step.vm, Trip(
                        world.fleet.now - ago, step.to, step.source, False))
                    world.past.ended.clear()
                    goes = (step.vm, step.to) in [
                        (each.vm, each.to) for each in decide(world).steps]
                    tried += not stays and goes
                    self.assertFalse(stays and goes)
        self.assertGreater(tried, 0)

    def test_pause(self) -> None:
        """A host that somebody has just left is not judged."""
        now = self.world.fleet.now
        self.world.past.ended[self.step.source] = now - 119
        self.assertEqual(self.moved(), set())
        self.world.past.ended[self.step.source] = now - 120
        self.assertNotEqual(self.moved(), set())

    def test_caps(self) -> None:
        """So many at once, so many an hour."""
        calm = change(CALM, at_once=0, flying=0.0)
        self.assertEqual(self.moved(calm=calm), set())
        text = decide(self.world, calm=calm).text()
        self.assertIn("as many moves as may be", text)
        for _ in range(3):
            self.world.past.note_begin(self.world.fleet.now - 3599)
        self.assertEqual(self.moved(), set())

    def test_new_host(self) -> None:
        """A host that has just joined takes nothing."""
        for name, node in self.world.fleet.nodes.items():
            if name != self.step.source:
                node.joined = self.world.fleet.now - 899
        self.assertEqual(decide(self.world).steps, ())

    def test_downtime(self) -> None:
        """A VM that must not stop for so long stays."""
        guest = self.world.fleet.guests[self.step.vm]
        guest.spec = change(guest.spec, sla=change(guest.spec.sla,
                                                   downtime_ms_max=1.0))
        self.assertNotIn(self.step.vm, self.moved())
        guest.spec = change(guest.spec, sla=spec.Sla("gold"))
        self.assertGreater(self.step.estimate.downtime, 0.3)
        self.assertNotIn(self.step.vm, self.moved())


class DetectTest(unittest.TestCase):
    """k of n, forecast, hard."""

    LIMIT = Limit(0.8, 1.0, 0.7)

    def hot(self, values: list[float]) -> Any:
        """Return what is said of these samples of a host of 10."""
        return is_hot(filled(values), 10.0, self.LIMIT, Policy().hot)

    def test_samples(self) -> None:
        """Three of five, not two; two far over need no forecast."""
        self.assertIsNone(self.hot([1, 1, 1, 9, 9]))
        self.assertEqual(self.hot([9, 9, 9, 9, 9]), (5, False))
        self.assertEqual(self.hot([1, 1, 9, 11, 11]), (3, True))
        self.assertIsNone(self.hot([9, 9, 9, 1, 1]))    # it comes back
        self.assertIsNone(self.hot([8, 8, 8, 8, 8]))    # at the limit

    def full(self, values: list[float], interval: float,
             **hot: float) -> Any:
        """Return what is said of a host of 10 with these samples."""
        return is_full(filled(values, interval), 10.0, self.LIMIT, Policy(
            interval=interval, hot=change(Policy().hot, **hot)))

    def test_no_more_samples(self) -> None:
        """One of 5 minutes over what there is, if it does not go by itself."""
        rise = [1.0] * 8 + [5, 7, 7.5, 11]
        self.assertEqual(self.full(rise, 300.0), (1, True))
        self.assertIsNone(self.full(rise, 300.0, lasting=301.0))
        self.assertIsNone(self.full([1.0] * 11 + [11], 300.0))
        self.assertIsNone(self.full(rise, 10.0))
        self.assertIsNone(self.full([*rise, 11], 10.0))
        self.assertEqual(self.full([*rise, 11, 11], 10.0), (3, True))
        self.assertEqual(self.full([*rise[1:], 11], 20.0), (2, True))
        self.assertIsNone(self.full([11], 10.0))

    def test_precaution(self) -> None:
        """Who never came near what there is has no need of a move."""
        level = [8.5] * 12
        self.assertIsNone(self.full(level, 300.0))
        self.assertEqual(self.full(level, 300.0, near=0.0), (5, False))
        self.assertEqual(self.full(level, 300.0, near=0.2), (5, False))
        self.assertEqual(self.full(level[1:], 300.0), (5, False))
        self.assertEqual(self.full([9.1, *level[1:]], 300.0), (5, False))
        self.assertIsNone(self.full([9.1, *level], 300.0))

    def test_need(self) -> None:
        """One that lacks it may fill another up to where that is hot."""
        world = some_world(3)
        made = planner.a_round(world.fleet, Policy(interval=300.0),
                               world.past, world.cost)
        spot = Spot(Kind.HOST, min(world.fleet.nodes), "cpu", 0.9, 0.9, 3, 5,
                    True, 0.7)
        self.assertEqual(made.most(spot), 0.80)
        for other in (change(spot, hard=False), change(spot, sign="wait"),
                      change(spot, resource="mem"),
                      change(spot, kind=Kind.SLA)):
            self.assertEqual(made.most(other), 0.65)
        self.assertEqual(made.limit(spot), 0.65)

    def test_fleet_forgets(self) -> None:
        """Three intervals without a sample: nothing is known."""
        fleet = Fleet(10.0)
        fleet.add_host(scenario.host_of("a", script.SceneHost(4, "8G")))
        fleet.take("a", "cpu", 1.0)
        fleet.now = 30.0
        self.assertTrue(fleet.is_known("a", 3.0))
        fleet.now = 31.0
        self.assertFalse(fleet.is_known("a", 3.0))


    def test_nonsense_is_not_taken(self) -> None:
        """What cannot be; up to twice of what can be may."""
        fleet = Fleet(10.0)
        fleet.add_host(scenario.host_of("a", script.SceneHost(4, "8G")))
        for value in (float("nan"), float("inf"), -1.0, 8.1):
            self.assertFalse(fleet.take("a", "cpu", value))
        self.assertFalse(fleet.is_known("a", 3.0))
        self.assertTrue(fleet.take("a", "cpu", 8.0))

    def test_history_moves(self) -> None:
        """Both hosts are judged by the VMs that they have now."""
        world = some_world(3)
        step = decide(world).steps[0]
        nodes = world.fleet.nodes
        load = world.fleet.guests[step.vm].load["cpu"].now
        here, there = (nodes[name].load["cpu"].now
                       for name in (step.source, step.to))
        world.fleet.move(step.vm, step.to)
        self.assertAlmostEqual(nodes[step.source].load["cpu"].now,
                               here - load, 4)
        self.assertAlmostEqual(nodes[step.to].load["cpu"].now, there + load, 4)
        self.assertIn(step.vm, nodes[step.to].guests)


class PolicyTest(unittest.TestCase):
    """policy.toml."""

    def test_reads(self) -> None:
        """A part of it; the rest is as it was."""
        read = policy.loads("[hot.limits.cpu]\nlimit = 0.5\nhard = 0.6\n"
                            "release = 0.4\n")
        self.assertEqual(read.hot.limits.cpu, Limit(0.5, 0.6, 0.4))
        self.assertEqual(read.hot.limits.rx, Policy().hot.limits.rx)

    def test_refuses(self) -> None:
        """What cannot be meant."""
        for text, words in (
                ("[hot]\nover = 6\n", "over = 6 of 5"),
                ("[hot]\nnear = 1.5\n", "near = 1.5"),
                ("[hot.limits.cpu]\nlimit = 0.5\nhard = 0.4\nrelease = 0.1\n",
                 "must rise"), ("[heat]\n", "heat is not known"),
                ("[links]\nleast = 0\n", "must rise"),
                ("[links]\nshare = 80\n", "share 80.0"),
                ("[links]\nqueue = 25\n", "is a part"),
                ("[links]\ngold = 0\n", "are weights"),
                ("[links.shared.u]\nmbit = 0\nhosts = ['a']\n",
                 "links.shared.u: mbit = 0")):
            with self.assertRaises(BadData) as caught:
                policy.loads(text)
            self.assertIn(words, str(caught.exception))


class ReplayTest(unittest.TestCase):
    """Rules on the same days."""

    def test_same_again(self) -> None:
        """To the last digit, in whichever order Python keeps its sets."""
        words = [str(ROOT / "scripts/wsmctl"), "sim", "compare", "--json",
                 "--vms", "40", "--days", "0.25", "--hosts", "3"]
        told = {subprocess.run(
            words, check=True, capture_output=True,
            env={**os.environ, "PYTHONHASHSEED": seed}).stdout
            for seed in ("0", "1", "2")}
        self.assertEqual(len(told), 1)

    def test_ours(self) -> None:
        """It helps, with few moves, and the days are the same for all."""
        data = trace.made(100, 1.0, 2)
        tallies = {}
        for name, rule in rules.rules(Policy(interval=300.0)).items():
            world = replay.world(data, 8, 0.55, 2)
            while world.fleet.now < data.steps * trace.STEP:
                world.step()
                rule(world)
            tallies[name] = world.tally
        wanted = {tally.wanted["cpu"] for tally in tallies.values()}
        self.assertLess(max(wanted) - min(wanted), 1e-3)
        ours, none = tallies["ours"], tallies["none"]
        self.assertGreater(none.unmet["cpu"], 0.0)
        self.assertLess(ours.unmet["cpu"], 0.7 * none.unmet["cpu"])
        self.assertLess(ours.moves, tallies["spread"].moves / 4)
        self.assertEqual(none.moves, 0)

    def test_drawing(self) -> None:
        """Medians, and a drawing that has each rule once."""
        found = {f"{rule} {seed}": {"unmet_percent": 0.1 * seed * number,
                                    "moves_a_day": moves}
                 for number, (rule, moves) in enumerate((
                     ("none", 0.0), ("<rival>", 300.0), ("ours", 20.0)))
                 for seed in (1, 2, 3)}
        unmet = drawing.spreads(found, "unmet_percent")
        self.assertEqual(unmet["ours"].text(1), "0.4 (0.2 to 0.6)")
        self.assertEqual(unmet["none"].text(1), "0.0")
        root = ElementTree.fromstring(drawing.svg(found, "a & b"))
        told = [each.text for each in root.iter() if each.text]
        self.assertEqual([each for each in told if each in (
            "none", "<rival>", "ours", "a & b")],
            ["a & b", "none", "<rival>", "ours"])
        circles = [each.attrib for each in root.iter()
                   if each.tag.endswith("circle")]
        self.assertLess(float(circles[2]["cx"]), float(circles[1]["cx"]))
        self.assertLess(float(circles[2]["cy"]), float(circles[1]["cy"]))

    def test_bad_trace(self) -> None:
        """A file that is none is named, with its line."""
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "t.csv"
            path.write_text("vm,metric,values\n1,cpu,1 2\n2,cpu,1\n")
            with self.assertRaises(BadData) as caught:
                trace.read(path)
        self.assertIn("t.csv:3: 1 values, 2", str(caught.exception))
