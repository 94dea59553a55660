# SPDX-License-Identifier: GPL-2.0-or-later
"""Tests of moves that wsmctl keeps to a deadline."""

import argparse
import dataclasses
import unittest
from typing import Any
from unittest import mock

from wsm.cli import drain, outlook, relocate
from wsm.cli.drive import ALL
from wsm.cli.duly import Duly
from wsm.cli.home import Move
from wsm.plan.inventory import DiskUse, Host, VmUse
from wsm.plan.pace import Due
from wsm.plan.spec import Spec

GIB = 1 << 30
FULL = 1000 * 1e6 / 8 * outlook.USABLE
HERE, THERE = (Host(name, 4.0, GIB, GIB, mbit=1000)
               for name in ("alpha", "beta"))


def subject(name: str = "db", disk: int = 10 * GIB) -> outlook.Subject:
    """Return a VM with a disk."""
    return outlook.Subject(VmUse(
        name, "alpha", 1, GIB, GIB // 4, 0.1, "m", "p", "q", disks=(
            DiskUse("vd0", 2 * disk, disk),)), Spec(name, ()), HERE)


class DulyTest(unittest.TestCase):
    """What a driver is told."""

    def setUp(self) -> None:
        self.now = 1000.0
        self.duly = Duly(subject(), THERE, Due(1000.0, 1300.0),
                         lambda: self.now)

    def figures(self, left: int, **more: Any) -> dict[str, Any]:
        """Return what QEMU says of a move that sends disks."""
        return {"phase": "disk-precopy", "remaining": left,
                "disks": [{"dirty": left}], **more}

    def test_before(self) -> None:
        """By what it is said to take, until QEMU has begun."""
        for figures in (dict[str, Any](), {"phase": "setup"}):
            rate, note = self.duly(figures)
            self.assertEqual(note, "")
            self.assertAlmostEqual(outlook.cost_of(
                subject(), THERE, rate).seconds, 285.0, delta=5.0)

    def test_under_way(self) -> None:
        """The slower the less is left, and all there is if it is too much."""
        slow, _ = self.duly(self.figures(5 * GIB))
        self.now = 1200.0
        fast, note = self.duly(self.figures(5 * GIB))
        self.assertGreater(fast, 2 * slow)
        self.assertEqual(note, "")
        rate, note = self.duly(self.figures(50 * GIB))
        self.assertEqual(rate, ALL)
        self.assertRegex(note, r"late by \d+ min: it ends about ..:..:..")

    def test_held(self) -> None:
        """Others do not let it be as fast as it should: that is said."""
        limits = {"rate": 1 << 20, "grant": round(FULL)}
        for said in ("", "late by"):    # it was told only now
            _, note = self.duly(self.figures(5 * GIB, limits=limits))
            self.assertIn(said, note)
        limits["rate"] = round(FULL)
        self.assertEqual(self.duly(self.figures(5 * GIB, limits=limits))[1],
                         "")

    def test_shown(self) -> None:
        """In the line of progress."""
        line = outlook.progress_line({"phase": "x", "note": "late by 3 s"},
                                     Move("i", "v", "a", "b"))
        self.assertTrue(line.endswith(", late by 3 s"), line)


class VerbsTest(unittest.TestCase):
    """Who gets how much time."""

    def test_turns(self) -> None:
        """Each move of a drain has its part of what is left."""
        legs = tuple(drain.Leg(subject(name, size * GIB), "alpha", THERE)
                     for name, size in (("a", 1), ("b", 3), ("c", 4)))
        plan = drain.Plan("alpha", legs)
        parts = [drain.turn(plan, 0.0, number) for number in range(3)]
        self.assertLess(parts[0], 0.2)
        self.assertAlmostEqual(parts[1], 3 / 7, delta=0.05)
        self.assertEqual(parts[2], 1.0)

    def test_once_more(self) -> None:
        """What has failed is tried again, also if there is no more time."""
        args = argparse.Namespace(name="db", deadline=60.0, json=True)
        home, booked = mock.Mock(), []

        def book(*words: Any, **more: Any) -> Move:
            booked.append((args.deadline, more["due"]))
            return Move("i", *words[1:4])

        cost = outlook.cost_of(subject(), THERE)
        with mock.patch.multiple(
                relocate, book=book, drive=mock.Mock(), consider=mock.Mock(
                    return_value=("alpha", subject(), mock.Mock(), cost, 0))):
            for _ in range(2):
                relocate.attempt(home, mock.Mock(), args, 5000.0)
        self.assertEqual(booked, [(60.0, 5000.0), (None, 5000.0)])

    def test_driven(self) -> None:
        """A move with a deadline is asked after it, others are not."""
        for due in (0.0, 5000.0):
            move = dataclasses.replace(Move("i", "db", "alpha", "beta"),
                                       due=due)
            with mock.patch.multiple(
                    relocate, Driver=mock.DEFAULT, resume=mock.DEFAULT
                    ) as made, mock.patch.object(
                        outlook, "host_now", return_value=THERE):
                relocate.drive(mock.Mock(), mock.Mock(), move,
                               argparse.Namespace(json=True), subject())
            self.assertEqual(isinstance(
                made["Driver"].return_value.pace, Duly), bool(due))


if __name__ == "__main__":
    unittest.main()
