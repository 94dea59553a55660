# SPDX-License-Identifier: GPL-2.0-or-later
"""The database below a store: what every kind of it can do, and SQLite's.

A store says the same SQL to each, with "?" for a value.  What differs is here
and in postgres.py: how it is opened, how one writer at a time is had, and which
of several controllers has its lock.
"""

import contextlib
import fcntl
import os
import sqlite3
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, ContextManager, Iterator, Optional, Protocol

WAIT = 2.0                      # s for another process that writes
Row = tuple[Any, ...]


class StoreGone(Exception):
    """The store cannot be read or written now."""


@dataclass(frozen=True)
class Result:
    """What a statement came to."""

    rows: list[Row]
    rowcount: int               # that were changed

    def fetchone(self) -> Optional[Row]:
        """Return the first row, if there is one."""
        return self.rows[0] if self.rows else None


class Connection(Protocol):
    """Where statements are said."""

    def execute(self, query: str, values: Row = ()) -> Result:
        """Carry out a statement; raise StoreGone."""


class Database(Protocol):
    """One of them.  Used by several threads; one at a time."""

    where: str                  # for people: no password
    quiet: float                # s after which one that lost the lock knows it

    def read(self, query: str, values: Row) -> list[Row]:
        """Return rows; raise StoreGone."""

    def transaction(self) -> ContextManager[Connection]:
        """All or nothing, and nobody else writes; raise StoreGone."""

    def version(self) -> int:
        """Return the version of the tables that are there; 0: none."""

    def set_version(self, connection: Connection, version: int) -> None:
        """Write it, in a transaction."""

    def table(self, statement: str) -> str:
        """Return a statement that makes tables in this database's words."""

    def take(self) -> bool:
        """Try to have the lock; return whether it has; raise StoreGone."""

    def held(self) -> bool:
        """Return whether it has the lock, as far as it knows."""

    def sure(self) -> bool:
        """Return whether certainly nobody else has the lock."""

    def give(self) -> None:
        """Let go of the lock."""

    def close(self) -> None:
        """Let go of all of it."""


def plain(values: Row) -> Row:
    """
    Return what all databases take.

    Text may be an agent's, and have in it what is no character.
    """
    return tuple(
        int(each) if isinstance(each, bool)
        else each.replace("\0", "\ufffd").encode("utf-8", "replace").decode()
        if isinstance(each, str) else each for each in values)


class Sqlite:
    """
    A file on a local disk.

    Its lock is the kernel's: it ends with the process, however that ends.
    """

    quiet = 0.0

    def __init__(self, path: Path) -> None:
        self.path = path
        self.where = str(path)
        self._lock = threading.RLock()
        self._claim: Optional[IO[str]] = None
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._database = sqlite3.connect(
                path, WAIT, isolation_level=None, check_same_thread=False)
            path.chmod(0o600)
            self._database.execute("PRAGMA journal_mode = WAL")
            self._database.execute("PRAGMA synchronous = FULL")
        except (OSError, sqlite3.Error) as error:
            raise StoreGone(f"{path}: {error}") from error

    def close(self) -> None:
        """Let go of all of it."""
        self.give()
        with self._lock:
            self._database.close()

    # Statements

    def execute(self, query: str, values: Row = ()) -> Result:
        """Carry out a statement; raise StoreGone."""
        with self._lock:
            try:
                done = self._database.execute(query, plain(values))
                return Result(done.fetchall(), done.rowcount)
            except sqlite3.Error as error:
                raise StoreGone(f"{self.where}: {error}") from error

    def read(self, query: str, values: Row) -> list[Row]:
        """Return rows; raise StoreGone."""
        return self.execute(query, values).rows

    @contextlib.contextmanager
    def transaction(self) -> Iterator[Connection]:
        """All or nothing, and nobody else writes; raise StoreGone."""
        with self._lock:
            self.execute("BEGIN IMMEDIATE")
            try:
                yield self
                self.execute("COMMIT")
            except BaseException:
                # When its disk is full it has rolled back already
                if self._database.in_transaction:
                    self.execute("ROLLBACK")
                raise

    def version(self) -> int:
        """Return the version of the tables that are there; 0: none."""
        return int(self.read("PRAGMA user_version", ())[0][0])

    def set_version(self, connection: Connection, version: int) -> None:
        """Write it, in a transaction."""
        connection.execute(f"PRAGMA user_version = {version}")

    def table(self, statement: str) -> str:
        """Return a statement that makes tables: they are SQLite's own."""
        return statement

    # The lock

    def take(self) -> bool:
        """Try to have the lock; return whether it has; raise StoreGone."""
        if self._claim:
            return True
        path = self.path.with_name(self.path.name + ".lock")
        try:
            # pylint: disable-next=consider-using-with
            stream = path.open("a", encoding="ascii")
        except OSError as error:
            raise StoreGone(f"{path}: {error}") from error
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.fstat(stream.fileno()).st_ino != path.stat().st_ino:
                raise BlockingIOError("the lock was made anew")
        except BlockingIOError:
            stream.close()
            return False
        except OSError as error:
            stream.close()
            raise StoreGone(f"{path}: {error}") from error
        self._claim = stream
        return True

    def held(self) -> bool:
        """Return whether it has the lock."""
        return self._claim is not None

    def sure(self) -> bool:
        """Return whether certainly nobody else has the lock."""
        return self.held()

    def give(self) -> None:
        """Let go of the lock."""
        if self._claim:
            self._claim.close()
        self._claim = None
