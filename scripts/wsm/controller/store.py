# SPDX-License-Identifier: GPL-2.0-or-later
"""What a controller must not forget: one SQLite file.

Only the leader writes, and each write looks first whether it still is: the
epoch in the file must be its own.  Safety does not rest on it, as agents fence
and what is true is seen at the agents; but nobody's journal is mixed up.
"""

import contextlib
import sqlite3
import threading
import time
from pathlib import Path
from typing import Any, Callable, Iterator, Mapping, Optional

from wsm.controller import audit, schema

WAIT = 2.0                      # s for another process that writes
Row = tuple[Any, ...]


class StoreGone(Exception):
    """The store cannot be read or written now."""


class Deposed(Exception):
    """Another controller is the leader."""


class Store:
    """The file.  Used by several threads; one at a time."""

    def __init__(self, path: Path,
                 clock: Callable[[], float] = time.time) -> None:
        self.path = path
        self.clock = clock
        self.epoch = 0          # 0: not the leader
        self._lock = threading.RLock()
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._database = sqlite3.connect(
                path, WAIT, isolation_level=None, check_same_thread=False)
            path.chmod(0o600)
            self._database.execute("PRAGMA journal_mode = WAL")
            self._database.execute("PRAGMA synchronous = FULL")
            schema.migrate(self._database)
        except (OSError, sqlite3.Error) as error:
            raise StoreGone(f"{path}: {error}") from error

    def close(self) -> None:
        """Let go of it."""
        with self._lock:
            self._database.close()

    # Transactions

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        with self._lock:
            try:
                self._database.execute("BEGIN IMMEDIATE")
                try:
                    yield self._database
                except BaseException:
                    self._database.execute("ROLLBACK")
                    raise
                self._database.execute("COMMIT")
            except sqlite3.Error as error:
                with contextlib.suppress(sqlite3.Error):
                    self._database.execute("ROLLBACK")
                raise StoreGone(f"{self.path}: {error}") from error

    @contextlib.contextmanager
    def write(self) -> Iterator[sqlite3.Connection]:
        """Write as the leader, all or nothing; raise StoreGone, Deposed."""
        with self._transaction() as database:
            found = self._meta(database, "epoch")
            if not self.epoch or int(found) != self.epoch:
                raise Deposed(f"epoch {self.epoch} is over: it is {found}, "
                              f"of {self._meta(database, 'holder')}")
            yield database

    def read(self, query: str, *values: Any) -> list[Row]:
        """Return rows; raise StoreGone."""
        with self._lock:
            try:
                return list(self._database.execute(query, values))
            except sqlite3.Error as error:
                raise StoreGone(f"{self.path}: {error}") from error

    # Leadership

    @staticmethod
    def _meta(database: sqlite3.Connection, name: str,
              default: str = "0") -> str:
        found = database.execute("SELECT value FROM meta WHERE name = ?",
                                 (name,)).fetchone()
        return str(found[0]) if found else default

    @staticmethod
    def _set_meta(database: sqlite3.Connection, **values: Any) -> None:
        for name, value in values.items():
            database.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)",
                             (name, str(value)))

    def meta(self, name: str) -> str:
        """Return "epoch", "holder", "instance", "cluster"; "0" if not set."""
        found = self.read("SELECT value FROM meta WHERE name = ?", name)
        return str(found[0][0]) if found else "0"

    def lead(self, cluster: str, holder: str, instance: str) -> None:
        """
        Begin a new epoch, as the holder of the lock.

        @instance is kept if there is one: agents take the next leader of a
        store for the same controller, and need not wait for silence.
        """
        with self._transaction() as database:
            known = self._meta(database, "cluster", "")
            if known and known != cluster:
                raise Deposed(f"{self.path} is of cluster {known}, not of "
                              f"{cluster}: use another store")
            epoch = int(self._meta(database, "epoch")) + 1
            if self._meta(database, "instance", ""):
                instance = self._meta(database, "instance")
            self._set_meta(database, epoch=epoch, holder=holder,
                           instance=instance, cluster=cluster)
            audit.add(database, self.clock(), holder, "lead", {}, epoch)
            self.epoch = epoch

    def raise_epoch(self, epoch: int) -> None:
        """Go on in a higher epoch, as agents have seen one; raise Deposed."""
        with self.write() as database:
            if epoch > self.epoch:
                self._set_meta(database, epoch=epoch)
        self.epoch = max(self.epoch, epoch)

    # Small things

    def setting(self, name: str, default: str = "") -> str:
        """Return what was set."""
        found = self.read("SELECT value FROM settings WHERE name = ?", name)
        return str(found[0][0]) if found else default

    def set(self, who: str, name: str, value: str) -> None:
        """Set something."""
        with self.write() as database:
            database.execute("INSERT OR REPLACE INTO settings VALUES (?, ?)",
                             (name, value))
            self.note(database, who, "set", {name: value})

    def note(self, database: sqlite3.Connection, who: str, what: str,
             data: Mapping[str, Any]) -> None:
        """Add to the audit log, in a transaction."""
        audit.add(database, self.clock(), who, what, data, self.epoch)

    def alarm(self, name: str, text: Optional[str]) -> None:
        """Raise an alarm, or (None) end it."""
        with self.write() as database:
            if text is None:
                database.execute("DELETE FROM alarms WHERE name = ?", (name,))
            else:
                database.execute(
                    "INSERT INTO alarms VALUES (?, ?, ?) ON CONFLICT (name) "
                    "DO UPDATE SET text = excluded.text",
                    (name, self.clock(), text[:1000]))
