# SPDX-License-Identifier: GPL-2.0-or-later
"""Tests of moves that must have ended at a time, with a move that is made up."""

import dataclasses
import math
import random
import unittest
from dataclasses import dataclass
from typing import Any

from wsm.plan.estimate import START, Basis, Link, Load, dirtied, estimate
from wsm.plan.pace import Due, Pace, gentle, rest_of, takes

from tests.scripts.plan.properties import over

MIB = float(1 << 20)
FULL = 20 * MIB
RENEW = 5                       # s


@dataclass
class Model:
    """
    A move, as QEMU does it, second by second.

    The guest writes to its disks and its memory by turns more and less than
    was seen before, and others use the link at times.
    """

    rand: random.Random
    load: Load
    disks: float                # bytes that are left
    phase: str = "disk-precopy"
    memory: float = 0.0
    resent: float = 0.0         # bytes of disks that were written meanwhile
    spent: float = 0.0          # s in this round of the memory
    rounds: int = 1
    sent: float = 0.0
    busy: float = 1.0           # times what the guest wrote before
    free: float = 1.0           # part of the link that is there

    def second(self, rate: float) -> None:
        """Let a second go by at a rate."""
        if self.rand.random() < 0.1:
            self.busy = self.rand.choice([0.2, 0.5, 1.0, 1.5, 2.0])
        if self.rand.random() < 0.05:
            self.free = self.rand.choice([0.7, 0.85, 1.0])
        can = min(rate, self.free * FULL)
        if self.phase != "postcopy":
            self.resent += self.load.written * self.busy
        self.sent += can
        if self.phase == "disk-precopy":
            self.disks -= can
            if self.disks <= 0:
                self.disks, self.resent = self.resent, 0.0
                if self.disks <= can:
                    self.phase, self.memory = "ram-precopy", float(
                        self.load.touched)
        elif self.phase == "ram-precopy":
            self.memory -= can
            self.spent += 1.0
            if self.memory <= 0:
                self.memory = dirtied(self.load, self.spent) * self.busy
                self.spent, self.rounds = 0.0, self.rounds + 1
                if self.memory <= 0.3 * can:
                    self.phase = "postcopy"
                    self.disks += self.resent
        elif self.disks > 0:
            self.disks -= can
        else:
            self.phase = "completed"

    def figures(self) -> dict[str, Any]:
        """Return what query-wsm says."""
        memory = {"disk-precopy": float(self.load.touched),
                  "ram-precopy": self.memory}.get(self.phase, 0.0)
        dirty = max(0.0, self.disks) + self.resent
        sent = self.load.touched - memory if self.rounds == 1 else 0.0
        return {"phase": self.phase, "remaining": int(max(
            0, memory * (2 if self.rounds == 1 else 1)) + dirty),
                "disks": [{"dirty": int(dirty)}], "ram": {
                    "dirty-sync-count": self.rounds, "transferred": sent}}


def run(seed: int, slack: float) -> tuple[float, float, bool]:
    """
    Return (end / deadline, mean rate / full, whether it was said to be late).

    @slack: the deadline, in times that the move takes at full speed.
    """
    rand = random.Random(seed)
    load = Load(round(rand.uniform(100, 400) * MIB), {
        "1": round(rand.uniform(0.05, 0.6) * MIB)},
        written=rand.uniform(0.0, 1.0) * MIB, memory=1 << 30,
        allocated=round(8192 * MIB))
    data = round(rand.uniform(500, 4000) * MIB)
    link = Link(FULL, full=FULL)
    whole = estimate([Basis("d", "full", data)], load, link)
    due = Due(0.0, slack * whole.seconds)
    model, now, late = Model(rand, load, float(data)), START, False
    found = Pace(FULL, 0.0)
    while model.phase != "completed" and now < 9 * due.at:
        if int(now) % RENEW == 0:
            found = gentle(model.figures(), load, link, due, now)
            late = late or found.late > 0
        model.second(found.rate)
        now += 1.0
    return now / due.at, model.sent / now / FULL, late


class DueTest(unittest.TestCase):
    """The end, and how gently."""

    def test_ten(self) -> None:
        """Nine of ten end in the last tenth, at two thirds of the rate."""
        found = [run(seed, 2.0) for seed in range(10)]
        good = [end for end, _, _ in found if 0.9 <= end <= 1.0]
        self.assertGreaterEqual(len(good), 9, found)
        for _, rate, _ in found:
            self.assertLessEqual(rate, 0.7)

    def test_too_short(self) -> None:
        """It is as fast as it can, and it is said that it will be late."""
        for seed in range(5):
            end, rate, late = run(seed, 0.7)
            self.assertTrue(late)
            self.assertGreater(rate, 0.7)
            self.assertLess(end, 3.0)


