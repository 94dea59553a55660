# SPDX-License-Identifier: GPL-2.0-or-later
"""What a controller must not forget.

Only the leader writes, and each write looks first whether it still is: the
epoch in the store must be its own.  Safety does not rest on it, as agents fence
and what is true is seen at the agents; but nobody's journal is mixed up.
"""

import contextlib
import threading
import time
from pathlib import Path
from typing import Any, Callable, Iterator, Mapping, Optional

from wsm.controller import audit, schema
from wsm.controller.postgres import Postgres
from wsm.controller.setup import SQLITE
from wsm.controller.storage import (
    Connection, Database, Row, Sqlite, StoreGone)

__all__ = ["Deposed", "Store", "StoreGone", "database_of"]
SET = ("INSERT INTO {} VALUES (?, ?) ON CONFLICT (name) "
       "DO UPDATE SET value = excluded.value")


class Deposed(Exception):
    """Another controller is the leader."""


def database_of(where: str) -> Database:
    """Open the database that controller.toml names; raise StoreGone."""
    if where.startswith(SQLITE):
        return Sqlite(Path(where.removeprefix(SQLITE)))
    return Postgres(where)


class Store:
    """The tables.  Used by several threads."""

    def __init__(self, database: Database,
                 clock: Callable[[], float] = time.time) -> None:
        self.database = database
        self.clock = clock
        self.epoch = 0          # 0: not the leader
        self._raising = -1      # an epoch that is written just now
        self.term = 0           # how often it has become the leader
        self.alone = False      # nobody else has led since it did
        self._led = -1          # its last epoch
        self._quiet = float("-inf")     # until when it gives no orders
        self._bound = threading.local()
        schema.migrate(database)

    def close(self) -> None:
        """Let go of it."""
        self.database.close()

    # Transactions

    def bind(self, term: int) -> None:
        """
        Let this thread act in one term only.

        What it knows would be old in a later one: somebody else may have led
        in between.
        """
        self._bound.term = term

    def _check_term(self) -> None:
        if not self.epoch or self.term != getattr(self._bound, "term",
                                                  self.term):
            raise Deposed("it does not lead any more")

    @contextlib.contextmanager
    def write(self) -> Iterator[Connection]:
        """Write as the leader, all or nothing; raise StoreGone, Deposed."""
        with self.database.transaction() as connection:
            self._check_term()
            found = self._meta(connection, "epoch")
            if int(found) not in (self.epoch, self._raising):
                raise Deposed(f"epoch {self.epoch} is over: it is {found}, "
                              f"of {self._meta(connection, 'holder')}")
            yield connection

    def read(self, query: str, *values: Any) -> list[Row]:
        """Return rows; raise StoreGone."""
        return self.database.read(query, values)

    def may_order(self) -> None:
        """
        Return if nobody else can lead now, so that an order may be given.

        Else raise StoreGone: it may be so again; or Deposed.
        """
        self._check_term()
        if not self.database.sure():
            raise StoreGone("it is not sure that it still leads: nothing was "
                            f"heard of {self.database.where}")
        wait = self._quiet - time.monotonic()
        if wait > 0:
            raise StoreGone("the leader before may not know yet that it is "
                            f"none: no order for {wait:.0f} s")

    # Leadership

    @staticmethod
    def _meta(connection: Connection, name: str, default: str = "0") -> str:
        found = connection.execute("SELECT value FROM meta WHERE name = ?",
                                   (name,)).fetchone()
        return str(found[0]) if found else default

    @staticmethod
    def _set_meta(connection: Connection, **values: Any) -> None:
        for name, value in values.items():
            connection.execute(SET.format("meta"), (name, str(value)))

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
        with self.database.transaction() as connection:
            known = self._meta(connection, "cluster", "")
            if known and known != cluster:
                raise Deposed(f"{self.database.where} is of cluster {known}, "
                              f"not of {cluster}: use another store")
            before = int(self._meta(connection, "epoch"))
            given = int(self._meta(connection, "given"))
            if self._meta(connection, "instance", ""):
                instance = self._meta(connection, "instance")
            self._set_meta(connection, epoch=before + 1, holder=holder,
                           instance=instance, cluster=cluster)
            audit.add(connection, self.clock(), holder, "lead", {}, before + 1)
        self.alone = before == self._led
        if not self.alone and before != given:
            self._quiet = time.monotonic() + self.database.quiet
        self.term += 1
        self.epoch = self._led = before + 1

    def give(self) -> None:
        """Lead no more; who leads next need not wait, if that can be said."""
        with contextlib.suppress(StoreGone, Deposed), self.write() as found:
            self._set_meta(found, given=self.epoch)
        self.epoch = 0

    def raise_epoch(self, epoch: int) -> None:
        """Go on in a higher epoch, as agents have seen one; raise Deposed."""
        try:
            with self.write() as connection:
                if epoch > self.epoch:
                    self._set_meta(connection, epoch=epoch)
                    self._raising = epoch
            self.epoch = self._led = max(self.epoch, epoch)
        finally:
            self._raising = -1

    # Small things

    def setting(self, name: str, default: str = "") -> str:
        """Return what was set."""
        found = self.read("SELECT value FROM settings WHERE name = ?", name)
        return str(found[0][0]) if found else default

    def set(self, who: str, name: str, value: str) -> None:
        """Set something."""
        with self.write() as connection:
            connection.execute(SET.format("settings"), (name, value))
            self.note(connection, who, "set", {name: value})

    def note(self, connection: Connection, who: str, what: str,
             data: Mapping[str, Any]) -> None:
        """Add to the audit log, in a transaction."""
        audit.add(connection, self.clock(), who, what, data, self.epoch)

    def alarm(self, name: str, text: Optional[str]) -> None:
        """Raise an alarm, or (None) end it."""
        with self.write() as connection:
            if text is None:
                connection.execute("DELETE FROM alarms WHERE name = ?",
                                   (name,))
            else:
                connection.execute(
                    "INSERT INTO alarms VALUES (?, ?, ?) ON CONFLICT (name) "
                    "DO UPDATE SET text = excluded.text",
                    (name, self.clock(), text[:1000]))
