# SPDX-License-Identifier: GPL-2.0-or-later
"""Tests of a store in PostgreSQL, with a server that the test starts."""

import argparse
import contextlib
import subprocess
import sys
import threading
import time
import unittest
import zlib
from typing import Any, Callable, ClassVar, Optional
from unittest import mock

from dev.common import ROOT
from dev.rig.basics import Skip
from dev.rig.database_server import DatabaseServer
from wsm.cli import daemons, enrol
from wsm.cli.agents import AgentSaid, NoAnswer
from wsm.cli.home import CliError
from wsm.controller import schema
from wsm.controller.ledger import Ledger
from wsm.controller.postgres import Postgres, Times
from wsm.controller.store import Store, StoreGone
from tests.scripts.controller import test_store

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
        number = ledger.record("auto", "text", {"a": 1.5},
                               lambda: zlib.compress(b'{"b": [1]}'))
        self.assertEqual(number, ledger.record("auto", "text", {"a": 1.5}))
        self.assertEqual(ledger.input(number), {"b": [1]})
        found, = ledger.decisions(1 << 30)
        self.assertEqual((found.rounds, found.text, found.output),
                         (2, "text", {"a": 1.5}))
        self.assertEqual(ledger.rounds(0), (2, 0))
        ledger.prune()

    def test_one_writer(self) -> None:
        """Who comes second waits."""
        one, two = (self.database(self.uri) for _ in range(2))
        inside = threading.Event()

        def work() -> None:
            with two.transaction():
                inside.set()

        thread = threading.Thread(target=work)
        with one.transaction():
            thread.start()
            self.wait(lambda: inside.is_set() or one.read(
                "SELECT 1 FROM pg_locks WHERE NOT granted", ()))
            self.assertFalse(inside.is_set())
        thread.join(TIMEOUT)
        self.assertTrue(inside.is_set())

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

    def test_next(self) -> None:
        """wsmctl asks the next controller, if one has no store, or stands by."""
        home = mock.MagicMock()
        home.cluster.controllers = {"c1": "a:1", "c2": "b:1"}
        with mock.patch("wsm.cli.daemons.Daemon") as daemon:
            daemon.return_value.get.side_effect = [
                AgentSaid("StoreGone", "away"), {"leads": True}]
            self.assertEqual(daemons.ask(home, "/state"), {"leads": True})
            cases: list[list[Optional[bool]]] = [
                [False, True], [True], [False, None]]
            for states in cases:
                daemon.return_value.get.side_effect = [
                    {"leads": each} if each is not None
                    else NoAnswer("away") for each in states]
                self.assertEqual(daemons.ask(home, "/state"),
                                 {"leads": True in states})
            daemon.return_value.get.side_effect = 2 * [
                AgentSaid("StoreGone", "away")]
            with self.assertRaisesRegex(CliError, "away") as caught:
                daemons.ask(home, "/state")
        self.assertEqual(caught.exception.status, 5)

    def test_command(self) -> None:
        """No password in a command, which everybody can see."""
        for store in ("wsm:geheim@db/wsm", "db/wsm?password=geheim"):
            args = argparse.Namespace(
                name="c1", address="10.0.0.1", replace=False, paste=True,
                store=f"postgresql://{store}")
            with self.assertRaisesRegex(CliError, "passfile"):
                enrol.add(mock.MagicMock(), args)
