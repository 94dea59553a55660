# SPDX-License-Identifier: GPL-2.0-or-later
"""Tests of the table: every pair has one row, and each row does its work."""

import itertools
import unittest
from typing import Any

from wsm.plan import recovery
from wsm.plan.ends import (End, File, Observed, Owner, Stage, word_of)
from wsm.plan.ends import Word as W
from wsm.plan.recovery import Do, Step, next_step

from tests.scripts.plan.two_hosts import ACTIONS, World, all_worlds, goes_on


def step(source: W, destination: W, stage: Stage = Stage.PERFORMED,
         there: Any = None, here: Any = None, **more: Any) -> Step:
    """Return what is done for two ends."""
    return next_step(Observed(End(source, **(here or {})),
                              End(destination, **(there or {})),
                              stage, **more))


class TableTest(unittest.TestCase):
    """The table as a whole."""

    def test_one_row(self) -> None:
        """Every pair of ends has exactly one row."""
        for source, destination in itertools.product(W, W):
            rows = [row.name for row in recovery.ROWS
                    if row.fits(source, destination)]
            self.assertEqual(len(rows), 1, (source, destination, rows))

    def test_rows_used(self) -> None:
        """No row is there for nothing, and no two have one name."""
        used = {recovery.row_of(*pair).name
                for pair in itertools.product(W, W)}
        self.assertEqual(len(used), len(recovery.ROWS))

    def test_nothing_without_owner(self) -> None:
        """Nothing is started or ended while the owner is unclear."""
        for source, destination, stage, cancel in itertools.product(
                W, W, Stage, (False, True)):
            done = step(source, destination, stage, cancel=cancel)
            if done.owner in (Owner.UNCLEAR, Owner.BOTH):
                self.assertEqual(done.do, (Do.WAIT,), (source, destination))
                self.assertTrue(done.alarm)

    def test_text(self) -> None:
        """Each step says something, and ends with a look or the end."""
        for source, destination, stage in itertools.product(W, W,
                                                            Stage):
            done = step(source, destination, stage)
            self.assertTrue(done.text and done.row)

    def test_no_harm_after(self) -> None:
        """After the handover neither is ended while it is needed."""
        harm = {Do.CANCEL, Do.CLEAN, Do.FENCE, Do.RESTART, Do.KEEP, Do.FINISH,
                Do.KILL_SOURCE, Do.CLOSE}
        for source, destination in itertools.product(
                (W.POSTCOPY, W.PAUSED), set(W) - {W.COMPLETED}):
            self.assertFalse(harm & set(step(source, destination).do),
                             (source, destination))


