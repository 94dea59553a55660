# SPDX-License-Identifier: GPL-2.0-or-later
"""Tests of what a controller must not forget: its store, its settings."""

import contextlib
import dataclasses
import math
import sqlite3
import tempfile
import unittest
from pathlib import Path
from typing import Iterator, Optional
from unittest import mock

from wsm.cli.agents import Agent
from wsm.cli.home import Move
from wsm.controller import audit, rounds, schema, setup
from wsm.controller.journal import Entry, Journal
from wsm.controller.leader import Leader
from wsm.controller.ledger import Ledger
from wsm.controller.setup import Settings
from wsm.controller.storage import Connection, Sqlite
from wsm.controller.store import Deposed, Store, StoreGone
from wsm.plan.plain import BadData

MOVE = Move("m-1", "vm", "a", "b", begun=1.0)


class File(unittest.TestCase):
    """One file."""

    def setUp(self) -> None:
        folder = tempfile.TemporaryDirectory()  # pylint: disable=R1732
        self.addCleanup(folder.cleanup)
        self.path = Path(folder.name) / "sub/c.db"
        self.store = self.open()

    def open(self) -> Store:
        """Open it once more."""
        made = Store(Sqlite(self.path), lambda: 1000.0)
        self.addCleanup(made.close)
        return made


class StoreTest(File):
    """What holds of the store."""

    def test_again(self) -> None:
        """What was written is there; nobody else can read the file."""
        self.store.lead("test", "c1", "i1")
        self.store.set("eve", "mode", "auto")
        self.assertEqual(self.path.stat().st_mode & 0o777, 0o600)
        other = self.open()
        self.assertEqual(other.setting("mode"), "auto")
        self.assertEqual(other.meta("instance"), "i1")

    def test_epoch(self) -> None:
        """Only the leader of the present epoch writes."""
        self.assertRaises(Deposed, self.store.set, "eve", "mode", "auto")
        self.store.lead("test", "c1", "i1")
        other = self.open()
        other.lead("test", "c2", "i2")
        self.assertEqual((other.epoch, other.meta("instance")), (2, "i1"))
        self.assertRaises(Deposed, self.store.set, "eve", "mode", "auto")
        self.assertRaises(Deposed, self.store.raise_epoch, 9)
        other.raise_epoch(7)
        other.set("eve", "mode", "ask")
        self.assertEqual(other.setting("mode"), "ask")
        self.assertRaises(Deposed, self.open().lead, "elsewhere", "c", "i")

    def test_raised_meanwhile(self) -> None:
        """A thread that writes just after another has raised the epoch."""
        self.store.lead("test", "c1", "i1")
        database, written = self.store.database, list[int]()
        transaction = database.transaction

        @contextlib.contextmanager
        def then() -> Iterator[Connection]:
            with transaction() as connection:
                yield connection
            if not written:
                written.append(1)
                self.store.set("eve", "mode", "auto")

        with mock.patch.object(database, "transaction", then):
            self.store.raise_epoch(7)
        self.assertEqual((self.store.epoch, self.store.setting("mode")),
                         (7, "auto"))

    def test_term(self) -> None:
        """A thread of an earlier term can do nothing in a later one."""
        self.store.lead("test", "c1", "i1")
        self.store.bind(self.store.term)
        self.addCleanup(self.store.bind, 2)
        self.store.set("eve", "mode", "ask")
        self.store.epoch = 0
        self.store.lead("test", "c1", "i1")
        self.assertTrue(self.store.alone)
        self.assertRaises(Deposed, self.store.set, "eve", "mode", "auto")
        self.assertRaises(Deposed, self.store.may_order)
        self.store.bind(self.store.term)
        self.store.set("eve", "mode", "auto")
        self.open().lead("test", "c2", "i2")
        self.store.lead("test", "c1", "i1")
        self.assertFalse(self.store.alone)

    def test_whole(self) -> None:
        """What goes wrong in the middle has not begun."""
        self.store.lead("test", "c1", "i1")
        with self.assertRaises(ZeroDivisionError), self.store.write() as data:
            data.execute("INSERT INTO settings VALUES ('a', 'b')")
            raise ZeroDivisionError
        self.assertEqual(self.store.setting("a"), "")
        self.assertEqual(Ledger(self.store).audit_wrong(), (0, 1))

    def test_newer(self) -> None:
        """A store of a later version is left alone, and so is no store."""
        with sqlite3.connect(self.path) as database:
            database.execute("PRAGMA user_version = 99")
        self.assertRaises(schema.TooNew, self.open)
        self.path.with_name("x.db").write_text("no store" * 200)
        self.assertRaises(StoreGone, Sqlite, self.path.with_name("x.db"))
        self.assertRaises(StoreGone, Sqlite, Path("/proc/none/c.db"))

    def test_lock(self) -> None:
        """One leader; a lock that was made anew beside it is none."""
        one = Leader(self.store, "test", "c1")
        two = Leader(self.open(), "test", "c2")
        self.assertTrue(one.take() and one.take())
        self.assertFalse(two.take())
        one.give()
        self.assertTrue(two.take())
        self.assertEqual(two.store.epoch, 2)
        two.give()

    def test_audit(self) -> None:
        """Whoever changes or removes a row is found."""
        self.store.lead("test", "c1", "i1")
        for number in range(5):
            self.store.set("eve", "x", str(number))
        ledger = Ledger(self.store)
        self.assertEqual(ledger.audit_wrong(), (0, 6))
        for statement, first in (
                ("UPDATE audit SET who = 'bob' WHERE seq = 3", 3),
                ("UPDATE audit SET data = '{}' WHERE seq = 4", 4),
                ("UPDATE audit SET at = 0 WHERE seq = 6", 6),
                ("UPDATE audit SET seq = 9 WHERE seq = 6", 6),
                ("DELETE FROM audit WHERE seq = 2", 2)):
            with self.subTest(statement), sqlite3.connect(
                    self.path, isolation_level=None) as database:
                database.execute("BEGIN")
                database.execute(statement)
                rows = database.execute(
                    "SELECT seq, at, who, what, data, epoch, hash FROM audit "
                    "ORDER BY seq").fetchall()
                database.execute("ROLLBACK")
                self.assertEqual(audit.wrong(iter(rows)), first)


