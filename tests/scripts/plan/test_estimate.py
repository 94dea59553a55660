# SPDX-License-Identifier: GPL-2.0-or-later
"""Tests of what a move is said to cost."""

import dataclasses
import math
import unittest
from typing import Any

from wsm.plan.estimate import (DISK_OVERHEAD, PAUSE, START, ZERO_PAGE, Basis,
                               Estimate, Link, Load, basis_of, dirtied,
                               estimate, passes, rate_for, spread)
from wsm.plan.inventory import Copy, DiskUse

from tests.scripts.plan.properties import over

MIB = 1 << 20
LINK = Link(20.0 * MIB)
LOAD = Load(256 * MIB, {"1": 8 * MIB, "2": 12 * MIB, "4": 16 * MIB},
            written=MIB, allocated=512 * MIB)
DISK = DiskUse("vd0", 512 * MIB, 256 * MIB, points={"p": 3 * MIB})


def cost(data: int = 256 * MIB, load: Load = LOAD,
         link: Link = LINK) -> Estimate:
    """Return the estimate for one disk."""
    return estimate([Basis("vd0", "full", data)], load, link)


class BasisTest(unittest.TestCase):
    """What a disk builds on."""

    def copy(self, **more: Any) -> Copy:
        """Return an image at the destination."""
        return dataclasses.replace(
            Copy("v", "vd0", "/i", "handed-over", points={"p": 0}, fits=True),
            **more)

    def test_order(self) -> None:
        """A sync point, the rest of an attempt, content, all."""
        cases: list[tuple[list[Copy], bool, str, int]] = [
                ([self.copy()], True, "sync-point", 3 * MIB),
                ([self.copy(points={"p": 2 * MIB})], False, "sync-point",
                 5 * MIB),
                ([self.copy(state="incomplete")], False, "partial", 3 * MIB),
                ([self.copy(points={"p": None})], False, "sync-point",
                 3 * MIB),
                ([self.copy(points={"q": 0})], False, "content", 256 * MIB),
                ([self.copy(fits=False)], False, "content", 256 * MIB),
                ([self.copy(state="leaving")], False, "full", 256 * MIB),
                ([self.copy(disk="vd1")], False, "full", 256 * MIB),
                # It has grown since
                ([self.copy(size=MIB)], False, "full", 256 * MIB),
                ([self.copy(size=512 * MIB)], False, "sync-point", 3 * MIB),
                ([], True, "content", 256 * MIB),
                ([], False, "full", 256 * MIB)]
        for copies, template, kind, data in cases:
            found = basis_of(DISK, copies, template)
            self.assertEqual((found.kind, found.data), (kind, data), copies)
            self.assertTrue(found.reason)

    def test_differs(self) -> None:
        """What differed the last time, and the hashes."""
        found = basis_of(DISK, [self.copy(fits=False)], differs=0.05)
        self.assertEqual(found.data, int(256 * MIB * 0.058))
        self.assertEqual(found.hashed, 256 * MIB)