class RowTest(unittest.TestCase):
    """Each row."""

    def test_forward(self) -> None:
        """A move without trouble."""
        self.assertEqual(step(W.HERE, W.DEAD, Stage.BOOKED).do, (Do.BEGIN,))
        self.assertEqual(step(W.HERE, W.DEAD, Stage.BEGUN).do, (Do.PREPARE,))
        self.assertEqual(step(W.HERE, W.DEAD, Stage.PREPARED).do,
                         (Do.PREPARE,))
        self.assertEqual(step(W.HERE, W.PRE, Stage.PREPARED).do,
                         (Do.PREPARE,))
        ready = {"prepared": True}
        self.assertEqual(step(W.HERE, W.PRE, Stage.PREPARED, ready).do,
                         (Do.PERFORM,))
        self.assertEqual(step(W.HERE, W.PRE, Stage.PERFORMED, ready).do,
                         (Do.PERFORM,))
        for pair in ((W.PRE, W.PRE), (W.FREEZE, W.FREEZE),
                     (W.FREEZE, W.POSTCOPY)):
            self.assertEqual(step(*pair).do, (Do.WAIT,))
        self.assertEqual(step(W.POSTCOPY, W.POSTCOPY).do,
                         (Do.HAND_OVER, Do.WAIT))
        self.assertEqual(step(W.COMPLETED, W.POSTCOPY).do,
                         (Do.HAND_OVER, Do.FINISH, Do.WAIT))
        self.assertEqual(step(W.COMPLETED, W.COMPLETED).do,
                         (Do.HAND_OVER, Do.FINISH, Do.CLOSE))

    def test_cancel(self) -> None:
        """Before the handover; after it nothing is cancelled."""
        self.assertIn(Do.CLOSE, step(W.HERE, W.DEAD, Stage.BOOKED,
                                     cancel=True).do)
        self.assertIn(Do.CLEAN, step(W.HERE, W.PRE, Stage.PREPARED,
                                     cancel=True).do)
        self.assertIn(Do.CANCEL, step(W.PRE, W.PRE, cancel=True).do)
        self.assertIn(Do.CANCEL, step(W.FREEZE, W.FREEZE, cancel=True).do)
        self.assertNotIn(Do.CANCEL, step(W.POSTCOPY, W.POSTCOPY,
                                         cancel=True).do)
        self.assertEqual(step(W.HERE, W.SILENT, Stage.BEGUN, cancel=True).do,
                         (Do.KEEP, Do.CLOSE))

    def test_before(self) -> None:
        """Nothing has begun, or began and left nothing."""
        self.assertIn(Do.CLOSE, step(W.HERE, W.DEAD).do)
        self.assertEqual(step(W.HERE, W.PRE, Stage.BEGUN).do, (Do.CLEAN,))
        self.assertIn(Do.CLOSE, step(W.HERE, W.FAILED).do)
        self.assertEqual(step(W.HERE, W.SILENT).do, (Do.KEEP, Do.WAIT))
        # The source stays locked: it goes on when the other answers again
        for stage in (Stage.BEGUN, Stage.PREPARED):
            self.assertEqual(step(W.HERE, W.SILENT, stage).do, (Do.WAIT,))

    def test_early(self) -> None:
        """Before the handover: a strange one, a silent link."""
        self.assertIn(Do.CANCEL, step(W.PRE, W.PRE, Stage.PREPARED).do)
        self.assertIn(Do.BREAK_SOURCE, step(W.PRE, W.PRE,
                                            here={"still": 16.0}).do)
        self.assertEqual(step(W.PRE, W.DEAD).do, (Do.WAIT,))

    def test_failed(self) -> None:
        """The guest is the source's again, with the reason."""
        done = step(W.FAILED, W.DEAD, there={"reason": "no space"})
        self.assertEqual(done.do, (Do.KEEP, Do.CLEAN, Do.CLOSE))
        self.assertIn("no space", done.text)
        self.assertNotIn(Do.CLOSE, step(W.FAILED, W.SILENT).do)

    def test_completed(self) -> None:
        """Whatever the destination says, all is there."""
        for word in W:
            self.assertIs(step(W.COMPLETED, word).owner, Owner.DESTINATION)
            self.assertIn(Do.FINISH, step(W.COMPLETED, word).do)
        self.assertIn(Do.KILL_SOURCE, step(W.PAUSED, W.COMPLETED).do)

    def test_go(self) -> None:
        """The word of the handover is on its way."""
        self.assertEqual(step(W.POSTCOPY, W.FREEZE).do, (Do.WAIT,))
        still = {"still": 20.0}
        self.assertTrue(step(W.POSTCOPY, W.FREEZE, here={"still": 61}).alarm)
        self.assertEqual(step(W.PAUSED, W.FREEZE, here=still).do,
                         (Do.RECOVER,))

    def test_after(self) -> None:
        """A silent link is broken, a broken one mended, for ever."""
        still = {"still": 16.0}
        self.assertIn(Do.BREAK_DESTINATION,
                      step(W.POSTCOPY, W.POSTCOPY, here=still).do)
        self.assertEqual(step(W.POSTCOPY, W.PAUSED).do,
                         (Do.HAND_OVER, Do.BREAK_SOURCE, Do.RECOVER))
        self.assertEqual(step(W.PAUSED, W.POSTCOPY).do,
                         (Do.HAND_OVER, Do.BREAK_DESTINATION, Do.RECOVER))
        waits = [step(W.PAUSED, W.PAUSED, tries=number).wait
                 for number in range(9)]
        self.assertEqual(waits, [2, 4, 8, 16, 32, 60, 60, 60, 60])
        self.assertFalse(step(W.PAUSED, W.PAUSED, tries=5).alarm)
        self.assertTrue(step(W.PAUSED, W.PAUSED, tries=6).alarm)
        self.assertTrue(step(W.POSTCOPY, W.DEAD).person)
        self.assertTrue(step(W.PAUSED, W.SILENT).alarm)

    def test_source_ended(self) -> None:
        """What the destination has decides."""
        self.assertIn(Do.CLOSE, step(W.DEAD, W.COMPLETED).do)
        self.assertTrue(step(W.DEAD, W.PAUSED, there={"missing": 5}).person)
        self.assertFalse(step(W.DEAD, W.PAUSED).person)
        self.assertEqual(step(W.DEAD, W.FREEZE).do,
                         (Do.FENCE, Do.RESTART, Do.CLEAN, Do.CLOSE))
        self.assertNotIn(Do.RESTART, step(W.DEAD, W.PRE,
                                          here={"shut": True}).do)
        self.assertNotIn(Do.RESTART, step(W.DEAD, W.PRE, Stage.PREPARED).do)
        self.assertTrue(step(W.DEAD, W.PRE,
                             there={"file": File.OWNER}).person)

    def test_both_dead(self) -> None:
        """The files decide, and what was seen."""
        owner = {"file": File.OWNER, "whole": True}
        self.assertIs(step(W.DEAD, W.DEAD, there=owner).owner,
                      Owner.DESTINATION)
        self.assertTrue(step(W.DEAD, W.DEAD,
                             there={**owner, "whole": False}).person)
        self.assertIn(Do.RESTART, step(W.DEAD, W.DEAD, there={
            "file": File.INCOMING, "never_ran": True}).do)
        self.assertTrue(step(W.DEAD, W.DEAD,
                             there={"file": File.INCOMING}).person)
        self.assertNotIn(Do.RESTART, step(W.DEAD, W.DEAD, Stage.BEGUN).do)
        self.assertIs(step(W.DEAD, W.DEAD, here={"file": File.OWNER},
                           there={"file": File.GONE}).owner, Owner.SOURCE)

    def test_silent(self) -> None:
        """Nothing is started while somebody may run the guest."""
        for word in (W.POSTCOPY, W.PAUSED, W.COMPLETED):
            self.assertIs(step(W.SILENT, word).owner, Owner.DESTINATION)
        for word in (W.PRE, W.FREEZE, W.FAILED, W.DEAD, W.HERE, W.SILENT):
            self.assertIs(step(W.SILENT, word).owner, Owner.UNCLEAR)
        self.assertIs(step(W.DEAD, W.SILENT).owner, Owner.UNCLEAR)
        self.assertIs(step(W.SILENT, W.DEAD, Stage.BEGUN).owner,
                      Owner.SOURCE)

    def test_split(self) -> None:
        """Two that may run: nothing is done."""
        for pair in ((W.HERE, W.HERE), (W.PRE, W.HERE), (W.HERE, W.POSTCOPY),
                     (W.HERE, W.FREEZE), (W.PAUSED, W.HERE)):
            self.assertIs(step(*pair).owner, Owner.BOTH)
        self.assertIn(Do.CLOSE, step(W.DEAD, W.HERE,
                                     there={"file": File.OWNER}).do)
        self.assertTrue(step(W.DEAD, W.HERE).person)

    def test_may_boot(self) -> None:
        """Only an owner boots."""
        for file in File:
            self.assertEqual(recovery.may_boot(End(W.DEAD, file)),
                             file is File.OWNER)
        self.assertFalse(recovery.may_boot(End(W.HERE, File.OWNER)))


