# SPDX-License-Identifier: GPL-2.0-or-later
"""Tests of the daemon's loop, with agents that are not there and a clock."""

import asyncio
import functools
import logging
import tempfile
import threading
import time
import unittest
from typing import Any, Optional
from unittest import mock

from wsm.plan import kept
from wsm.plan.inventory import Way
from wsm.plan.plain import BadData
from wsm.plan.planner import Decision
from wsm.plan.policy import Policy

try:
    from wsm.controller import because
    from wsm.controller.rounds import Controller, NotNow
    from wsm.controller.setup import Mode
    from wsm.controller.store import StoreGone
    from tests.scripts.controller.fake import (POLICY, Clock, Hosts,
                                               controller)
except ImportError:
    PRESENT = False
else:
    PRESENT = True

TIMEOUT = 20.0


def of_samples(lie: Any, plain: Any) -> Any:
    """Lie about samples only."""
    return lie(plain) if "seq" in plain else plain


class World(unittest.TestCase):
    """Three hosts; alpha becomes hot when a test wants that."""

    def setUp(self) -> None:
        if not PRESENT:
            self.skipTest("python3-aiohttp is needed")
        folder = tempfile.TemporaryDirectory()  # pylint: disable=R1732
        self.addCleanup(folder.cleanup)
        self.path = f"{folder.name}/c.db"
        self.clock = Clock()
        logging.getLogger("wsm-controller").setLevel(logging.CRITICAL + 1)
        self.hosts = Hosts(("alpha", "beta", "gamma"))
        for name, host in (("db1", "alpha"), ("web", "alpha"),
                           ("idle", "beta")):
            self.hosts.add(name, host, 0.9 if name == "web" else 0.1)
        new: list[tuple[str, Any]] = [
            ("time.time", self.clock), ("wsm.cli.drive.POLL", 0.01),
            ("wsm.controller.executor.AGAIN", 0.01),
            ("wsm.controller.journal.RETRY", 0.01)]
        for name, value in new:
            patch = mock.patch(name, value)
            patch.start()
            self.addCleanup(patch.stop)
        self.loop = asyncio.new_event_loop()
        self.addCleanup(self.loop.close)

    def make(self, name: str = "c1", mode: str = "auto",
             settle: float = 0.0,
             policy: Optional[Policy] = None) -> "Controller":
        """Return a controller."""
        made = controller(self.hosts, self.path, self.clock, name, Mode(mode),
                          settle, policy or POLICY)
        self.addCleanup(made.store.close)
        self.addCleanup(made.leader.give)
        self.addCleanup(made.executor.stop, TIMEOUT)
        return made

    def round(self, made: "Controller", count: int = 1) -> Optional[Decision]:
        """Make rounds, ten seconds apart."""
        async def once() -> Optional[Decision]:
            found = await made.once()
            await made.collector.settled()
            return found

        found = None
        for _ in range(count):
            self.clock.now += 10.0
            self.hosts.seq += 1
            found = self.loop.run_until_complete(once())
        return found

    def patient(self) -> None:
        """Do not take back a move because it takes long."""
        patch = mock.patch("wsm.controller.doubts.regret", lambda *_: "")
        patch.start()
        self.addCleanup(patch.stop)

    def stuck(self) -> "Controller":
        """Return a controller whose move of db1 waits, and is not taken back."""
        self.patient()
        made = self.make()
        self.heat()
        self.hosts.hold.clear()
        self.round(made, 9)
        self.wait(lambda: "source perform db1" in self.hosts.orders)
        return made

    @staticmethod
    def below(made: "Controller") -> Any:
        """What is below a store, for what others do to it."""
        return made.store.database

    def heat(self) -> None:
        """Let db1 compute."""
        self.hosts.vms["db1"].cpu = 2.4

    def wait(self, condition: Any) -> None:
        """Wait for a thread."""
        end = time.monotonic() + TIMEOUT
        while not condition():
            self.assertLess(time.monotonic(), end, "nothing happens")
            time.sleep(0.01)

    def wait_moves(self, made: "Controller") -> None:
        """Wait until no move is under way."""
        self.wait(lambda: not made.executor.busy())


