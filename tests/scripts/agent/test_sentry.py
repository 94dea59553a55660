# SPDX-License-Identifier: GPL-2.0-or-later
"""Tests of the guard of a host, with counters that are made up."""

import asyncio
import math
import unittest
from typing import Any, Optional
from unittest import mock

from wsm.agent import samples
from wsm.agent.latency import BOUNDS, p95
from wsm.agent.monitor import QmpGone
from wsm.agent.sentry import MBIT, Resident, Sentry, room
from wsm.plan.guard import Act, Grip, Seen
from wsm.plan.promise import Account, Breach, Reading, Short
from wsm.plan.spec import Sla

PROMISED = Sla(net_mbit_min={"out": 100.0})
GRANT = 160 * MBIT


class Monitor:
    """Answers query-blockstats with latencies."""

    def __init__(self) -> None:
        self.bins: Optional[list[int]] = None
        self.asked: list[str] = []

    async def call(self, command: str, arguments: Any = None,
                   timeout: float = 15) -> Any:
        """Count, or begin to; be asked for a short answer only."""
        assert timeout <= 1
        self.asked.append(command)
        if command == "block-latency-histogram-set":
            self.bins = [0] * len(arguments["boundaries"] + [0])
            return {}
        found = {} if self.bins is None else {
            "rd_latency_histogram": {"boundaries": BOUNDS,
                                     "bins": list(self.bins)}}
        return [{"qdev": "/machine/peripheral/vd0", "stats": found},
                {"stats": {}}]


class House:
    """A host with counters that the test sets."""

    def __init__(self, *vms: Resident) -> None:
        self.vms = list(vms)
        self.now = 100.0
        self.wires: dict[str, tuple[int, int]] = {}
        self.spent: dict[int, tuple[float, float]] = {}
        self.qemu = Monitor()
        self.gone = False

    def residents(self) -> list[Resident]:
        """Return the VMs."""
        return self.vms

    async def monitor(self, _name: str) -> Any:
        """Return the monitor of each."""
        if self.gone:
            raise QmpGone("gone")
        return self.qemu

    def count(self, pids: list[int], now: float) -> samples.Counters:
        """Return the counters."""
        return samples.Counters(now, wires=dict(self.wires), spent={
            pid: self.spent[pid] for pid in pids})

    def second(self, guard: Sentry, **speeds: float) -> None:
        """Let a second go by, with so many Mbit/s sent by each device."""
        self.now += 1
        for name, mbit in speeds.items():
            rx, tx = self.wires.get(name, (0, 0))
            # A VM sends what its tap receives
            self.wires[name] = ((rx + round(mbit * MBIT), tx)
                                if name == "tap0"
                                else (rx, tx + round(mbit * MBIT)))
        with mock.patch.object(samples, "count", self.count):
            asyncio.run(guard.look())


def guarded(*vms: Resident, mbit: float = 160.0) -> tuple[House, Sentry]:
    """Return a host and its guard."""
    house = House(*vms)
    guard = Sentry(house, mbit, clock=lambda: house.now)
    guard.device = "eth1"
    return house, guard


def seen(now: float, phase: str = "disk-precopy") -> Seen:
    """Return a second of a move."""
    return Seen(now, phase, GRANT)


class ShortTest(unittest.TestCase):
    """What the controller is told."""

    def test_lacks(self) -> None:
        """The mean since the last time, of seconds with a breach."""
        house, guard = guarded(Resident("db", 1, PROMISED, ("tap0",)))
        house.second(guard, tap0=120)
        house.second(guard, tap0=120, eth1=160)
        guard.short("db")
        for mbit in (60, 20):
            house.second(guard, tap0=mbit, eth1=160)
        for mbit in (20, 120):
            house.second(guard, tap0=mbit, eth1=10)     # the link has room
        found = guard.short("db")
        self.assertAlmostEqual(found.lacks["out"], (40 + 80) / 4)
        self.assertEqual(found.io_p95, 0.0)
        self.assertEqual(dict(guard.short("db").lacks), {})
        self.assertEqual(dict(guard.short("nobody").lacks), {})

    def test_latency(self) -> None:
        """The median of seconds with enough requests."""
        account = Account()
        for io_p95, requests in ((5.0, 99), (200.0, 99), (100.0, 99),
                                 (900.0, 3), (None, 0)):
            account.add([], Reading(io_p95=io_p95, requests=requests))
        self.assertEqual(account.close().io_p95, 100.0)
        self.assertEqual(account.close(), Short())