class PaceTest(unittest.TestCase):
    """What is left, and how fast."""

    load = Load(100 << 20, {"1": 1 << 20}, memory=100 << 20,
                allocated=1 << 40)
    link = Link(FULL, full=FULL)

    def figures(self, phase: str, left: int, dirty: int) -> dict[str, Any]:
        """Return what query-wsm says."""
        return {"phase": phase, "remaining": left,
                "disks": [{"dirty": dirty}]}

    def test_rest(self) -> None:
        """Memory waits until disks are sent; no disk has more than is dirty."""
        for phase, left, dirty, wanted in (
                ("disk-precopy", 300, 999, (200.0, 100.0)),
                ("disk-precopy", 300, 150, (150.0, 100.0)),
                ("ram-precopy", 70, 30, (30.0, 40.0)),
                ("ram-precopy", 999, 30, (30.0, 100.0)),
                ("postcopy", 30, 30, (30.0, 0.0))):
            found = rest_of(self.figures(phase, left << 20, dirty << 20),
                            self.load)
            self.assertEqual(found, (wanted[0] * MIB, wanted[1] * MIB))
        for rounds, sent, rest in ((1, 30, 70), (1, 99, 45), (2, 30, 900)):
            figures = self.figures("ram-precopy", 900 << 20, 0)
            figures["ram"] = {"dirty-sync-count": rounds,
                              "transferred": sent << 20}
            self.assertEqual(rest_of(figures, self.load),
                             (0.0, rest * MIB))

    def test_aim(self) -> None:
        """A little before: a twentieth, but 5 s, if that is no tenth."""
        for whole, aim in ((1000.0, 950.0), (60.0, 55.0), (30.0, 27.0)):
            self.assertAlmostEqual(Due(7.0, 7.0 + whole).aim(7.0), aim)
            self.assertAlmostEqual(Due(7.0, 7.0 + whole).aim(17.0), aim - 10)

    def test_takes(self) -> None:
        """What is left, at the rate; what disks lack, at the link's own."""
        link = dataclasses.replace(self.link, rate=FULL / 2)
        quiet = dataclasses.replace(self.load, dirty={})
        for phase, left, dirty, seconds in (
                ("disk-precopy", 300, 200, 200 * 1.01 / 10 + 100 / 10),
                ("ram-precopy", 50, 0, 50 / 10),
                ("ram-precopy", 250, 200, 50 / 10 + 200 / 20),
                ("postcopy", 30, 30, 30 / 10)):
            self.assertAlmostEqual(takes(
                self.figures(phase, left << 20, dirty << 20), quiet, link,
                start=0.0), seconds, delta=0.1, msg=phase)
        self.assertAlmostEqual(takes(
            self.figures("postcopy", 30 << 20, 0), quiet, link, 2.0, 5.0),
            8.0, delta=0.01)

    def test_what_is_seen_counts(self) -> None:
        """Memory that is written faster than it was needs a faster move."""
        figures = self.figures("ram-precopy", 100 << 20, 0)
        slow = gentle(figures, self.load, self.link, Due(0.0, 100.0), 0.0)
        figures["ram"] = {"dirty-pages-rate": 2000, "page-size": 4096}
        fast = gentle(figures, self.load, self.link, Due(0.0, 100.0), 0.0)
        self.assertGreater(fast.rate, 2 * slow.rate)

    def test_slow_disks(self) -> None:
        """Disks need not be as fast as memory that is written fast."""
        load = dataclasses.replace(self.load, dirty={"1": 2 << 20},
                                   touched=50 << 20)
        figures = self.figures("disk-precopy", 250 << 20, 200 << 20)
        found = gentle(figures, load, self.link, Due(0.0, 200.0), 0.0)
        self.assertLess(found.rate, 1.5 * MIB)
        figures["phase"] = "ram-precopy"
        found = gentle(figures, load, self.link, Due(0.0, 200.0), 0.0)
        self.assertGreater(found.rate, 2.0 * MIB)

    def test_late(self) -> None:
        """By how much, at full speed; also after the deadline."""
        figures = self.figures("postcopy", 2000 << 20, 2000 << 20)
        found = gentle(figures, self.load, self.link, Due(0.0, 100.0), 60.0,
                       start=0.0)
        self.assertEqual(found.rate, FULL)
        self.assertAlmostEqual(found.late, 60.0)
        found = gentle(figures, self.load, self.link, Due(0.0, 100.0), 200.0)
        self.assertEqual(found.rate, FULL)
        self.assertGreater(found.late, 200.0)

    @over(lambda some: some.randoms(use_true_random=False))
    def test_any(self, rand: random.Random) -> None:
        """In time if that can be; no slower rate would do; never over full."""
        load = dataclasses.replace(
            self.load, dirty={"1": rand.randrange(40 << 20)},
            written=rand.random() * 1e7)
        figures = self.figures(
            rand.choice(["disk-precopy", "ram-precopy", "postcopy"]),
            rand.randrange(5 << 30), rand.randrange(4 << 30))
        due, now = Due(0.0, rand.random() * 1000), rand.random() * 500
        found = gentle(figures, load, self.link, due, now)
        self.assertLessEqual(found.rate, FULL)
        self.assertGreater(found.rate, 0)

        def seconds(rate: float) -> float:
            return takes(figures, load, dataclasses.replace(
                self.link, rate=rate))

        if figures["phase"] == "postcopy":      # the guest waits for it
            self.assertEqual(found.rate, FULL)
        elif seconds(FULL) <= due.aim(now):
            self.assertLessEqual(seconds(found.rate), due.aim(now) * 1.0001)
            self.assertEqual(found.late, 0.0)
            if found.rate > 262144.0:
                self.assertGreater(seconds(found.rate / 1.02),
                                   due.aim(now) * 0.9999)
        else:
            self.assertEqual(found.rate, FULL)
        self.assertEqual(found.late > 0, found.seconds > due.at - now
                         or math.isinf(found.seconds))


if __name__ == "__main__":
    unittest.main()
