# SPDX-License-Identifier: GPL-2.0-or-later
"""Tests of a store in PostgreSQL, with a server that the test starts.

Where a test waits for a lease to run out, Times are short.
"""

import contextlib
import signal
import subprocess
import sys
import threading
import time
import unittest
from typing import Any, Callable, ClassVar
from unittest import mock

from dev.common import ROOT
from dev.rig.basics import Skip
from dev.rig.database_server import DatabaseServer
from wsm.controller import schema
from wsm.controller.leader import Leader
from wsm.controller.ledger import Ledger
from wsm.controller.postgres import Postgres, Times
from wsm.controller.store import Deposed, Store, StoreGone
from tests.scripts.controller import test_rounds, test_store

SOON = Times(connect=1, answer=1.0, beat=0.2, sure=1.4, lease=2.0, quiet=1.8)
TIMEOUT = 30.0


class Server(unittest.TestCase):
    """A server for all tests of a class, a database for each."""

    server: ClassVar[DatabaseServer]
    number = 0

    @classmethod
    def setUpClass(cls) -> None:
        try:
            __import__("psycopg")
            cls.server = DatabaseServer()
        except (ImportError, Skip) as why:
            raise unittest.SkipTest(
                f"postgresql and python3-psycopg are needed: {why}") from why
        cls.addClassCleanup(cls.server.close)

    def new(self, options: str = "") -> str:
        """Make a database; return how it is named."""
        Server.number += 1
        name = f"d{Server.number}"
        database = self.database(self.server.uri())
        database.execute(f"CREATE DATABASE {name} {options}")
        database.close()
        return self.server.uri(name)

    def database(self, uri: str, times: Times = Times()) -> Postgres:
        """Connect to one."""
        made = Postgres(uri, times)
        self.addCleanup(made.close)
        return made

    def wait(self, condition: Callable[[], Any], what: str = "") -> None:
        """Wait for something."""
        end = time.monotonic() + TIMEOUT
        while not condition():
            self.assertLess(time.monotonic(), end, f"nothing happens: {what}")
            time.sleep(0.01)


class StoreTest(Server, test_store.StoreTest):
    """What holds of a store in SQLite holds here."""

    def setUp(self) -> None:
        self.uri = self.new()
        super().setUp()

    def open(self) -> Store:
        """Open it once more."""
        return Store(self.database(self.uri), lambda: 1000.0)

    def test_again(self) -> None:
        """What was written is there, also what is no text."""
        self.store.lead("test", "c1", "i1")
        self.store.set("eve", "mode", "au\0to\ud800")
        self.assertEqual(self.open().setting("mode"), "au\ufffdto?")

    def test_newer(self) -> None:
        """A store of a later version is left alone, and one not in UTF-8."""
        database = self.database(self.uri)
        database.set_version(database, 99)
        self.assertRaises(schema.TooNew, self.open)
        self.uri = self.new("ENCODING 'SQL_ASCII' TEMPLATE template0")
        with self.assertRaisesRegex(StoreGone, "createdb -E UTF8"):
            self.open()

    def test_audit(self) -> None:
        """A row that was rolled back leaves no hole; a change is found."""
        self.store.lead("test", "c1", "i1")
        with contextlib.suppress(ZeroDivisionError), (
                self.store.write()) as database:
            self.store.note(database, "eve", "x", {})
            raise ZeroDivisionError
        self.store.set("eve", "x", "1")
        ledger = Ledger(self.store)
        self.assertEqual(ledger.audit_wrong(), (0, 2))
        self.database(self.uri).execute(
            "UPDATE audit SET who = 'bob' WHERE seq = 2")
        self.assertEqual(ledger.audit_wrong(), (2, 2))

    def test_ledger(self) -> None:
        """Rules and decisions have numbers, blobs come back."""
        self.store.lead("test", "c1", "i1")
        ledger = Ledger(self.store)
        self.assertEqual([ledger.add_rule("eve", "never", {"vms": ["db1"]}).id
                          for _ in range(2)], [1, 2])
        self.assertTrue(ledger.drop_rule("eve", 1))
        self.assertFalse(ledger.drop_rule("eve", 1))
        self.assertEqual([rule.id for rule in ledger.rules()], [2])
        number = ledger.record("auto", "text", {"a": 1.5}, {"b": [1]})
        self.assertEqual(number, ledger.record("auto", "text", {"a": 1.5},
                                               None))
        self.assertEqual(ledger.input(number), {"b": [1]})
        found, = ledger.decisions(1 << 30)
        self.assertEqual((found.rounds, found.output), (2, {"a": 1.5}))
        ledger.prune()

    def test_made_at_once(self) -> None:
        """Two that find nothing make the tables once."""
        self.uri = self.new()
        both = [self.database(self.uri) for _ in range(2)]
        threads = [threading.Thread(target=schema.migrate, args=[each])
                   for each in both]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(TIMEOUT)
        self.assertEqual([each.version() for each in both],
                         2 * [len(schema.MIGRATIONS)])


class JournalTest(Server, test_store.JournalTest):
    """Moves are the same, too."""

    def setUp(self) -> None:
        self.uri = self.new()
        super().setUp()

    def open(self) -> Store:
        """Open it once more."""
        return Store(self.database(self.uri), lambda: 1000.0)


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


class WithoutTest(unittest.TestCase):
    """Where there is no server, or no library."""

    def test_needed(self) -> None:
        """The package is named; with SQLite nobody asks for it."""
        with mock.patch.dict(sys.modules, {"psycopg": None}):
            with self.assertRaisesRegex(StoreGone, "python3-psycopg"):
                Postgres("postgresql://wsm@db/wsm")
        subprocess.run([sys.executable, "-c", "import sys, wsm.controller."
                        "store; assert 'psycopg' not in sys.modules"],
                       check=True, env={"PYTHONPATH": str(ROOT / "scripts")})

    def test_password(self) -> None:
        """What an error says has no password in it."""
        with self.assertRaises(StoreGone) as caught:
            Postgres("postgresql://wsm:geheim@127.0.0.1:1/wsm?"
                     "password=geheim")
        self.assertNotIn("geheim", str(caught.exception))
