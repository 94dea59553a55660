# SPDX-License-Identifier: GPL-2.0-or-later
"""Tests of who leads over a store in PostgreSQL, and of five minutes without.

Where a test waits for a lease to run out, Times are short.
"""

import contextlib
import signal
from typing import Any
from unittest import mock

from wsm.controller.leader import Leader
from wsm.controller.postgres import Times
from wsm.controller.store import Deposed, Store, StoreGone
from tests.scripts.controller import test_rounds
from tests.scripts.controller.test_postgres import Server

SOON = Times(connect=1, answer=1.0, beat=0.2, sure=1.4, lease=2.0, quiet=1.8)


class LeaseTest(Server):
    """One acts at most, whoever vanishes."""

    def setUp(self) -> None:
        uri = self.new()
        self.one, self.two = (Store(self.database(uri, SOON))
                              for _ in range(2))
        self.first, self.second = (
            Leader(self.one, "test", "c1"), Leader(self.two, "test", "c2"))
        self.assertTrue(self.first.take())
        self.one.may_order()
        self.assertFalse(self.second.take())

    @staticmethod
    def may(store: Store) -> bool:
        """Return whether one may give orders."""
        try:
            store.may_order()
        except (StoreGone, Deposed):
            return False
        return True

    def take(self) -> bool:
        """Let the second one try."""
        with contextlib.suppress(StoreGone):
            return self.second.take()
        return False

    def expect_second(self) -> None:
        """The second one leads in the end; never may both give orders."""
        def there() -> bool:
            new = self.take() and self.may(self.two)
            # Later than the other look: what was over stays so
            self.assertFalse(new and self.may(self.one))
            return new

        self.wait(there, "the second one leads")
        self.assertEqual(self.two.epoch, 2)

    def mute(self) -> Any:
        """Nothing comes from the first one any more."""
        database: Any = self.one.database
        patch = mock.patch.object(database, "_ask", lambda: None)
        patch.start()
        self.addCleanup(patch.stop)
        return database

    def test_vanished(self) -> None:
        """Its connection stays open, in the middle of a transaction."""
        database = self.mute()
        transaction = database.transaction()
        with contextlib.suppress(StoreGone), transaction:
            self.expect_second()
        self.assertRaises(StoreGone, self.one.may_order)

    def test_sure(self) -> None:
        """It stops before its lease has ended."""
        self.mute()
        self.wait(lambda: not self.may(self.one))
        self.assertTrue(self.first.leads())
        self.assertFalse(self.take())
        self.expect_second()

    def test_given(self) -> None:
        """Who gives it away in good order is not waited for."""
        self.first.give()
        self.assertTrue(self.second.take())
        self.two.may_order()
        self.assertFalse(self.may(self.one))
        self.assertFalse(self.first.take())

    def test_restarted(self) -> None:
        """A server that was started anew has forgotten the lock at once."""
        self.mute()
        self.server.stop()
        self.server.start()
        self.expect_second()
        self.assertRaises((StoreGone, Deposed), self.one.set, "eve", "a", "b")
        self.assertRaises((StoreGone, Deposed), self.one.set, "eve", "a", "b")

    def test_hangs(self) -> None:
        """A server that says nothing is not waited for; it goes on after."""
        database: Any = self.one.database
        self.addCleanup(self.server.signal, signal.SIGCONT)
        self.server.signal(signal.SIGSTOP)
        self.assertRaises(StoreGone, self.one.setting, "mode")
        self.wait(lambda: not self.first.leads(), "it knows")
        with self.assertRaisesRegex(StoreGone, "postgresql:"):
            self.first.take()
        self.server.signal(signal.SIGCONT)
        self.wait(lambda: database.held() or self.leads_again(), "again")

    def test_keeper(self) -> None:
        """The thread that keeps connections ends by nothing."""
        asked: list[int] = []

        def bug() -> None:
            asked.append(1)
            raise RuntimeError("can't start new thread")

        with mock.patch.object(self.one.database, "_ask", bug), \
                self.assertLogs("wsm-controller", "ERROR"):
            self.wait(lambda: len(asked) > 2, "it asks again")
        self.wait(lambda: self.may(self.one), "it is sure again")

    def test_stand_by(self) -> None:
        """Its locks are others than its primary's: it is no store."""
        uri = self.new()
        made = self.database(uri)
        made.execute(f"ALTER DATABASE {uri.partition('?')[0].rpartition('/')[2]} "
                     "SET default_transaction_read_only = on")
        with self.assertRaisesRegex(StoreGone, "read-only"):
            self.database(uri)

    def leads_again(self) -> bool:
        """Return whether one of them leads."""
        with contextlib.suppress(StoreGone):
            return self.first.take() or self.second.take()
        return False


class WorldTest(Server, test_rounds.World):
    """Controllers over one database."""

    def setUp(self) -> None:
        super().setUp()
        self.path = self.new()
        self.patient()

    def round_works(self, made: Any) -> bool:
        """Return whether a round has decided."""
        return self.round(made) is not None

    def test_gone(self) -> None:
        """Five minutes without: nothing is lost, and it goes on by itself."""
        one, two = self.make("c1"), self.make("c2")
        self.heat()
        self.hosts.hold.clear()
        self.round(one, 9)
        self.assertIsNone(self.round(two))
        self.wait(lambda: "source perform db1" in self.hosts.orders)
        since, orders = one.since, list(self.hosts.orders)
        self.server.stop()
        self.hosts.hold.set()
        for _ in range(30):
            self.assertIsNone(self.round(one))
            self.assertIsNone(self.round(two))
        self.assertIn("the store does not work", one.problem)
        self.assertEqual(self.hosts.orders, orders)
        self.server.start()
        self.wait(lambda: self.round_works(one), "it decides again")
        self.assertIsNone(self.round(two))
        self.assertEqual(one.since, since)
        self.wait(lambda: self.round_works(one) and not one.executor.busy()
                  and one.journal.ended_since(0), "the move ends")
        entry, = one.journal.ended_since(0)
        self.assertEqual(entry.move.result, "moved")
        self.assertEqual(one.ledger.audit_wrong()[0], 0)

    def test_taken_over(self) -> None:
        """A thread of an earlier term does not write over what came after."""
        one, two = self.make("c1"), self.make("c2")
        self.heat()
        self.hosts.hold.clear()
        self.round(one, 9)
        self.wait(lambda: "source perform db1" in self.hosts.orders)
        one.leader.give()
        self.hosts.hold.set()
        self.wait(lambda: self.round_works(two) and not two.executor.busy()
                  and two.journal.ended_since(0), "the other ends the move")
        two.leader.give()
        self.round(one)
        self.wait_moves(one)
        entry, = one.journal.ended_since(0)
        self.assertEqual(entry.move.result, "moved")
        self.assertEqual(one.journal.open_entries(), [])
        self.assertGreater(one.since, two.since)
