# SPDX-License-Identifier: GPL-2.0-or-later
"""Tests of how fast TCP can be on a way, and of what a move costs there."""

import dataclasses
import unittest

from wsm.cli import outlook
from wsm.plan import way
from wsm.plan.inventory import GIB, DiskUse, Host, VmUse, Way
from wsm.plan.spec import Spec

NEAR = Way(0.0002, 1000, 0, 1.0)


class WayTest(unittest.TestCase):
    """Each bound."""

    def test_most(self) -> None:
        """The window in a round trip; less with losses; two are no proof."""
        self.assertGreater(way.most(NEAR), 2.5e9)
        far = dataclasses.replace(NEAR, rtt=0.15)
        self.assertAlmostEqual(way.most(far), 2 * 3 * (1 << 20) / 0.15)
        lossy = dataclasses.replace(far, lost=10)       # one of a hundred
        self.assertAlmostEqual(way.most(lossy), 2 * 1448 / 0.15 * 150 ** 0.5)
        self.assertEqual(way.most(dataclasses.replace(far, lost=2)),
                         way.most(far))
        self.assertIn("150.00 ms, 10 of 1000 segments", way.text(lossy))

    def test_between(self) -> None:
        """Whichever host knows it newest."""
        one, two = Host("a", 4, GIB, GIB), Host("b", 4, GIB, GIB)
        self.assertIsNone(way.between(one, two))
        new = Way(0.1, 10, 0, 5.0)
        one = dataclasses.replace(one, ways={"b": NEAR, "c": new})
        self.assertEqual(way.between(one, two), NEAR)
        two = dataclasses.replace(two, ways={"a": new})
        self.assertEqual([way.between(*pair) for pair in (
            (one, two), (two, one))], [new, new])

    def test_cost(self) -> None:
        """A far host is dearer, and the guest stops for longer."""
        use = VmUse("v", "a", 2, GIB, GIB // 4,
                    disks=(DiskUse("vd0", 10 * GIB, 10 * GIB),))
        here = Host("a", 4, GIB, GIB, mbit=10000)
        there = Host("b", 4, GIB, GIB, mbit=10000)
        found = []
        for seen in ({}, {"b": NEAR}, {"b": Way(0.05, 1000, 0, 1.0)},
                     {"b": Way(0.05, 1000, 10, 1.0)}):
            subject = outlook.Subject(use, Spec("v", ()), dataclasses.replace(
                here, ways=seen))
            found.append(outlook.cost_of(subject, there))
        self.assertEqual(len(found), 4)
        unknown, near, far, lossy = found   # pylint: disable=W0632
        self.assertAlmostEqual(near.seconds, unknown.seconds, delta=0.1)
        self.assertGreater(far.seconds, 5 * near.seconds)
        self.assertGreater(lossy.seconds, 10 * far.seconds)
        self.assertGreater(far.downtime, near.downtime + 0.09)
        self.assertEqual(dict(far.terms)["round trip"], 0.05)