class JournalTest(File):
    """Moves in the store."""

    def setUp(self) -> None:
        super().setUp()
        self.journal = Journal(Settings(
            "c1", "test", store=f"sqlite:{self.path}"), self.store)

    def test_moves(self) -> None:
        """A move, its steps, its end, what it teaches."""
        self.store.lead("test", "c1", "i1")
        self.journal.book(Entry(MOVE, "host.cpu a", True, "hot"))
        moved = dataclasses.replace(MOVE, stage=1)
        self.journal.put_move(moved)
        entry, = self.journal.open_entries()
        self.assertEqual((entry.move, entry.spot, entry.hard, entry.why),
                         (moved, "host.cpu a", True, "hot"))
        self.assertFalse(self.journal.cancel_wanted("m-1"))
        self.journal.want_cancel("m-1", "eve")
        self.assertTrue(self.journal.cancel_wanted("m-1"))
        self.journal.put_move(dataclasses.replace(
            moved, stage=4, ended=9.0, result="moved"))
        self.assertEqual(self.journal.open_moves(), [])
        self.assertEqual(len(self.journal.past()), 1)
        self.assertEqual(self.store.read(
            "SELECT seq, stage FROM move_steps ORDER BY seq"),
            [(1, 1), (2, 4)])

    def test_may_order(self) -> None:
        """Each order asks whether it may still be given."""
        agent = Agent.__new__(Agent)
        agent.home, agent.epoch = self.journal, 7
        self.assertRaises(Deposed, agent.order, "/release")

    def test_epoch_for(self) -> None:
        """Orders go in the store's epoch, above that of anybody else."""
        self.assertRaises(Deposed, self.journal.epoch_for, 0, "")
        self.store.lead("test", "c1", "i1")
        for held, holder, mine in ((0, "", 1), (1, "i1", 1), (4, "x", 5),
                                   (4, "i1", 5), (5, "y", 6), (7, "i1", 8)):
            self.assertEqual(self.journal.epoch_for(held, holder), mine)
        self.assertEqual(self.store.meta("epoch"), "8")