class RoundTest(World):
    """What a round does, by its mode."""

    def test_auto(self) -> None:
        """A hot host: one VM leaves it, and all of it can be read later."""
        made = self.make()
        self.round(made, 3)
        self.heat()
        self.round(made, 15)
        self.wait_moves(made)
        self.assertNotEqual(self.hosts.vms["db1"].host, "alpha")
        entry, = made.journal.ended_since(0)
        self.assertEqual((entry.move.vm, entry.move.result, entry.spot),
                         ("db1", "moved", "host.cpu alpha"))
        self.assertIn("alpha's CPU demand", entry.why)
        chosen = [each for each in made.ledger.decisions(20)
                  if each.output["steps"]]
        self.assertIn("db1", chosen[0].text)
        made_of = made.ledger.input(chosen[0].id)
        assert made_of
        again = kept.restore(made_of).fleet.nodes["alpha"]
        self.assertGreater(again.load["cpu"].now, 2)
        self.assertEqual(made.ledger.audit_wrong()[0], 0)
        self.assertIn("move", [each.what for each in made.ledger.audit(9)])

    def test_ways(self) -> None:
        """Ways are measured once in a while, a few at a time, and explained."""
        made = self.make(mode="observe")
        self.hosts.far = {("alpha", "beta"): Way(0.02, 100, 4, 1e12),
                          ("alpha", "gamma"): Way(0.0001, 100, 0, 1e12)}
        self.round(made, 5)
        self.assertEqual(self.hosts.measured, self.hosts.far)
        self.assertEqual(self.hosts.unknown, ["/way/gamma"])
        lines = because.of_host(made, "alpha")["lines"]
        self.assertIn("to beta: round trip 20.00 ms, 4 of 100 segments",
                      " ".join(lines))
        guest = made.fleet.guests["db1"]
        self.assertGreater(made.cost(guest, "beta").seconds,
                           made.cost(guest, "gamma").seconds + 1)
        self.hosts.measured.clear()
        self.round(made, 5)
        self.assertEqual(self.hosts.measured, {})       # asked just now
        self.round(made, 60)
        self.assertEqual(self.hosts.measured, self.hosts.far)

    def test_quiet(self) -> None:
        """Nothing is hot: one record, no order."""
        made = self.make()
        self.round(made, 200)
        self.assertEqual(self.hosts.orders, [])
        record = made.ledger.decisions(20)[0]
        self.assertGreater(record.rounds, 190)
        self.assertIn("no host is too hot", record.text)

    def test_observe(self) -> None:
        """It is written down, and nothing is done."""
        made = self.make(mode="observe")
        self.heat()
        decision = self.round(made, 9)
        assert decision
        self.assertEqual([step.vm for step in decision.steps], ["db1"])
        self.assertEqual(self.hosts.orders, [])

    def test_ask(self) -> None:
        """It waits for a person, and does what is still right."""
        made = self.make(mode="ask")
        self.heat()
        self.round(made, 9)
        self.assertEqual(self.hosts.orders, [])
        plan = made.last_id
        self.assertRaises(NotNow, made.apply, "eve", plan, "web")
        self.assertRaises(NotNow, made.apply, "eve", plan + 9)
        made.store.set("eve", "paused", "yes")
        self.assertRaises(NotNow, made.apply, "eve", plan)
        made.store.set("eve", "paused", "")
        self.hosts.vms["db1"].cpu = 0.1
        self.round(made, 9)
        self.assertRaises(NotNow, made.apply, "eve", plan)
        self.heat()
        self.round(made, 15)
        self.assertEqual([step.vm for step in
                          made.apply("eve", made.last_id)], ["db1"])
        self.wait_moves(made)
        self.assertNotEqual(self.hosts.vms["db1"].host, "alpha")

    def test_pause(self) -> None:
        """Nothing is begun; what is under way goes on."""
        made = self.make()
        self.heat()
        made.store.set("eve", "paused", "")
        self.hosts.hold.clear()
        self.round(made, 9)
        self.wait(lambda: "source perform db1" in self.hosts.orders)
        made.store.set("eve", "paused", "yes")
        self.hosts.hold.set()
        self.wait_moves(made)
        self.assertNotEqual(self.hosts.vms["db1"].host, "alpha")
        self.hosts.add("new", "alpha", 2.4)
        self.assertIsNotNone(self.round(made, 15))
        self.assertNotIn("source begin new", self.hosts.orders)
        made.store.set("eve", "paused", "")
        self.round(made)
        self.wait_moves(made)
        self.assertIn("source begin new", self.hosts.orders)

    def test_cancel(self) -> None:
        """A person does not want a move any more."""
        made = self.make()
        self.heat()
        self.hosts.hold.clear()
        self.round(made, 9)
        self.wait(lambda: "source perform db1" in self.hosts.orders)
        self.assertRaises(NotNow, made.cancel, "eve", "web")
        self.assertEqual(made.cancel("eve", "db1").move.vm, "db1")
        self.hosts.hold.set()
        self.wait_moves(made)
        entry, = made.journal.ended_since(0)
        self.assertIn(entry.move.result, ("cancelled", "moved"))

    def test_settle(self) -> None:
        """After its start it only looks for a while."""
        made = self.make(settle=300.0)
        self.heat()
        self.round(made, 25)
        self.assertEqual(self.hosts.orders, [])
        self.round(made, 10)
        self.wait_moves(made)
        self.assertIn("source begin db1", self.hosts.orders)

    def test_rules(self) -> None:
        """What people have said holds, and is taken back."""
        made = self.make()
        number = made.ledger.add_rule("eve", "never", {"vms": ["db1"]}).id
        made.ledger.add_rule("eve", "ask", {"vms": ["web", "db1"]})
        made.ledger.add_rule("eve", "not", {"vms": ["db1"],
                                            "hosts": ["beta"]})
        bad: list[tuple[str, dict[str, Any]]] = [
            ("x", {"vms": ["db1"]}), ("pin", {"vms": ["v"]}), ("never", {}),
            ("never", {"vms": ["v"], "hosts": ["a"]}),
            ("apart", {"vms": ["v"]}), ("pin", {"vms": ["<b>"]}),
            ("pin", {"vms": ["v"], "hosts": [1]})]
        for kind, data in bad:
            with self.assertRaises(BadData, msg=kind):
                made.ledger.add_rule("eve", kind, data)
        self.heat()
        decision = self.round(made, 15)
        assert decision
        self.assertEqual(decision.steps, ())
        self.assertEqual([step.vm for step in decision.asked], ["web"])
        self.assertTrue(made.ledger.drop_rule("eve", number))
        self.assertFalse(made.ledger.drop_rule("eve", number))
        for rule in made.ledger.rules()[:1]:
            made.ledger.drop_rule("eve", rule.id)
        self.round(made, 2)
        self.wait_moves(made)
        self.assertEqual(self.hosts.vms["db1"].host, "gamma")

    def test_refused(self) -> None:
        """A move that fails is not tried again at once, then it asks."""
        made = self.make()
        self.hosts.refuse = "prepare"
        self.heat()
        for _ in range(400):
            self.round(made)
            self.wait_moves(made)
        failed = [entry.move.ended for entry in made.journal.ended_since(0)]
        self.assertEqual(len(failed), 3)
        self.assertGreater(failed[1] - failed[0], 59)
        self.assertGreater(failed[2] - failed[1], 299)
        self.assertIn("moves failed within", made.ledger.alarms()[0][2])

    def test_breaker(self) -> None:
        """Moves that fail: what is decided waits for a person."""
        made = self.make()
        self.hosts.refuse = "prepare"
        self.heat()
        with mock.patch("wsm.plan.past.WAITS", (1.0,)):
            decision = None
            while not (decision and decision.asked):
                decision = self.round(made)
                self.wait_moves(made)
        self.assertIn("moves failed", made.ledger.alarms()[0][2])
        count = len(self.hosts.orders)
        self.round(made, 5)
        self.assertEqual(len(self.hosts.orders), count)
        self.hosts.refuse = ""
        made.apply("eve", made.last_id)
        self.wait_moves(made)
        self.assertNotEqual(self.hosts.vms["db1"].host, "alpha")
        made.set_mode("eve", Mode.AUTO)
        self.round(made)
        self.assertEqual(made.ledger.alarms(), [])


