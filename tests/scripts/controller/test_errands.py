# SPDX-License-Identifier: GPL-2.0-or-later
"""Tests of moves and drains that begin by themselves, to end by a time."""

import time
import unittest

from tests.scripts.controller.doorstep import PRESENT as SERVES
from tests.scripts.controller.doorstep import Served
from tests.scripts.controller.test_pacing import PacingWorld
from tests.scripts.controller.test_rounds import PRESENT, World

if PRESENT:
    from wsm.controller import draining, errands, wishes
    from wsm.controller.rounds import Controller, NotNow
    from wsm.controller.setup import Mode
    from wsm.plan.fleet import Errand

GIG = 125e6


@unittest.skipUnless(PRESENT, "python3-aiohttp is needed")
class ErrandTest(World):
    """A person wants a VM elsewhere by a time."""

    def want(self, made: "Controller", seconds: float, to: str = "beta",
             vm: str = "db1") -> float:
        """Say so; return when it is due."""
        due = self.clock.now + seconds
        wishes.want(made, "eve", Errand(vm, due, to, "" if to else "alpha"))
        return due

    def test_late(self) -> None:
        """It begins as late as is wise, and is forgotten when it is done."""
        made = self.make(mode="ask")
        self.round(made, 5)
        due = self.want(made, 1800)
        begins = wishes.listed(made)[0]["begins"]
        self.assertTrue(due - 300 < begins < due - 60, due - begins)
        while self.clock.now < begins - 10:
            self.round(made)
        self.assertEqual(self.hosts.orders, [])
        self.round(made, 2)
        self.wait_moves(made)
        self.round(made)
        entry, = made.journal.ended_since(0)
        self.assertEqual((entry.move.due, entry.spot, entry.move.result),
                         (due, "errand db1", "moved"))
        self.assertEqual(self.hosts.vms["db1"].host, "beta")
        self.round(made)
        self.assertEqual(errands.wanted(made.store), ())
        self.assertEqual(made.ledger.alarms(), [])
        self.assertIn("errand", [each.what for each in made.ledger.audit(20)])

    def test_refused(self) -> None:
        """What cannot be in time, or not at all, is said at once."""
        made = self.make(mode="observe")
        self.round(made, 5)
        for seconds, to, mode, words in (
                (600, "beta", "observe", "mode is observe"),
                (1, "beta", "ask", "a later --deadline"),
                (600, "alpha", "ask", "already"),
                (600, "nowhere", "ask", "nothing is known of host")):
            made.store.set("eve", "mode", mode)
            with self.assertRaisesRegex(NotNow, words):
                self.want(made, seconds, to)
        made.ledger.add_rule("eve", "not", {"vms": ["db1"],
                                            "hosts": ["beta", "gamma"]})
        self.round(made)
        with self.assertRaisesRegex(NotNow, "can go nowhere: .*beta"):
            self.want(made, 600, "")
        with self.assertRaisesRegex(NotNow, "no VM zz"):
            self.want(made, 600, vm="zz")
        self.assertEqual(errands.wanted(made.store), ())

    def test_held(self) -> None:
        """Nothing begins while it is paused; then that it is late is said."""
        made = self.make()
        self.round(made, 5)
        self.want(made, 300)
        made.store.set("eve", "paused", "yes")
        self.round(made, 35)
        self.assertEqual(self.hosts.orders, [])
        self.assertEqual([name for name, *_ in made.ledger.alarms()],
                         ["errand db1"])
        made.store.set("eve", "paused", "")
        self.round(made)
        self.wait_moves(made)
        self.round(made, 2)
        self.assertEqual(self.hosts.vms["db1"].host, "beta")
        self.assertEqual(made.ledger.alarms(), [])

    def test_again(self) -> None:
        """A move that fails is tried again after a minute, by the next one, too."""
        made = self.make()
        self.round(made, 5)
        self.want(made, 600)
        self.hosts.refuse = "prepare"
        while len(made.journal.ended_since(0)) < 2:
            self.round(made)
            self.wait_moves(made)
        one, two = made.journal.ended_since(0)
        self.assertGreaterEqual(two.move.begun - one.move.ended, 60)
        self.hosts.refuse = ""
        made.leader.give()
        other = self.make("c2")
        self.round(other)
        self.assertEqual(len(other.journal.open_entries()), 0)
        self.round(other, 8)
        self.wait_moves(other)
        self.assertEqual(self.hosts.vms["db1"].host, "beta")

    def test_cancel(self) -> None:
        """Who cancels the move does not want it begun again."""
        made = self.make()
        self.round(made, 5)
        self.want(made, 120)
        self.hosts.hold.clear()
        while not made.executor.flights:
            self.round(made)
        self.wait(lambda: "source perform db1" in self.hosts.orders)
        made.cancel("eve", "db1")
        self.assertEqual(errands.wanted(made.store), ())
        self.hosts.hold.set()
        self.wait_moves(made)

    def test_drain_by(self) -> None:
        """A host is emptied late; what has begun is not given up."""
        made = self.make()
        self.round(made, 5)
        wishes.drain(made, "eve", "alpha", True, self.clock.now + 1800)
        self.round(made, 100)
        self.assertEqual(self.hosts.orders, [])
        for _ in range(80):         # so that moves end in the round they begin
            self.round(made)
            self.wait_moves(made)
        self.assertNotIn("alpha", {vm.host for vm in self.hosts.vms.values()})
        dues = sorted(entry.move.due for entry in made.journal.ended_since(0))
        self.assertEqual(len(dues), 2)
        self.assertLess(dues[0] + 15, dues[1])
        self.assertTrue(draining.wanted(made.store)["alpha"].begun)
        with self.assertRaisesRegex(NotNow, "nothing is known"):
            wishes.drain(made, "eve", "zz", True, 0.0)