class PastTest(unittest.TestCase):
    """What a journal says of the last hours."""

    def entry(self, at: float, result: str = "moved",
              cooled: Optional[bool] = None) -> Entry:
        """A move of VM v from a to b."""
        return Entry(Move(f"m{at}", "v", "a", "b", begun=at - 1, ended=at,
                          result=result), "host.cpu a", cooled=cooled,
                     goal=0.7)

    def test_remembered(self) -> None:
        """Trips, failures, what has not helped; not what was looked at."""
        ended = [self.entry(10.0), self.entry(20.0, "stayed"),
                 self.entry(30.0, cooled=False), self.entry(40.0, cooled=True),
                 self.entry(50.0, "cancelled")]
        past = rounds.remembered(ended, [self.entry(60.0)], 0.0)
        self.assertEqual([trip.at for trip in past.trips["v"]],
                         [10.0, 30.0, 40.0])
        self.assertEqual([trip.at for trip in past.watched], [10.0])
        self.assertEqual((past.failed, past.uncooled),
                         ([20.0], {"a": [30.0]}))
        self.assertEqual(len(past.began), 6)
        past = rounds.remembered(ended, [], 35.0)
        self.assertEqual((past.failed, past.uncooled), ([], {}))

    def test_stays(self) -> None:
        """Longer after each failure; a move that works ends that."""
        def until(*ended: Entry, vm: str = "v") -> float:
            return rounds.remembered([*ended], [], 0.0).staying(vm)

        self.assertEqual(until(), -math.inf)
        bad = [self.entry(at, "stayed") for at in (100.0, 200.0)]
        self.assertEqual(until(bad[0]), 160.0)
        self.assertEqual(until(*bad), 500.0)
        self.assertEqual(until(*bad, *bad), 2000.0)
        self.assertEqual(until(*bad, vm="other"), -math.inf)
        self.assertEqual(until(*bad, self.entry(300.0)), -math.inf)


class SettingsTest(unittest.TestCase):
    """controller.toml."""

    def test_good(self) -> None:
        """Two names are enough; it only looks, then."""
        made = setup.loads('name = "c1"\ncluster = "x"\n')
        self.assertIs(made.mode, setup.Mode.OBSERVE)
        self.assertEqual(made.store,
                         "sqlite:/var/lib/wsm-controller/controller.db")
        self.assertEqual(setup.policy_of(made).interval, 10.0)

    def test_bad(self) -> None:
        """The key and the value are named, and what helps."""
        base = 'name = "c1"\ncluster = "x"\n'
        for text, words in (
                (base + "speed = 1", "speed is not known; here can be: "),
                (base + 'mode = "fast"', "mode: 'fast' is none of observe"),
                (base + 'listen = "7444"', "ADDRESS:PORT"),
                (base + 'store = "c.db"', "sqlite: and an absolute path"),
                (base + 'store = "postgres://u:geheim@h/d"', "'postgres'"),
                (base + 'store = "postgresql://h"', "USER@HOST"),
                (base + 'store = "postgresql://u:ge@heim@h/d"', "%40"),
                (base + 'store = "postgresql://u:ge/heim@h/d"', "%2F"),
                (base + 'store = "postgresql://u:ge#heim@h/d"', "%23"),
                (base + "settle = -1", "settle: -1"),
                ('name = "a b"\ncluster = "x"', "name: 'a b'"),
                ('name = "a"', "cluster is missing")):
            with self.assertRaises(BadData, msg=text) as caught:
                setup.loads(text)
            self.assertIn(words, str(caught.exception))
            self.assertNotIn("heim", str(caught.exception))
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "p.toml"
            path.write_text("hot.over = 9\n")
            made = setup.loads(base + f'policy = "{path}"')
            with self.assertRaises(BadData) as caught:
                setup.policy_of(made)
            self.assertIn(f"{path}: hot: over = 9", str(caught.exception))
            path.chmod(0o644)
            keyed = dataclasses.replace(made, tls=setup.Tls(key=str(path)))
            self.assertRaises(BadData, setup.check_secrets, keyed, path)

    def test_secrets(self) -> None:
        """Nobody else may read a password, wherever it is."""
        with tempfile.TemporaryDirectory() as folder:
            path, key, word = (Path(folder) / name for name in "ckp")
            for each in (path, key, word):
                each.touch(0o600)
            for store, secret in (("u:geheim@h/d", path),
                                  ("h/d?password=geheim", path),
                                  (f"h/d?passfile={word}", word),
                                  ("u@h/d", key)):
                made = Settings("c1", "test", tls=setup.Tls(key=str(key)),
                                store=f"postgresql://{store}")
                setup.check_secrets(setup.check(made), path)
                for mode in (0o640, 0o604):
                    secret.chmod(mode)
                    with self.assertRaisesRegex(BadData, "chmod 600"):
                        setup.check_secrets(made, path)
                secret.chmod(0o600)