class FaultTest(World):
    """A dead controller stops nothing and loses nothing."""

    def killed_at(self, order: str) -> None:
        """One is killed at an order; the next one takes up the journal."""
        made = self.make()
        self.heat()
        self.hosts.kill_at = order
        with mock.patch("threading.excepthook"):
            self.round(made, 9)
            self.wait(lambda: not self.hosts.kill_at and not [
                each for each in threading.enumerate()
                if each.name == "move-db1"])
        epoch = self.hosts.epochs["alpha"][0]
        made.leader.give()      # as the kernel does when it is dead
        self.assertEqual(len(made.journal.open_entries()), 1, order)
        other = self.make("c2")
        self.round(other)
        self.wait_moves(other)
        entry, = other.journal.ended_since(0)
        self.assertEqual(self.hosts.vms["db1"].host != "alpha",
                         entry.move.result == "moved", order)
        self.assertGreater(other.store.epoch, epoch)

    def test_killed(self) -> None:
        """In mid-move, at each order."""
        for order in ("source begin", "destination prepare",
                      "source perform", "destination hand-over",
                      "source finish"):
            self.doCleanups()
            self.setUp()
            self.killed_at(order)

    def test_two(self) -> None:
        """Two on one store: one acts; the other goes on when it has ended."""
        one, two = self.make("c1"), self.make("c2")
        self.heat()
        for _ in range(9):
            self.round(one)
            self.clock.now -= 10.0
            self.assertIsNone(self.round(two))
        self.assertIn("another controller leads", two.problem)
        self.wait_moves(one)
        self.assertEqual(self.hosts.orders.count("source begin db1"), 1)
        self.assertEqual(two.executor.flights, {})
        self.loop.run_until_complete(one.close())
        self.assertIsNotNone(self.round(two))
        self.assertIsNone(self.round(one))
        # What it had moved is remembered: it is not moved again
        self.assertIn("db1", two.past.trips)

    def test_deposed(self) -> None:
        """One that has lost its lock without knowing writes nothing."""
        one = self.make("c1")
        self.round(one, 2)
        two = self.make("c2")
        with mock.patch("fcntl.flock"):
            self.assertIsNotNone(self.round(two))
        before = len(two.ledger.audit(99))
        self.heat()
        self.assertIsNone(self.round(one))
        self.assertIn("is over", one.problem)
        self.assertFalse(one.leader.leads())
        self.assertEqual(len(two.ledger.audit(99)), before)

    def test_store_gone(self) -> None:
        """Locked for a while: it decides nothing, moves go on and end."""
        made = self.stuck()
        other = controller(self.hosts, self.path, self.clock, "c2").store
        blocker: Any = other.database
        self.below(made).execute("PRAGMA busy_timeout = 50")
        blocker.execute("BEGIN IMMEDIATE")
        self.hosts.hold.set()
        self.assertIsNone(self.round(made))
        self.assertIn("the store does not work", made.problem)
        self.wait(lambda: self.hosts.vms["db1"].host != "alpha")
        blocker.execute("ROLLBACK")
        other.close()
        self.wait_moves(made)
        self.assertIsNotNone(self.round(made))
        entry, = made.journal.ended_since(0)
        self.assertEqual(entry.move.result, "moved")

    def test_disk_full(self) -> None:
        """For five minutes: nothing is lost, and it goes on by itself."""
        made = self.stuck()
        database = self.below(made)
        pages = database.read("PRAGMA page_count", ())[0][0]
        database.execute(f"PRAGMA max_page_count = {pages}")
        with self.assertRaisesRegex(StoreGone, "full"):
            made.store.set("eve", "paused", "x" * 100000)
        self.hosts.hold.set()
        with mock.patch.object(made.ledger, "prune", lambda: made.store.set(
                "test", "full", "x" * 100000)):
            for _ in range(30):
                made._pruned = 0.0      # pylint: disable=protected-access
                self.assertIsNone(self.round(made))
        self.assertIn("full", made.problem)
        self.assertTrue(made.leader.leads())
        database.execute("PRAGMA max_page_count = 1000000")
        self.wait(lambda: self.hosts.vms["db1"].host != "alpha")
        self.assertIsNotNone(self.round(made))
        self.wait_moves(made)
        self.round(made)
        entry, = made.journal.ended_since(0)
        self.assertEqual(entry.move.result, "moved")
        self.assertEqual((made.store.setting("paused"),
                          made.ledger.audit_wrong()[0]), ("", 0))

    def test_silent(self) -> None:
        """A host that is not heard of loses and takes nothing; an alarm."""
        made = self.make()
        self.round(made, 2)
        self.hosts.silent.add("beta")
        self.heat()
        self.round(made, 15)
        self.wait_moves(made)
        self.assertEqual(self.hosts.vms["db1"].host, "gamma")
        self.assertIn("idle", made.fleet.guests)
        self.assertEqual([name for name, _, _ in made.ledger.alarms()],
                         ["host beta"])
        self.hosts.silent.clear()
        self.round(made)
        self.assertEqual(made.ledger.alarms(), [])

    def test_frozen(self) -> None:
        """A sensor that says the same for ever says nothing."""
        made = self.make()
        self.heat()
        self.hosts.frozen.add("alpha")
        self.round(made, 9)
        self.assertEqual(self.hosts.orders, [])
        self.assertFalse(made.fleet.is_known("alpha", 3))

    def test_rubbish(self) -> None:
        """NaN, negative, of another host, no table: dropped and counted."""
        made = self.make()
        self.round(made, 3)
        lies: list[Any] = [
            lambda plain: {**plain, "cpu": float("nan")},
            lambda plain: {**plain, "cpu": -1.0},
            lambda plain: {**plain, "cpu": 1e12},
            lambda plain: {**plain, "host": {**plain["host"], "name": "x"}},
            lambda plain: {**plain, "host": {**plain["host"], "mbit": -5}},
            lambda plain: {**plain, "host": {**plain["host"],
                                             "mbit": 10**400}},
            lambda plain: {**plain, "vms": [{"name": "<script>"}]},
            lambda plain: {**plain, "seconds": 0.0},
            lambda plain: {**plain, "age": 1e6},
            lambda plain: ["no", "table"], lambda plain: None]
        for number, lie in enumerate(lies, 1):
            self.hosts.lies["alpha"] = functools.partial(of_samples, lie)
            self.round(made)
            self.assertEqual(made.collector.intake.dropped["alpha"], number,
                             f"lie {number}")
        self.assertEqual(self.hosts.orders, [])

    def test_rubbish_of_a_move(self) -> None:
        """What an agent says of a move ends neither that nor the rounds."""
        made = self.make()
        self.hosts.figures = {
            "phase": ["x"], "limits": [], "disks": {"sent": "x"},
            "remaining": "x", "ram": {"transferred": 10**400},
            "channels": [{"id": 0, "reconnects": 10**12}]}
        self.hosts.hold.clear()
        self.heat()
        while not made.executor.flights:
            self.round(made)
        self.wait(lambda: "source perform db1" in self.hosts.orders)
        self.assertIsNotNone(self.round(made))
        self.assertEqual(made.problem, "")
        self.hosts.hold.set()
        self.wait_moves(made)
        self.assertNotEqual(self.hosts.vms["db1"].host, "alpha")

    def test_driver_ends(self) -> None:
        """A bug in a driver: its move is driven again."""
        made = self.make()
        self.heat()
        with mock.patch("wsm.controller.executor.Driver.run",
                        side_effect=AttributeError("bug")):
            while not made.executor.flights:
                self.round(made)
            self.wait_moves(made)
        self.round(made)
        self.wait_moves(made)
        self.assertNotEqual(self.hosts.vms["db1"].host, "alpha")

    def test_liar(self) -> None:
        """One lying host moves one VM at a time, and then it asks."""
        made = self.make()
        for number in range(8):
            self.hosts.add(f"v{number}", "alpha", 0.2)
        self.hosts.lies["alpha"] = lambda plain: (
            {**plain, "cpu": 4.4} if "seq" in plain else plain)
        for _ in range(400):
            decision = self.round(made)
            self.wait_moves(made)
            assert decision
            self.assertLessEqual(len(decision.steps), 1)
            if decision.breakers:
                break
        self.assertIn("did not cool alpha", made.ledger.alarms()[0][2])

    def test_split(self) -> None:
        """A VM with two owners: nothing is done with it, a person is told."""
        made = self.make()
        self.round(made, 2)
        self.hosts.lies["gamma"] = lambda plain: {**plain, "vms": [
            {"name": "db1", "runs": True, "owner": "owner"}]} if (
                "seq" in plain) else plain
        self.round(made)
        self.assertNotIn("db1", made.fleet.guests)
        self.assertEqual(made.ledger.alarms()[0][0], "vm db1")
