# SPDX-License-Identifier: GPL-2.0-or-later
"""Tests of how a controller shares out links and calls moves off."""

import dataclasses
import time
import unittest
from typing import Any
from unittest import mock

from tests.scripts.controller.test_rounds import PRESENT, World

if PRESENT:
    from wsm.controller.pacing import Pacer
    from wsm.controller.rounds import Controller
    from wsm.cli.drive import ALL
    from wsm.plan.grants import USEFUL

GIG = 125e6


@unittest.skipUnless(PRESENT, "python3-aiohttp is needed")
class PacingWorld(World):
    """Hosts with links of 1 Gbit/s, and a move from alpha."""

    def setUp(self) -> None:
        super().setUp()
        self.hosts.mbit = 1000
        for name, value in (("RENEW", 0.0),):
            patch = mock.patch(f"wsm.cli.drive.{name}", value)
            patch.start()
            self.addCleanup(patch.stop)

    def begun(self) -> "Controller":
        """Return a controller whose move of db1 does not go on."""
        made = self.make()
        self.hosts.hold.clear()
        self.heat()
        while not made.executor.flights:
            self.round(made)
        self.wait(lambda: "source perform db1" in self.hosts.orders)
        return made

    def told(self, vm: str = "db1") -> list[tuple[int, int]]:
        """Return (bytes/s, s for which they are good) that it was told."""
        return [each for name, *each in self.hosts.limits  # type: ignore
                if name == vm]

    def wait_told(self, rate: float) -> None:
        """Wait until it may use so much."""
        self.wait(lambda: self.hosts.limits and
                  abs(self.hosts.limits[-1][1] - rate) < 2)


class GrantTest(PacingWorld):
    """What moves are told."""

    def test_alone(self) -> None:
        """It begins with its share of the link, and is told so again."""
        made = self.begun()
        self.assertEqual(self.hosts.limits[0][:2], ("db1", 0.8 * GIG))
        self.wait(lambda: len(self.hosts.limits) > 3)
        self.assertEqual(set(self.hosts.limits[1:]), {("db1", 0.8 * GIG, 15)})
        self.hosts.hold.set()
        self.wait_moves(made)
        entry, = made.journal.ended_since(0)
        # It was so from the begin to the end: what it took can be learned
        self.assertEqual((entry.move.factor, entry.move.rate),
                         (1.0, 0.8 * GIG))

    def test_shared(self) -> None:
        """Two of a link have half of it each; the first learns of it."""
        made = self.begun()
        self.wait_told(0.8 * GIG)
        db1 = made.executor.flights["db1"]
        made.executor.flights["web"] = dataclasses.replace(db1, vm="web")
        made.pacer.once()
        self.wait_told(0.4 * GIG)
        del made.executor.flights["web"]
        self.hosts.hold.set()
        self.wait_moves(made)
        entry, = made.journal.ended_since(0)
        self.assertEqual(entry.move.factor, 0.0)    # that teaches nothing

    def test_turns(self) -> None:
        """A move that would get too little is not begun yet."""
        made = self.begun()
        db1 = made.executor.flights["db1"]
        web = dataclasses.replace(db1, vm="web")
        self.assertTrue(made.pacer.has_turn(web))
        for name in ("x", "y"):
            made.executor.flights[name] = dataclasses.replace(db1, vm=name)
        self.assertFalse(made.pacer.has_turn(web))
        self.assertTrue(made.pacer.has_turn(dataclasses.replace(
            web, source="beta", to="alpha")))
        for name in ("x", "y"):
            del made.executor.flights[name]

    def test_waits(self) -> None:
        """What waits for its turn begins when that has come."""
        made = self.make()
        self.heat()
        with mock.patch.object(Pacer, "has_turn", return_value=False):
            decision = self.round(made, 15)
        assert decision
        self.assertEqual([each.vm for each in decision.steps], ["db1"])
        self.assertEqual(made.executor.flights, {})
        self.round(made)
        self.wait_moves(made)
        self.assertIn("source begin db1", self.hosts.orders)

    def test_dead_controller(self) -> None:
        """It says nothing any more; its successor goes on with it."""
        made = self.begun()
        self.wait_told(0.8 * GIG)
        made.executor.stop(20.0)
        made.leader.give()
        count = len(self.hosts.limits)
        time.sleep(0.05)
        self.assertEqual(len(self.hosts.limits), count)
        other = self.make("c2")
        self.round(other)
        self.wait(lambda: len(self.hosts.limits) > count)
        self.hosts.hold.set()
        self.wait_moves(other)
        self.assertNotEqual(self.hosts.vms["db1"].host, "alpha")

    def test_successor(self) -> None:
        """Before it knows the links it lets no move go faster."""
        made = self.begun()
        self.wait_told(0.8 * GIG)
        made.executor.stop(20.0)
        made.leader.give()
        count = len(self.hosts.limits)
        other = self.make("c2")
        self.assertTrue(other.leader.take())
        other.executor.take_up()
        other.pacer.once()
        self.wait(lambda: other.executor.figures)
        self.round(other)
        self.wait(lambda: len(self.hosts.limits) > count)
        self.assertEqual({rate for _, rate, _ in self.hosts.limits[count:]},
                         {0.8 * GIG})
        self.hosts.hold.set()
        self.wait_moves(other)

    def test_unknown_speed(self) -> None:
        """Where nobody has said how fast a link is, it is not limited."""
        self.hosts.mbit = 0
        made = self.begun()
        self.assertEqual(made.executor.grants, {"db1": USEFUL})
        self.assertEqual(self.hosts.limits[0][:2], ("db1", ALL))
        self.hosts.hold.set()
        self.wait_moves(made)
        entry, = made.journal.ended_since(0)
        self.assertEqual(entry.move.rate, 0)    # how fast it is can be learned

    def test_deadline(self) -> None:
        """As much as it needs, and an alarm if that is not enough."""
        made = self.begun()
        self.wait_told(0.8 * GIG)
        move, _ = made.executor.seen("db1")
        assert move

        def due(seconds: float, left: int) -> None:
            now = dataclasses.replace(move, due=self.clock.now + seconds)
            with mock.patch.object(made.executor, "seen", return_value=(
                    now, {"phase": "disk-precopy", "remaining": left,
                          "disks": [{"dirty": left}]})):
                made.pacer.once()
                self.clock.now -= 10
                self.round(made)

        due(100.0, 950_000_000)
        self.assertLess(made.executor.grants["db1"], 0.1 * GIG)
        self.assertEqual(made.executor.notes, {})
        due(100.0, 10**12)
        self.assertEqual(made.executor.grants["db1"], 0.8 * GIG)
        self.assertIn("late by", made.executor.notes["db1"])
        self.assertIn("deadline db1", [each for each, *_ in
                                       made.ledger.alarms()])