class EstimateTest(unittest.TestCase):
    """Bytes, seconds, downtime."""

    def test_idle(self) -> None:
        """A guest that writes nothing: what must be sent, once."""
        found = cost(load=Load(256 * MIB))
        self.assertEqual(found.bytes, int(DISK_OVERHEAD * 256 * MIB)
                         + 256 * MIB)
        self.assertAlmostEqual(found.seconds, START + DISK_OVERHEAD * 12.8
                               + 12.8, delta=.1)
        self.assertEqual(found.rounds, 1)

    def test_downtime(self) -> None:
        """The rest that is let, at the speed of the link, and the handover."""
        load = Load(256 * MIB, downtime=0.3)
        self.assertAlmostEqual(cost(load=load).downtime, PAUSE + 0.3,
                               delta=0.01)
        limited = Link(5.0 * MIB, full=20.0 * MIB)
        self.assertAlmostEqual(cost(load=load, link=limited).downtime,
                               PAUSE + 0.3 / 4, delta=0.01)
        small = dataclasses.replace(load, touched=MIB)
        self.assertAlmostEqual(cost(load=small).downtime, PAUSE + 0.05,
                               delta=0.01)

    def test_after(self) -> None:
        """What follows after the handover knows no limit."""
        load = dataclasses.replace(LOAD, written=20.0 * MIB)
        slow, fast = (cost(load=load, link=Link(5.0 * MIB, full=full))
                      for full in (0.0, 20.0 * MIB))
        self.assertAlmostEqual(slow.post_seconds / 4, fast.post_seconds,
                               delta=0.01)

    def test_rounds(self) -> None:
        """By hand: 12.8 s, then what was written in them, until it fits."""
        found = cost()
        self.assertEqual(found.rounds, 3)
        self.assertTrue(found.converges)
        self.assertEqual(dict(found.terms)["disks"], found.disk_seconds)

    def test_diverges(self) -> None:
        """Memory that is written faster than it is sent."""
        load = Load(256 * MIB, {"1": 100 * MIB, "2": 200 * MIB})
        found = cost(load=load)
        self.assertFalse(found.converges)
        self.assertTrue(math.isinf(found.seconds))
        self.assertGreater(found.needs_rate, 100 * MIB)
        self.assertTrue(cost(load=load,
                             link=Link(found.needs_rate)).converges)

    def test_deadline(self) -> None:
        """As slow as may be, and no slower."""
        def takes(rate: float, load: Load = LOAD) -> float:
            return cost(load=load, link=Link(rate)).seconds

        rate = rate_for(takes, LINK.rate, 120, MIB)
        self.assertLess(rate, LINK.rate)
        self.assertLessEqual(takes(rate), 120)
        self.assertGreater(takes(rate * 0.95), 115)
        self.assertEqual(rate_for(takes, LINK.rate, 5, MIB), LINK.rate)
        self.assertEqual(rate_for(lambda rate: takes(rate, Load(MIB)),
                                  LINK.rate, 1e9, MIB), MIB)

    def test_factor(self) -> None:
        """What was learned counts, but not without limit."""
        one = estimate([Basis("v", "full", 1 << 30)], LOAD, LINK)
        for factor, used in ((2.0, 2.0), (100.0, 3.0), (0.0, 1 / 3)):
            two = estimate([Basis("v", "full", 1 << 30)], LOAD, LINK, factor)
            self.assertAlmostEqual(two.seconds - START,
                                   used * (one.seconds - START))

    def test_zeroes(self) -> None:
        """Memory that nobody has touched is sent as next to nothing."""
        found = cost(0, Load(MIB, memory=4096 * MIB))
        self.assertAlmostEqual(found.bytes, MIB + 4095 * 256 * ZERO_PAGE,
                               delta=1)

    def test_spread(self) -> None:
        """New ones at first, none any more when all were hit."""
        self.assertAlmostEqual(spread(0, 10, 1, 1e6), 10, delta=0.01)
        self.assertAlmostEqual(spread(0, 10, 1e9, 100), 100)
        self.assertAlmostEqual(spread(50, 10, 5, 100), 81.6, delta=0.1)
        self.assertEqual(spread(200, 10, 5, 100), 100)

    def test_passes(self) -> None:
        """As often as migration/wsm/policy/passes.h has it, by hand."""
        rate = 10.0 * MIB

        def look(data: int, written: float,
                 touched: int = MIB) -> tuple[float, float]:
            _, total, left = passes(float(data), Load(
                touched, written=written, allocated=1 << 40), rate)
            return round(total / MIB), round(left / MIB)

        self.assertEqual(look(100 * MIB, 0), (100, 0))
        # 20 MiB are written while 100 are sent, 4 while these are
        self.assertEqual(look(100 * MIB, 2.0 * MIB), (120, 4))
        # No more than half becomes dirty again in time: no second pass
        self.assertEqual(look(100 * MIB, 5.0 * MIB), (100, 50))
        # More than a third: it does not shrink fast enough
        self.assertEqual(look(100 * MIB, 4.0 * MIB), (100, 40))
        # What is left takes less than a second
        self.assertEqual(look(100 * MIB, 0.9 * MIB), (100, 9))
        # Memory takes so long that another pass would not help
        self.assertEqual(look(100 * MIB, 2.0 * MIB, 1 << 30), (100, 20))
        # But so much would be missing that it is made nevertheless
        self.assertEqual(look(1000 * MIB, 2.0 * MIB, 4 << 30), (1200, 40))

    def test_start(self) -> None:
        """What was learned of begin and end counts as it is."""
        one = estimate([], LOAD, LINK, start=2.0)
        two = estimate([], LOAD, LINK, start=7.0)
        self.assertAlmostEqual(two.seconds - one.seconds, 5.0)

    @over(lambda st: st.tuples(
        st.integers(0, 1 << 40), st.integers(1, 1 << 38),
        st.dictionaries(st.sampled_from(["1", "2", "4"]),
                        st.integers(0, 1 << 36)),
        st.floats(0, 1e9), st.floats(1e4, 1e10), st.floats(1.0, 8.0)))
    def test_monotone(self, value: Any) -> None:
        """More bytes or less rate never makes a move shorter."""
        data, touched, dirty, written, rate, more = value
        load = Load(touched, dirty, 0, written, 1 << 40)
        one = cost(data, load, Link(rate))
        self.assertLessEqual(cost(data, load, Link(rate * more)).seconds,
                             one.seconds * 1.000001)
        self.assertGreaterEqual(cost(int(data * more), load,
                                     Link(rate)).seconds, one.seconds)
        self.assertGreaterEqual(one.bytes, touched)

    @over(lambda st: st.tuples(
        st.dictionaries(st.sampled_from(["1", "2", "4"]),
                        st.integers(0, 1 << 36)),
        st.floats(0, 100), st.floats(0, 100)))
    def test_dirtied(self, value: Any) -> None:
        """Longer is never less, nor more than there is."""
        dirty, short, long = value
        load = Load(1 << 30, dirty)
        short, long = sorted((short, long))
        self.assertLessEqual(dirtied(load, short), dirtied(load, long))
        self.assertLessEqual(dirtied(load, long), 1 << 30)