class StartTest(unittest.TestCase):
    """With which rate a move begins."""

    def test_room(self) -> None:
        """What is left beside others, but for a tenth, and never nothing."""
        self.assertEqual(room(160.0, 0.0), math.inf)
        self.assertEqual(room(0.0, 100.0), math.inf)
        self.assertAlmostEqual(room(160.0, 100.0), 44 * MBIT)
        self.assertAlmostEqual(room(160.0, 500.0), 16 * MBIT)

    def test_promised_or_used(self) -> None:
        """The more of both is left; of others' links by what they say."""
        house, guard = guarded(Resident("db", 1, PROMISED, ("tap0",)))
        for _ in range(3):
            house.second(guard, tap0=20)
        self.assertEqual(guard.begins("m", "db", GRANT).rate, GRANT)
        self.assertAlmostEqual(guard.begins("m", "web", GRANT).rate, 44 * MBIT)
        self.assertAlmostEqual(guard.leaves("out"), 124 * MBIT)
        self.assertEqual(guard.leaves("in"), math.inf)
        for _ in range(20):
            house.second(guard, tap0=120)
        self.assertAlmostEqual(guard.begins("m", "web", GRANT).rate, 24 * MBIT)
        self.assertAlmostEqual(guard.leaves("out"), 24 * MBIT)
        self.assertEqual(guard.begins("m", "web", MBIT).rate, MBIT)
        with mock.patch.object(guard.peers, "leaves", return_value=2 * MBIT):
            self.assertEqual(guard.begins("m", "web", GRANT).rate, 2 * MBIT)


    def test_disks(self) -> None:
        """Where they were promised to be fast, a move begins slowly."""
        fast = Sla(io_p95_ms_max=10.0)
        house, guard = guarded(Resident("db", 1, fast))
        house.second(guard)
        house.second(guard)
        slow = guard.policy.disk
        for vm, grant, wanted in (
                ("web", GRANT, Grip(slow, disk=True)),
                ("web", MBIT, Grip(MBIT)), ("db", GRANT, Grip(GRANT))):
            self.assertEqual(guard.begins("m", vm, grant), wanted)
        guard.begins("m", "web", GRANT)
        for near, rate in ((True, slow), (False, slow + guard.policy.up * GRANT)):
            with mock.patch.object(guard, "near", near):
                for second in range(7):
                    grip, _ = guard.decide("m", "web", Grip(GRANT), seen(
                        house.now + second + 9 * (not near)))
            self.assertEqual(grip.rate, rate)
        self.assertTrue(guard.told("n", "web").disks)
        self.assertFalse(guard.told("n", "db").disks)
        house, guard = guarded()
        with mock.patch.object(guard.peers, "heeds_disks", return_value=True):
            self.assertTrue(guard.begins("m", "web", GRANT).disk)
            with mock.patch.object(guard.peers, "leaves",
                                   return_value=2.0 * slow):
                self.assertEqual(guard.begins("m", "web", GRANT), Grip(slow))


