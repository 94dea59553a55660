# SPDX-License-Identifier: GPL-2.0-or-later
"""Tests of the line that says how far a move is."""

import unittest
from typing import Any

from wsm.plan.headway import (END_SHARE, Expected, Progress, figures_of,
                              progress)

from tests.scripts.plan.properties import over

MIB = 1 << 20
SAID = Expected(100 * MIB, 12.0, 2.0)
END = END_SHARE * SAID.start


def look(elapsed: float, figures: dict[str, Any],
         expected: Expected = SAID) -> Progress:
    """Return the progress of a move with these figures."""
    return progress(figures, elapsed, expected)


RUBBISH: list[Any] = [None, "x", -1, 10**400, float("nan"), True, [], {}, ["x"],
                      [{"name": 1, "phase": [], "ms": {}, "sent": "y"}],
                      {"rate": [], "transferred": "y", "page-size": None}]


class FiguresTest(unittest.TestCase):
    """What an agent says."""

    def test_good(self) -> None:
        """What can be stays as it is."""
        figures = {"phase": "ram-precopy", "speed": 5, "remaining": 7,
                   "ram": {"transferred": 1}, "limits": {"rate": 1},
                   "session": "s", "disks": [{"name": "d", "sent": 1,
                                              "basis": {"kind": "x"}}],
                   "phases": [{"phase": "freeze", "ms": 1}], "images": []}
        self.assertEqual(figures_of(figures), figures)

    def test_rubbish(self) -> None:
        """Whatever it says, all that is reckoned with can be."""
        for name in ("phase", "speed", "remaining", "expected-seconds", "ram",
                     "limits", "disks", "phases", "channels", "downtime-ms"):
            for value in RUBBISH:
                found = figures_of({name: value})
                look(1.0, found)
                self.assertLess(float(found.get("limits", {}).get(
                    "rate", 0)), 1e20)
                for each in found.get("phases", []):
                    self.assertIsInstance(each["phase"] + str(int(each["ms"])),
                                          str)
                for each in found.get("channels", []):
                    self.assertGreaterEqual(int(each["reconnects"]), 0)
        self.assertEqual(figures_of(["rubbish"]), {})


class ProgressTest(unittest.TestCase):
    """Percent, speed, and one time for all."""

    def test_begin(self) -> None:
        """Before a byte is sent, what was said holds."""
        for elapsed in (0.0, 0.5, 1.2):
            found = look(elapsed, {})
            self.assertAlmostEqual(found.seconds or 0, 12.0)
        self.assertEqual((found.percent, found.left), (0, 100 * MIB))
        # It begins later than expected: all is later
        self.assertAlmostEqual(look(5.0, {}).seconds or 0, 15.0 + END)

    def test_sending(self) -> None:
        """What is left of what was said, at the speed of now."""
        found = look(4.0, {
            "phase": "disk-precopy", "speed": 5 * MIB, "disks": [
                {"sent": 30 * MIB}], "remaining": 500 * MIB,
            "expected-seconds": 90})
        self.assertEqual((found.percent, found.left), (30, 70 * MIB))
        self.assertAlmostEqual(found.seconds or 0, 4 + 14 + END)

    def test_memory(self) -> None:
        """From the second look at memory on, QEMU knows better."""
        figures = {"phase": "ram-precopy", "speed": 5 * MIB, "remaining": MIB,
                   "disks": [{"sent": 30 * MIB}], "expected-seconds": 3}
        first = look(8.0, {**figures, "ram": {
            "transferred": 20 * MIB, "dirty-sync-count": 1}})
        second = look(8.0, {**figures, "ram": {
            "transferred": 20 * MIB, "dirty-sync-count": 2}})
        self.assertAlmostEqual(first.seconds or 0, 8 + 10 + END)
        self.assertAlmostEqual(second.seconds or 0, 8 + 3 + END)
        self.assertEqual((first.percent, second.percent), (50, 98))

    def test_more(self) -> None:
        """More was sent than was said: QEMU's guess, if there is one."""
        figures: dict[str, Any] = {
            "phase": "ram-precopy", "disks": [{"sent": 200 * MIB}],
            "remaining": 50 * MIB}
        self.assertIsNone(look(20.0, figures).seconds)
        found = look(20.0, {**figures, "expected-seconds": 9})
        self.assertAlmostEqual(found.seconds or 0, 29 + END)
        self.assertEqual(found.percent, 80)

    def test_compared(self) -> None:
        """While blocks are compared, little is sent, and that is no sign."""
        found = look(3.0, {
            "phase": "disk-precopy", "speed": 100 * MIB, "disks": [
                {"sent": MIB, "compared": 9 * MIB}]})
        self.assertAlmostEqual(found.seconds or 0, 12.0)

    def test_nothing_said(self) -> None:
        """A move of which nothing was said, and one that is over."""
        found = look(7.0, {"phase": "none"}, Expected())
        self.assertEqual((found.percent, found.left), (None, None))
        found = look(7.0, {"phase": "completed", "disks": [{"sent": 90 * MIB}]})
        self.assertEqual((found.percent, found.left), (100, 0))
        self.assertAlmostEqual(found.seconds or 0, 7 + END)

    @over(lambda st: st.tuples(
        st.sampled_from(["none", "setup", "disk-precopy", "ram-precopy",
                         "freeze", "postcopy", "completed"]),
        st.integers(0, 1 << 40), st.integers(0, 1 << 40),
        st.integers(0, 1 << 35), st.floats(0, 1e6), st.integers(0, 9)))
    def test_sound(self, value: Any) -> None:
        """Never less than has passed; 100 % only at the end."""
        phase, sent, remaining, speed, elapsed, sync = value
        found = look(elapsed, {
            "phase": phase, "speed": speed, "remaining": remaining,
            "disks": [{"sent": sent}], "ram": {"dirty-sync-count": sync},
            "expected-seconds": 1})
        self.assertGreaterEqual(found.seconds or elapsed, elapsed)
        if found.percent is not None:
            self.assertEqual(found.percent == 100, phase == "completed")