class RegretTest(PacingWorld):
    """Moves that are not worth their end any more."""

    def seen(self, made: "Controller", **figures: Any) -> Any:
        """Let QEMU have said something of db1's move."""
        move, _ = made.executor.seen("db1")
        return mock.patch.object(made.executor, "seen", return_value=(
            move, {"phase": "disk-precopy", **figures}))

    def test_reason_gone(self) -> None:
        """The host has cooled by itself: the VM stays, and nothing failed."""
        made = self.begun()
        self.hosts.vms["db1"].cpu = 0.1
        self.round(made, 4)
        self.hosts.hold.set()
        self.wait_moves(made)
        self.round(made)
        entry, = made.journal.ended_since(0)
        self.assertEqual((entry.move.result, self.hosts.vms["db1"].host),
                         ("cancelled", "alpha"))
        note = [each for each in made.ledger.audit(9)
                if each.what == "regret"]
        self.assertEqual(len(note), 1)
        self.assertIn("not too full any more", str(note[0]))
        self.assertEqual(made.past.failed, [])

    def test_handed_over(self) -> None:
        """After the handover nothing is taken back."""
        made = self.begun()
        self.hosts.vms["db1"].cpu = 0.1
        with self.seen(made, phase="postcopy"):
            self.round(made, 4)
        self.assertFalse(made.journal.cancel_wanted(
            made.journal.open_entries()[0].move.id))

    def test_more_than_half(self) -> None:
        """What is nearly there goes on, unless its end is unfit."""
        made = self.begun()
        self.hosts.vms["db1"].cpu = 0.1
        move = made.journal.open_entries()[0].move
        with self.seen(made, remaining=10, ram={"transferred": 11}):
            self.round(made, 4)
            self.assertFalse(made.journal.cancel_wanted(move.id))
            entries = made.ledger.hosts()
            made.ledger.set_hosts("eve", {
                **entries, move.destination: dataclasses.replace(
                    entries[move.destination], state="cordoned")})
            self.round(made)
        self.assertTrue(made.journal.cancel_wanted(move.id))

    def test_observe(self) -> None:
        """Who only looks takes nothing back."""
        made = self.begun()
        made.store.set("eve", "mode", "observe")
        self.hosts.vms["db1"].cpu = 0.1
        self.round(made, 4)
        self.assertFalse(made.journal.cancel_wanted(
            made.journal.open_entries()[0].move.id))


class NetworkTest(PacingWorld):
    """Moves between two hosts break."""

    def test_other_way(self) -> None:
        """After three cuts VMs go elsewhere, until that is long ago."""
        made = self.begun()
        to = made.executor.flights["db1"].to
        move, figures = made.executor.seen("db1")
        for cuts in (1, 3, 3):
            with mock.patch.object(made.executor, "seen", return_value=(
                    move, {**figures, "phase": "postcopy", "channels": [
                        {"id": 0, "reconnects": cuts}]})):
                self.round(made)
            self.assertEqual([each for each, *_ in made.ledger.alarms()
                              if each.startswith("network")],
                             [f"network alpha {to}"] if cuts > 2 else [])
        rule, = made.fleet.rules
        self.assertEqual((rule.vms, rule.hosts), (("web",), (to,)))
        self.assertIn("3 cuts", rule.text())
        self.clock.now += 700
        self.round(made)
        self.assertEqual(made.fleet.rules, ())


if __name__ == "__main__":
    unittest.main()
