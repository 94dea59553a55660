# SPDX-License-Identifier: GPL-2.0-or-later
"""What a round does not look at changes nothing."""

import dataclasses
import random
import unittest
from typing import Mapping
from unittest import mock

from wsm.plan import planner
from wsm.plan.policy import Policy
from wsm.plan.ruling import Book, Rule, RuleKind
from wsm.plan.series import RING, Series
from wsm.plan.spec import Placement, Sla
from wsm.sim.simworld import World

from tests.scripts.plan.test_laws import HOSTS, Steady, some_fleet

POLICY = Policy()


class Moody(Steady):
    """VMs that lack something for a while."""

    def __init__(self, cpu: Mapping[str, float], chance: random.Random) -> None:
        super().__init__(cpu)
        self.chance = chance
        self.mood = {vm: 0.0 for vm in cpu}
        self.lacks = {vm: chance.choice(("rx", "wait", "swap")) for vm in cpu}

    def wants(self, vm: str, now: float) -> Mapping[str, float]:
        """Return what a VM wants: now and then more than a wire has."""
        if self.chance.random() < 0.2:
            self.mood[vm] = self.chance.choice((0.0, 0.0, 0.03, 0.15, 0.6))
        wire = 4e8 if self.mood[vm] > 0.1 else 1e6
        return {**super().wants(vm, now), "tx": 1e6,
                "rx": wire if self.lacks[vm] == "rx" else 1e6}

    def guest_signs(self, vm: str, _now: float) -> Mapping[str, float]:
        """Return what else is seen of a VM."""
        unit = {"wait": 1.0, "swap": 1e6}
        return {sign: self.mood[vm] * each if self.lacks[vm] == sign
                else 0.0 for sign, each in unit.items()}


def some_moods(seed: int) -> World:
    """Return a fleet in which something is wrong with all kinds of things."""
    made, chance = some_fleet(seed), random.Random(seed)
    assert isinstance(made.loads, Steady)
    made.loads, made.signs = Moody(made.loads.cpu, chance), True
    for vm, guest in list(made.fleet.guests.items()):
        placed = guest.spec.placement
        if chance.random() < 0.2:
            placed = Placement(pin=tuple(chance.sample(HOSTS, 2)))
        described = dataclasses.replace(guest.spec, placement=placed, sla=Sla(
            chance.choice(("gold", "silver", "bronze")),
            net_mbit_min={"in": 2000.0} if chance.random() < 0.5 else {}))
        made.fleet.add_guest(guest.use, described, guest.needs)
    chain = [vm for host in sorted(HOSTS, reverse=True)
             for vm in sorted(made.fleet.nodes[host].guests)[:2]][:4]
    made.fleet.rules += tuple(Rule(RuleKind.TOGETHER, pair)
                              for pair in zip(chain, chain[1:]))
    return made


def looking_at_all(made: World) -> planner.Decision:
    """Return the decision of who takes no short cut."""
    fleet = dataclasses.replace(
        made.fleet, pinned=set(made.fleet.guests),
        uneasy=dict.fromkeys(made.fleet.guests, made.fleet.now))
    with mock.patch.object(Series, "was_over", lambda *_: True), \
            mock.patch.object(Book, "suspects", lambda book: set(book.of)):
        return planner.decide(fleet, POLICY, made.past, made.cost)


class ShortCutTest(unittest.TestCase):
    """Against a round that looks at all hosts, VMs and rules."""

    def test_same_decisions(self) -> None:
        """In each state of ten minutes of many fleets."""
        kinds: set[str] = set()
        for seed in range(12):
            made = some_moods(seed)
            for _ in range(60):
                made.step()
                decision = planner.decide(made.fleet, POLICY, made.past,
                                          made.cost)
                self.assertEqual(decision, looking_at_all(made))
                made.past.note_heat(made.fleet.now, 300.0, decision.heat())
                kinds.update(spot.key.split()[0] for spot in decision.spots)
                for step in decision.steps:
                    made.begin(step.vm, step.to, step.spot, step.hard,
                               step.goal)
        self.assertLessEqual({"host.cpu", "sla.cpu", "sla.rx", "sla.swap",
                              "rule", "drain"}, kinds)

    def test_the_calm_are_forgotten(self) -> None:
        """Who has lacked nothing in all samples that are kept."""
        fleet = some_moods(1).fleet
        fleet.take_sign("v00", "wait", 1.0)
        for _ in range(RING):
            fleet.now += 10.0
            fleet.take_sign("v00", "wait", 0.0)
            self.assertIn("v00", fleet.uneasy)
        fleet.now += 20.0
        fleet.take_sign("v00", "wait", 0.0)
        self.assertNotIn("v00", fleet.uneasy)