class PaceTest(PacingWorld):
    """How fast it is."""

    def test_gentle(self) -> None:
        """It has several times what it needs, so it is slower than its link."""
        made = self.make(mode="ask")
        self.round(made, 5)
        wishes.want(made, "eve", Errand("db1", self.clock.now + 120, "beta"))
        self.hosts.hold.clear()
        while not made.executor.flights:
            self.round(made)
        self.wait(lambda: "source perform db1" in self.hosts.orders)
        move, = made.journal.open_moves()
        first = self.hosts.limits[0][1]
        self.assertLess(first, 0.5 * GIG)
        self.assertLess(move.expected_seconds, 130)
        self.assertGreater(move.expected_seconds, 40)
        self.hosts.hold.set()
        self.wait_moves(made)


@unittest.skipUnless(SERVES, "python3-aiohttp is needed")
class VerbTest(Served):
    """The same by wsmctl."""

    def test_verbs(self) -> None:
        """Said, shown, taken back; and what is no time."""
        self.rounds(5)
        self.made.set_mode("eve", Mode.ASK)
        self.clock.now = time.time()
        self.rounds(3)
        self.expect(2, "with --deadline", "migrate", "db1", "--by-controller")
        self.expect(0, "db1 is to be on beta", "migrate", "db1", "--to",
                    "beta", "--deadline", "2h", "--by-controller")
        self.rounds(1)
        self.expect(0, "db1 is to be on beta", "plan")
        self.expect(0, "db1 is to be on beta", "explain", "vm", "db1")
        self.expect(0, "stays", "cancel", "db1")
        self.expect(4, "no move of", "cancel", "db1")
        self.expect(0, "as late as is wise", "drain", "alpha", "--deadline",
                    "2h", "--by-controller")
        self.expect(0, "not emptied", "drain", "alpha", "--by-controller",
                    "--cancel")
        for due in ("x", None, True, 1.0, -1, 1e300):
            status, _ = self.ask("operator", "/v1/errand", {"vm": "db1",
                                                            "due": due})
            self.assertEqual(status, 400, due)
        self.assertEqual(self.ask("viewer", "/v1/errand", {"vm": "db1"})[0],
                         403)