class LookTest(unittest.TestCase):
    """What is read of a VM."""

    def broken(self, guard: Sentry) -> list[str]:
        """Return what is broken now."""
        return [each.what for each in guard.breaches]

    def test_net(self) -> None:
        """A full link and less than was promised."""
        house, guard = guarded(Resident("db", 1, PROMISED, ("tap0",)))
        for mbit, wire, wanted in ((0, 0, []), (100, 100, []), (60, 100, []),
                                   (60, 155, ["net.out"]), (97, 155, [])):
            house.second(guard, tap0=mbit, eth1=wire)
            self.assertEqual(self.broken(guard), wanted)

    def test_speed_not_told(self) -> None:
        """Then a link is full at the most that it was seen to do."""
        house, guard = guarded(Resident("db", 1, PROMISED, ("tap0",)), mbit=0)
        for mbit, wire, wanted in ((0, 0, []), (100, 110, []),
                                   (60, 100, []), (60, 108, ["net.out"])):
            house.second(guard, tap0=mbit, eth1=wire)
            self.assertEqual(self.broken(guard), wanted)
        self.assertEqual(guard.grant(1 << 37, "disk-precopy"), 1 << 37)
        self.assertAlmostEqual(guard.grant(1 << 37, "postcopy"), 110 * MBIT)

    def test_cpu(self) -> None:
        """What waits, of what ran and waited."""
        house, guard = guarded(Resident("db", 1, Sla(cpu_wait_max=0.1)))
        house.spent[1] = 10.0, 1.0
        house.second(guard)
        for ran, waited, wanted in ((0.9, 0.09, []), (0.9, 0.2, ["cpu"]),
                                    (0.01, 0.03, [])):
            before = house.spent[1]
            house.spent[1] = before[0] + ran, before[1] + waited
            house.second(guard)
            self.assertEqual(self.broken(guard), wanted)

    def test_swap(self) -> None:
        """What was swapped out in a second."""
        house, guard = guarded(Resident("db", 1, Sla(swap_kib_s_max=64.0)))
        for swapped, wanted in ((0, []), (1 << 20, []), (1 << 20, []),
                                (2 << 20, ["swap"]), (1 << 20, [])):
            with mock.patch.object(samples, "memory_of",
                                   return_value=(0, swapped)):
                house.second(guard)
            self.assertEqual(self.broken(guard), wanted)

    def test_io(self) -> None:
        """QEMU counts latencies from the first look on; of what is new."""
        house, guard = guarded(Resident("db", 1, Sla(io_p95_ms_max=10.0)))
        house.second(guard)
        house.second(guard)
        self.assertEqual(house.qemu.asked[-1], "block-latency-histogram-set")
        house.second(guard)
        assert house.qemu.bins is not None
        house.qemu.bins[-1] += 20
        house.second(guard)
        self.assertEqual(self.broken(guard), ["io"])
        self.assertTrue(guard.near)
        self.assertTrue(guard.told("m", "web").near)
        house.second(guard)
        self.assertEqual(self.broken(guard), [])
        self.assertFalse(guard.near)
        house.gone = True
        house.second(guard)
        self.assertEqual(self.broken(guard), [])
        self.assertEqual(house.qemu.asked.count("block-latency-histogram-set"),
                         1)

    def test_p95(self) -> None:
        """The bound under which 95 of 100 requests were."""
        bins = [0] * (len(BOUNDS) + 1)
        self.assertIsNone(p95(bins))
        bins[0], bins[4] = 95, 5
        self.assertEqual(p95(bins), BOUNDS[0] / 10**6)
        bins[4] = 6
        self.assertEqual(p95(bins), BOUNDS[4] / 10**6)
        self.assertEqual(p95([0] * len(BOUNDS) + [1]), BOUNDS[-1] / 10**6)

    def test_nobody(self) -> None:
        """A class is no promise; without one nothing is read."""
        house, guard = guarded(Resident("db", 1, Sla("gold")))
        with mock.patch.object(samples, "count",
                               side_effect=AssertionError):
            asyncio.run(guard.look())
        self.assertFalse(guard.watches())
        house.vms = [Resident("db", 1, PROMISED, ("tap0",))]
        house.second(guard, tap0=100, eth1=100)
        house.second(guard, tap0=100, eth1=100)
        self.assertTrue(guard.watches())
        house.vms = []
        house.second(guard)
        self.assertFalse(guard.watches())


