# SPDX-License-Identifier: GPL-2.0-or-later
"""Tests of charts: those of a day outlive the controller."""

import unittest

from tests.scripts.controller.test_rounds import PRESENT, World

if PRESENT:
    from wsm.controller.chronicle import LONG
    from wsm.controller.rounds import Controller


@unittest.skipUnless(PRESENT, "python3-aiohttp is needed")
class ChartTest(World):
    """A day of hosts and VMs."""

    def day(self, made: "Controller", kind: str,
            name: str) -> list[float | None]:
        """Return the points of CPU of a day."""
        found = made.chronicle.history(made.fleet, kind, name, 86400)
        points: list[float | None] = found["series"]["cpu"]
        return points

    def test_restart(self) -> None:
        """What was charted before a kill is charted by the next one."""
        made = self.make(mode="observe")
        self.clock.now -= self.clock.now % LONG     # a point begins
        self.round(made, 40)
        self.hosts.vms["web"].cpu = 1.8
        self.round(made, 260)
        before = {key: self.day(made, *key) for key in (
            ("host", "alpha"), ("vm", "web"), ("vm", "db1"))}
        self.assertGreater(sum(each is not None for each
                               in before["vm", "web"]), 2)
        made.leader.give()          # as the kernel does when it is dead
        other = self.make("c2", "observe")
        self.round(other)
        for key, points in before.items():
            # The newest point is at most five minutes old
            self.assertEqual(self.day(other, *key)[:-1], points[:-1], key)
        self.round(other, 2)
        for key in before:
            self.assertIsNotNone(self.day(other, *key)[-1])
        self.clock.now += 90000
        self.round(other, 40)
        self.assertLessEqual(other.store.read(
            "SELECT COUNT(*) FROM charts")[0][0], 2)

    def test_damaged(self) -> None:
        """A row that cannot be read is left out; the others are shown."""
        made = self.make(mode="observe")
        self.round(made, 200)
        points = self.day(made, "host", "alpha")
        self.loop.run_until_complete(made.close())
        rows = made.store.read("SELECT slot FROM charts ORDER BY slot")
        other = self.make("c2", "observe")
        other.leader.take()
        with other.store.write() as database:
            database.execute("UPDATE charts SET data = ? WHERE slot = ?",
                             (b"rubbish", rows[0][0]))
        other.leader.give()
        third = self.make("c3", "observe")
        self.round(third)
        found = self.day(third, "host", "alpha")
        self.assertEqual(sum(each is not None for each in found),
                         sum(each is not None for each in points) - 1)
