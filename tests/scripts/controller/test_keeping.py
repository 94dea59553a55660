# SPDX-License-Identifier: GPL-2.0-or-later
"""Tests of how much is kept of decisions."""

import functools
import json
import sqlite3
import tempfile
import unittest
import zlib
from pathlib import Path
from typing import Any, Optional
from unittest import mock

from wsm.cli import growth
from wsm.controller import keeping, schema
from wsm.controller.keeping import Keeper
from wsm.controller.ledger import Ledger
from wsm.controller.storage import Sqlite
from wsm.controller.store import Store
from wsm.plan import kept, planner
from wsm.plan.decision import Decision
from wsm.plan.policy import Policy
from wsm.sim import crowd


class KeeperTest(unittest.TestCase):
    """What is kept of rounds."""

    def setUp(self) -> None:
        self.world = crowd.world(20, 400, 1)
        for _ in range(6):
            self.world.step()
        self.fleet = self.world.fleet
        self.hot = planner.decide(self.fleet, Policy(), self.world.past,
                                  self.world.cost)
        self.assertTrue(self.hot.spots)
        self.quiet = Decision((), (), ())
        self.record: keeping.Record = functools.partial(
            kept.record, kept.Round(self.fleet, Policy(), self.world.past))
        self.keeper = Keeper()

    def kept(self, now: float, decision: Decision) -> Optional[bytes]:
        """Return what is kept."""
        return self.keeper.input(now, self.fleet, decision, self.record)

    def json(self, now: float, decision: Decision) -> Any:
        """Return what is kept, as it will be read."""
        found = self.kept(now, decision)
        return found and json.loads(zlib.decompress(found))

    def test_whole(self) -> None:
        """All of it while that costs little; rarely in quiet times."""
        self.assertEqual(len(self.json(0.0, self.quiet)["vms"]), 400)
        self.assertIsNone(self.kept(keeping.QUIET - 1.0, self.quiet))
        self.assertFalse(self.keeper.is_due(keeping.QUIET - 1.0, self.fleet))
        self.assertTrue(self.keeper.is_due(keeping.QUIET, self.fleet))
        self.assertIsNotNone(self.kept(keeping.QUIET, self.quiet))

    def test_purse(self) -> None:
        """With a hot spot in each round it is no more than what is given."""
        whole = self.record(None, None)
        self.record = lambda *_: whole
        with mock.patch("wsm.controller.keeping.FLEET", 3e6):
            total = sum(len(self.kept(10.0 * number, self.hot) or b"")
                        for number in range(720))
        rate = (3e6 + 400 * keeping.VM) / keeping.DAY
        most = len(self.kept(1e9, self.hot) or b"")
        self.assertLess(total, (7200 + keeping.OWING) * rate + most)
        self.assertGreater(total, 7000 * rate)

    def test_part(self) -> None:
        """A step's own hosts are kept also when the purse is empty."""
        self.assertTrue(self.hot.steps)
        step = self.hot.steps[0]
        self.assertEqual(len(self.json(0.0, self.hot)["hosts"]), 20)
        found = self.json(1.0, self.hot)
        self.assertLessEqual({step.source, step.to}, set(found["hosts"]))
        self.assertIn(step.vm, found["vms"])
        self.assertLess(len(found["vms"]), 400)
        self.assertLess(len(found["hosts"]), 20)
        self.record = lambda *_: found
        total = sum(len(self.kept(2.0, self.hot) or b"")
                    for _ in range(1000))
        rate = (keeping.FLEET + 400 * keeping.VM) / keeping.DAY
        self.assertLess(total, keeping.OWING * rate + 100000)
        self.assertIsNone(self.kept(2.0, self.hot))

    def test_large(self) -> None:
        """Of a large fleet all hosts, and VMs of those that matter."""
        with mock.patch("wsm.controller.keeping.MANY", 100):
            found = self.json(0.0, self.hot)
        self.assertEqual(len(found["hosts"]), 20)
        names = keeping.concerned(self.fleet, self.hot)
        self.assertEqual(set(found["vms"]), {
            vm for name in names for vm in found["hosts"][name]["vms"]})


class GrowthTest(unittest.TestCase):
    """What 'wsmctl sim growth' says."""

    def test_growth(self) -> None:
        """A day is made of rounds; those that cool down write less."""
        hot = growth.measure(crowd.world(40, 800, 2), 30, False)
        self.assertEqual((hot.rounds, hot.records), (30, 30))
        self.assertGreater(hot.file, hot.input)
        self.assertEqual(hot.day, 8640 * hot.record + hot.inputs_day)
        self.assertLess(hot.inputs_day, 20e6)
        self.assertLess(growth.measure(crowd.world(40, 800, 2), 30,
                                       True).records, 30)


class RecordTest(unittest.TestCase):
    """How it is written."""

    def setUp(self) -> None:
        folder = tempfile.TemporaryDirectory()  # pylint: disable=R1732
        self.addCleanup(folder.cleanup)
        self.path = Path(folder.name) / "c.db"

    def open(self) -> Ledger:
        """Open the store as the leader."""
        store = Store(Sqlite(self.path), lambda: 1000.0)
        self.addCleanup(store.close)
        store.lead("test", "c1", "i1")
        return Ledger(store)

    def test_small(self) -> None:
        """What was decided is compressed, and counted without a look."""
        ledger = self.open()
        output = {"spots": [{"text": "host.cpu alpha is hot"}] * 200}
        made: list[int] = []
        for _ in range(3):
            ledger.record("auto", "word " * 1000, output,
                          lambda: made.append(1))
        found, = ledger.decisions(9)
        self.assertEqual((found.text, found.output, found.rounds, made),
                         ("word " * 1000, output, 3, [1]))
        self.assertEqual(ledger.rounds(0.0), (3, 3))
        size, = ledger.store.read("SELECT length(packed) + length(text) + "
                                  "length(output) FROM decisions")[0]
        self.assertLess(size, 400)

    def test_older(self) -> None:
        """A store of the version before is brought up to date."""
        with mock.patch.object(schema, "MIGRATIONS", schema.MIGRATIONS[:1]):
            self.open().store.close()
        with sqlite3.connect(self.path) as database:
            database.execute(
                "INSERT INTO decisions (at, until, rounds, epoch, mode, text, "
                "output) VALUES (1, 2, 3, 1, 'auto', 'old', '{\"a\": 1}')")
        database.close()
        found, = self.open().decisions(9)
        self.assertEqual((found.text, found.output), ("old", {"a": 1}))