class DecideTest(unittest.TestCase):
    """What becomes of a move."""

    def go(self, before: float, during: float, seconds: int,
           moves: str = "web", phase: str = "disk-precopy"
           ) -> tuple[Grip, list[Act]]:
        """Return the grip and what was done, by what db got."""
        house, guard = guarded(Resident("db", 1, PROMISED, ("tap0",)))
        house.second(guard, tap0=100, eth1=155)
        house.second(guard, tap0=100, eth1=155)
        for _ in range(5):
            house.second(guard, tap0=before, eth1=155)
        grip, acts = guard.begins("m", "db", GRANT), []
        for _ in range(seconds):
            house.second(guard, tap0=during, eth1=155)
            grip, act = guard.decide("m", moves, Grip(GRANT),
                                     seen(house.now, phase))
            acts.append(act)
        return grip, acts

    def test_held(self) -> None:
        """It begins with the move: the move is slower at once."""
        grip, acts = self.go(100, 60, 3)
        self.assertEqual(acts, [Act.NOTHING, Act.NOTHING, Act.RATE])
        self.assertEqual(grip.rate, GRANT / 2)
        self.assertIn("db: net.out 60 Mbit/s, promised 100", grip.why)

    def test_not_its_fault(self) -> None:
        """It was so before."""
        _, acts = self.go(60, 60, 10)
        self.assertEqual(set(acts), {Act.NOTHING})

    def test_it_has_left(self) -> None:
        """What the VM that moves lacks counts as long as it runs here."""
        for phase, act in (("disk-precopy", Act.RATE),
                           ("postcopy", Act.NOTHING)):
            _, acts = self.go(100, 0, 3, "db", phase)
            self.assertIs(acts[-1], act)
        _, acts = self.go(100, 0, 3, "web", "postcopy")
        self.assertIs(acts[-1], Act.RATE)

    def test_new_promise(self) -> None:
        """A description that was changed counts as it is."""
        house, guard = guarded(Resident("db", 1, PROMISED, ("tap0",)))
        for mbit, wanted in ((100, []), (100, []), (60, ["net.out"])):
            house.second(guard, tap0=mbit, eth1=155)
            self.assertEqual([each.what for each in guard.breaches], wanted)
        house.vms = [Resident("db", 1, Sla(net_mbit_min={"out": 50.0}),
                              ("tap0",))]
        house.second(guard, tap0=60, eth1=155)
        self.assertEqual(guard.breaches, ())

    def test_new_agent(self) -> None:
        """An agent that has just started goes on from the rate that is set."""
        house, guard = guarded(Resident("db", 1, PROMISED, ("tap0",)))
        grip, _ = guard.decide("m", "web", Grip(10 * MBIT), seen(house.now))
        self.assertEqual(grip.rate, 10 * MBIT)
        guard.ended("m")
        self.assertEqual(guard.held, {})
        guard.ended("m")


class OtherHostTest(unittest.TestCase):
    """What the destination says, and what the source makes of it."""

    def test_told(self) -> None:
        """What began with the move, and what its VMs leave of the way in."""
        wants = Sla(net_mbit_min={"in": 100.0}, cpu_wait_max=0.1)
        house, guard = guarded(Resident("db", 1, wants, ("tap0",)))
        house.spent[1] = 0.0, 0.0

        def second(mbit: float, wait: float) -> None:
            rx, tx = house.wires.get("tap0", (0, 0))
            house.wires["tap0"] = rx, tx + round(mbit * MBIT)
            ran, waited = house.spent[1]
            house.spent[1] = ran + 1.0, waited + wait
            house.second(guard, eth1=155)

        for _ in range(5):
            second(110, 0.5)
        told = guard.told("m", "web")
        self.assertTrue(told.watches)
        self.assertEqual(told.breaches, ())     # it waited before
        self.assertAlmostEqual(told.room or 0, 34 * MBIT)
        self.assertAlmostEqual(told.begin or 0, 34 * MBIT)
        second(60, 0.5)
        told = guard.told("m", "web")
        self.assertEqual([each.what for each in told.breaches], ["net.in"])
        self.assertEqual(guard.told("n", "db").breaches, ())
        self.assertIsNone(guard.told("n", "db").room)

    def test_held_for_there(self) -> None:
        """Nobody here was promised anything: those there are heeded."""
        _, guard = guarded()
        hurt = Breach("far", "net.in", 50.0, 100.0)
        guard.begins("m", "web", GRANT)
        with mock.patch.object(guard.peers, "breaches", return_value=[hurt]):
            for second in range(3):
                grip, _ = guard.decide("m", "web", Grip(GRANT),
                                       seen(float(second)))
        self.assertEqual(grip.rate, GRANT / 2)
        self.assertIn("far: net.in", grip.why)
        with mock.patch.object(guard.peers, "leaves",
                               return_value=0.55 * GRANT):
            for second in range(3, 30):
                grip, _ = guard.decide("m", "web", Grip(GRANT),
                                       seen(float(second)))
        self.assertAlmostEqual(grip.rate, 0.55 * GRANT)


if __name__ == "__main__":
    unittest.main()