class WordTest(unittest.TestCase):
    """What QEMU says, in one word."""

    def test_words(self) -> None:
        """All that query-wsm and query-migrate can say."""
        after = ("setup", "postcopy")
        cases: list[tuple[tuple[Any, ...], W]] = [
                (("none", "none", (), "none"), W.HERE),
                (("none", "none", (), "setup"), W.PRE),
                (("source", "setup", (), "setup"), W.PRE),
                (("source", "disk-precopy", (), "active"), W.PRE),
                (("source", "ram-precopy", (), "active"), W.PRE),
                (("source", "freeze", (), "device"), W.FREEZE),
                (("source", "failed", ("setup",), "failed"), W.FAILED),
                (("source", "cancelled", ("setup",), "cancelled"), W.FAILED),
                (("source", "failed", after, "failed"), W.PAUSED),
                (("source", "postcopy", after, "postcopy-active"),
                 W.POSTCOPY),
                (("source", "postcopy", after, "postcopy-paused"), W.PAUSED),
                (("source", "postcopy", after, "postcopy-recover"),
                 W.PAUSED),
                (("destination", "freeze", (), "postcopy-paused"), W.FREEZE),
                (("destination", "completed", after, "completed"),
                 W.COMPLETED),
                (("destination", "completed", after, "completed", False),
                 W.HERE)]
        for args, word in cases:
            self.assertIs(word_of(*args), word, args)


class ModelTest(unittest.TestCase):
    """Every state that can come about."""

    worlds: set[World] = set()

    @classmethod
    def setUpClass(cls) -> None:
        """Find them all; that alone finds most harm."""
        cls.worlds = all_worlds()

    def test_never_twice(self) -> None:
        """The guest never runs at both."""
        self.assertGreater(len(self.worlds), 200)
        for world in self.worlds:
            self.assertFalse(world.source_runs() and world.destination_runs(),
                             world)

    def test_one_owner(self) -> None:
        """No two files say 'owner', and a closed move has one that does."""
        for world in self.worlds:
            owners = [world.here, world.there].count(File.OWNER)
            self.assertLess(owners, 2, world)
            self.assertFalse(world.go and world.here is File.OWNER, world)
            if world.stage is Stage.ENDED:
                self.assertEqual(owners, 1, world)

    def test_comes_to_an_end(self) -> None:
        """From each state, if no more breaks, it ends or a person is told."""
        for start in self.worlds:
            world = start
            for _ in range(60):
                now = next_step(world.seen())
                if world.ended or now.person:
                    break
                for do in now.do:
                    if not world.ended:
                        world = ACTIONS[do](world)
                world = (goes_on(world) or [world])[0]
            else:
                self.fail(f"from {start} to {world} and no further: {now}")
