# SPDX-License-Identifier: GPL-2.0-or-later
"""Tests of what earlier moves teach."""

import dataclasses
import unittest
from typing import Any
from unittest import mock

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

    def test_once(self) -> None:
        """A pair is looked up once, either way; it is the same as each time."""
        moves = [PAST, past(source="c", seconds=20.0), past(
            differed={"vd0": 0.25})]
        lessons = learn.Lessons(moves)
        with mock.patch("wsm.plan.learn.look_up",
                        side_effect=learn.look_up) as looked:
            for one, two in (("a", "b"), ("b", "a"), ("a", "c")) * 50:
                self.assertEqual(learn.about(lessons, one, two),
                                 learn.about(moves, one, two))
                self.assertEqual(learn.differs(lessons, "v", one, two)("vd0"),
                                 1.0 if two == "c" else 0.25)
        self.assertEqual(len([each for each in looked.call_args_list
                              if each.args[0] is lessons]), 2)
        self.assertEqual(lessons, tuple(moves))

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
