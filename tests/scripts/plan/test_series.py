# SPDX-License-Identifier: GPL-2.0-or-later
"""Tests of what a figure was lately."""

import random
import unittest

from wsm.plan.series import PEAK, RING, Series, ar1, percentile


def filled(values: list[float], interval: float = 10.0) -> Series:
    """Return a series with these samples."""
    series = Series(interval)
    for number, value in enumerate(values):
        series.add(interval * (number + 1), value)
    return series


class SeriesTest(unittest.TestCase):
    """Against a model that keeps everything."""

    def test_against_model(self) -> None:
        """Now, peak and the newest, with gaps and late samples."""
        chance = random.Random(1)
        series, kept, now = Series(10.0), [(0.0, 0.0)][:0], 0.0
        for _ in range(1500):
            now += chance.choice((10.0, 10.0, 10.0, 70.0))
            value = round(chance.uniform(0.0, 8.0) * 8) / 8
            series.add(now, value)
            series.add(now - 5.0, 99.0)         # too late
            kept.append((now, value))
            newest = [each for _, each in kept[-3:]]
            self.assertAlmostEqual(series.now, sum(newest) / len(newest))
            self.assertEqual(series.recent(5), [each for _, each in kept[-5:]])
            minutes: dict[int, float] = {}
            for at, each in kept:
                slot = int(at // 60)
                minutes[slot] = max(minutes.get(slot, 0.0), each)
            whole = list(minutes.values())[-60:][:-1]
            if series.grown and whole:
                self.assertAlmostEqual(
                    series.peak, max(percentile(whole, PEAK), series.now))
        self.assertEqual(len(series.recent(1000)), RING)

    def test_nothing_is_made_up(self) -> None:
        """A series without samples, and a young one."""
        empty = Series()
        self.assertEqual((empty.now, empty.peak, empty.forecast), (0, 0, 0))
        self.assertFalse(empty.grown)
        young = filled([1.0, 7.0, 1.0, 1.0, 1.0])
        self.assertEqual(young.peak, 7.0)
        self.assertFalse(young.grown)

    def test_short_peak_is_no_peak(self) -> None:
        """One minute of an hour is not what a host must have room for."""
        values = [2.0] * 360
        values[100:103] = [8.0] * 3
        self.assertEqual(filled(values).peak, 2.0)
        values[100:130] = [8.0] * 30            # five minutes are
        self.assertEqual(filled(values).peak, 8.0)

    def test_forecast(self) -> None:
        """What was far off comes back; what stays, stays."""
        self.assertEqual(ar1([3.0] * 12), 3.0)
        self.assertLess(ar1([1.0, 2.0, 1.0, 2.0, 1.0, 9.0]), 5.0)
        self.assertGreater(ar1([1.0] * 6 + [9.0] * 6), 7.0)
        self.assertEqual(ar1([]), 0.0)

    def test_include(self) -> None:
        """With a VM, and without it again."""
        host, vm = filled([4.0] * 200), filled([1.5] * 200)
        host.include(vm, 1)
        self.assertAlmostEqual(host.now, 5.5)
        self.assertAlmostEqual(host.peak, 5.5)
        host.include(vm, -1)
        self.assertAlmostEqual(host.peak, 4.0)
        host.include(filled([9.0] * 200), -1)
        self.assertEqual(host.now, 0.0)         # never less than nothing
