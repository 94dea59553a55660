# SPDX-License-Identifier: GPL-2.0-or-later
"""Tests of the rate of a move, as its guard and orders set it."""

import asyncio
import time
import unittest
from typing import Any
from unittest import mock

from wsm.plan.ends import Word
from wsm.plan.spec import Sla

from tests.scripts.agent.test_owner import FolderTest

try:
    # pylint: disable=ungrouped-imports
    from wsm.agent import mover
    from wsm.agent.sentry import Resident
except ImportError:
    PRESENT = False
else:
    PRESENT = True

MBIT = 125000
LINK = 160                      # Mbit/s


@unittest.skipUnless(PRESENT, "scripts/build has not been run")
class HeldTest(FolderTest):
    """A move of web, beside db that was promised a part of the link."""

    def setUp(self) -> None:
        """Have an agent whose QEMU takes all parameters."""
        super().setUp()
        self.set: dict[str, int] = {}
        self.vms = mock.Mock()
        self.vms.config.state = self.vms.config.run = self.folder
        self.vms.config.migration.mbit = LINK
        self.vms.residents.return_value = []
        self.vms.monitor = mock.AsyncMock()
        self.vms.monitor.return_value.call = mock.AsyncMock(
            side_effect=self.call)
        self.made = mover.Mover(self.vms)
        self.made.save(mover.Record("m", "web", "source"))

    def call(self, _command: str, arguments: dict[str, int]) -> None:
        """Take parameters."""
        self.set.update(arguments)

    def promise(self) -> None:
        """Let db be there, with a promise."""
        self.vms.residents.return_value = [
            Resident("db", 1, Sla(net_mbit_min={"out": 100.0}))]
        asyncio.run(self.made.sentry.look())
        asyncio.run(self.made.sentry.look())

    def limit(self, valid: int = 0, **limits: int) -> None:
        """Give an order."""
        asyncio.run(self.made.limit("m", {
            name.replace("_", "-"): value for name, value in limits.items()},
            valid))

    def follow(self, **info: Any) -> None:
        """Let a second go by in which the guard may act."""
        self.made.word = mock.AsyncMock(return_value=(  # type: ignore
            Word.PRE, {"phase": "disk-precopy", **info}, {}))
        asyncio.run(self.made.tick())

    def perform(self) -> None:
        """The move has begun."""
        self.made.save(self.made.record("m"), performed=True)

    def test_begins(self) -> None:
        """With all of its grant, or with what others need not."""
        self.limit(max_bandwidth=LINK * MBIT, downtime_limit=300)
        self.assertEqual(self.set, {
            "max-bandwidth": LINK * MBIT, "max-postcopy-bandwidth": 0,
            "downtime-limit": 300})
        self.promise()
        self.limit(max_bandwidth=LINK * MBIT)
        self.assertEqual(self.set["max-bandwidth"], 44 * MBIT)
        self.assertEqual(self.set["max-postcopy-bandwidth"], 44 * MBIT)

    def test_disk(self) -> None:
        """What hurts disks only is slow for disks only, as long as it does."""
        self.limit(max_bandwidth=LINK * MBIT)
        for rate, slow, wanted in ((MBIT, True, (LINK * MBIT, 0, MBIT, MBIT)),
                                   (2 * MBIT, False, (2 * MBIT, 2 * MBIT, 0,
                                                      0))):
            asyncio.run(self.made.set_rate(self.made.record("m"), rate, slow))
            self.assertEqual(tuple(self.set[name] for name in (
                "max-bandwidth", "max-postcopy-bandwidth", "bandwidth",
                "compare-bandwidth")), wanted)
        self.perform()
        asyncio.run(self.made.set_rate(self.made.record("m"), MBIT, True))
        with mock.patch.object(self.made.sentry, "watches",
                               return_value=True):
            self.limit(max_bandwidth=9 * MBIT)      # it is still for disks
        self.assertEqual((self.set["max-bandwidth"], self.set["bandwidth"]),
                         (9 * MBIT, MBIT))
        asyncio.run(self.made.set_rate(self.made.record("m"), 2 * MBIT))
        self.set.clear()
        asyncio.run(self.made.set_rate(self.made.record("m"), MBIT))
        self.assertEqual(set(self.set), {"max-bandwidth",
                                         "max-postcopy-bandwidth"})

    def test_other_host(self) -> None:
        """It is asked before the move begins, and after a new start."""
        peers = self.made.sentry.peers
        self.perform()
        self.limit(max_bandwidth=LINK * MBIT)
        self.made.save(self.made.record("m"), peer="beta", peer_at="b:1")
        self.follow()
        peers.ask = mock.AsyncMock(return_value={"watches": True})
        asyncio.run(peers.look())
        peers.ask.assert_called_once_with("b:1", "beta", "m")
        self.assertTrue(self.made.sentry.cares("m"))
        self.made.close(self.made.record("m"))
        self.assertFalse(self.made.sentry.cares("m"))

    def test_new_grant(self) -> None:
        """At once where nobody is looked after; else not faster at once."""
        self.limit(max_bandwidth=10 * MBIT)
        self.perform()
        self.limit(max_bandwidth=20 * MBIT)
        self.assertEqual(self.set["max-bandwidth"], 20 * MBIT)
        with mock.patch.object(self.made.sentry, "watches",
                               return_value=True):
            self.limit(max_bandwidth=30 * MBIT)
            self.assertEqual(self.set["max-bandwidth"], 20 * MBIT)
            self.limit(max_bandwidth=5 * MBIT)
        self.assertEqual(self.set["max-bandwidth"], 5 * MBIT)

    def test_faster_again(self) -> None:
        """Although the VM for which it was made slow has gone."""
        self.promise()
        self.limit(max_bandwidth=LINK * MBIT)
        self.perform()
        self.assertEqual(self.set["max-bandwidth"], 44 * MBIT)
        self.vms.residents.return_value = []
        asyncio.run(self.made.sentry.look())
        with mock.patch.object(time, "monotonic") as clock:
            for second in range(60):
                clock.return_value = 1000.0 + second
                self.follow()
        self.assertEqual(self.set["max-bandwidth"], LINK * MBIT)

    def test_not_renewed(self) -> None:
        """Whoever gave the grant is dead: it is said once, and holds."""
        self.limit(max_bandwidth=10 * MBIT)
        self.perform()
        with mock.patch.object(time, "monotonic") as clock:
            clock.return_value = 1000.0
            self.limit(15, max_bandwidth=10 * MBIT)
            self.set.clear()
            for now, said in ((1014.0, 0), (1016.0, 1), (1030.0, 0)):
                clock.return_value = now
                with mock.patch.object(mover.LOG, "warning") as warning:
                    self.follow()
                self.assertEqual(warning.call_count, said, now)
        self.assertEqual(self.set, {})
        self.assertEqual(self.made.record("m").rate, 10 * MBIT)

    def test_never_over_the_grant(self) -> None:
        """However well all are, the guard is not faster than it may be."""
        self.promise()
        self.limit(max_bandwidth=60 * MBIT)
        self.perform()
        with mock.patch.object(time, "monotonic") as clock:
            for second in range(90):
                clock.return_value = 1000.0 + second
                if second == 60:
                    self.limit(max_bandwidth=30 * MBIT)
                self.follow()
                self.assertLessEqual(self.set["max-bandwidth"],
                                     (60 if second < 60 else 30) * MBIT)
        self.assertEqual(self.set["max-bandwidth"], 30 * MBIT)

    def test_no_promise(self) -> None:
        """Nothing is set again and again."""
        self.limit(max_bandwidth=LINK * MBIT)
        self.perform()
        self.set.clear()
        self.follow()
        self.assertEqual(self.set, {})


if __name__ == "__main__":
    unittest.main()
