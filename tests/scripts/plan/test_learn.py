# SPDX-License-Identifier: GPL-2.0-or-later
"""Tests of what earlier moves teach."""

import dataclasses
import unittest
from typing import Any

from wsm.plan import learn
from wsm.plan.estimate import FACTOR_LIMIT, START

from tests.scripts.plan.properties import over

PAST = learn.Past("v", "a", "b", 0, 100, 12.0, {
    "setup": 500, "disk-precopy": 4000, "ram-precopy": 6000}, 7.0, 2.0, 1.0)


def past(**values: Any) -> learn.Past:
    """Return a move that was otherwise."""
    return dataclasses.replace(PAST, **values)


class LearnTest(unittest.TestCase):
    """Each figure."""

    def test_nothing(self) -> None:
        """Who has seen nothing knows nothing."""
        self.assertEqual(learn.start([], "a", "b"), START)
        self.assertEqual(learn.factor([], "a", "b"), 1.0)
        self.assertIsNone(learn.speed([], "a", "b"))
        self.assertEqual(learn.differs([], "v", "a", "b")("vd0"), 1.0)

    def test_start(self) -> None:
        """Of this pair, either way; of others if there is none."""
        slow = past(source="c", seconds=20.0)
        first = (START + 2.0) / 2
        self.assertAlmostEqual(learn.start([PAST, slow], "b", "a"), first)
        self.assertAlmostEqual(learn.start([slow], "b", "a"),
                               (START + 10.0) / 2)
        self.assertAlmostEqual(
            learn.start([PAST, past(seconds=13.0)], "a", "b"),
            (START + 2.0 + 3.0) / 3)
        self.assertEqual(learn.start([past(seconds=9000.0)], "a", "b"), 30.0)
        self.assertEqual(learn.start([past(phases={}, seconds=9.0)],
                                     "a", "b"), START)

    def test_factor(self) -> None:
        """Sent in 10 s what was said to take 5: half of the way there."""
        self.assertAlmostEqual(learn.factor([PAST], "a", "b"), 2 ** 0.5)
        self.assertEqual(learn.factor([PAST], "a", "c"), 1.0)
        # What was said with the right factor leaves it as it is
        for other in (past(factor=0.0), past(differed={"vd0": 0.1})):
            self.assertEqual(learn.factor([other], "a", "b"), 1.0)
        again = past(expected_seconds=12.0, factor=2.0)
        self.assertAlmostEqual(learn.factor([again] * 50, "a", "b"), 2.0,
                               places=3)

    def test_speed(self) -> None:
        """The most of the last moves that had no limit and did not compare."""
        self.assertEqual(learn.speed([PAST], "a", "b"), 10.0)
        for other in (past(bytes=900, rate=5), past(bytes=900, source="c"),
                      past(bytes=900, differed={"vd0": 0.1})):
            self.assertEqual(learn.speed([PAST, other], "a", "b"), 10.0)
        self.assertEqual(learn.speed([past(bytes=900), *[PAST] * learn.LAST],
                                     "a", "b"), 10.0)

    def test_differs(self) -> None:
        """The last time that this VM's disk was compared."""
        seen = [past(differed={"vd0": 0.5}), past(differed={"vd0": 0.25}),
                past(differed={"vd0": 0.75}, vm="w")]
        found = learn.differs(seen, "v", "b", "a")
        self.assertEqual((found("vd0"), found("vd1")), (0.25, 1.0))

    @over(lambda st: st.lists(st.tuples(
        st.floats(0, 1e6), st.floats(0, 1e6), st.floats(0, 1e6),
        st.floats(0, 100), st.integers(0, 10 ** 9)), max_size=5))
    def test_limits(self, value: Any) -> None:
        """Whatever was seen, what is learned stays within bounds."""
        seen = [past(seconds=seconds, expected_seconds=said,
                     expected_start=begin, factor=factor,
                     phases={"ram-precopy": ms})
                for seconds, said, begin, factor, ms in value]
        low, high = learn.START_LIMITS
        self.assertTrue(low <= learn.start(seen, "a", "b") <= high)
        self.assertTrue(1 / FACTOR_LIMIT <= learn.factor(seen, "a", "b")
                        <= FACTOR_LIMIT)
