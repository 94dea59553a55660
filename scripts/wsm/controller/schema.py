# SPDX-License-Identifier: GPL-2.0-or-later
"""The tables of a controller's store, and how they have become what they are."""

from wsm.controller.storage import Database

FIRST = """
CREATE TABLE meta (name TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE hosts (name TEXT PRIMARY KEY, address TEXT NOT NULL,
    state TEXT NOT NULL, joined REAL NOT NULL);
CREATE TABLE settings (name TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE rules (id INTEGER PRIMARY KEY AUTOINCREMENT, kind TEXT NOT NULL,
    data TEXT NOT NULL, who TEXT NOT NULL, at REAL NOT NULL);
CREATE TABLE moves (id TEXT PRIMARY KEY, vm TEXT NOT NULL,
    begun REAL NOT NULL, ended REAL NOT NULL, result TEXT NOT NULL,
    data TEXT NOT NULL, spot TEXT NOT NULL, hard INTEGER NOT NULL,
    goal REAL, why TEXT NOT NULL, cooled INTEGER, cancel INTEGER NOT NULL DEFAULT 0);
CREATE INDEX moves_ended ON moves (ended);
CREATE TABLE move_steps (move TEXT NOT NULL, seq INTEGER NOT NULL,
    stage INTEGER NOT NULL, cancel INTEGER NOT NULL, at REAL NOT NULL,
    epoch INTEGER NOT NULL, PRIMARY KEY (move, seq));
CREATE TABLE decisions (id INTEGER PRIMARY KEY AUTOINCREMENT,
    at REAL NOT NULL, until REAL NOT NULL, rounds INTEGER NOT NULL,
    epoch INTEGER NOT NULL, mode TEXT NOT NULL, text TEXT NOT NULL,
    output TEXT NOT NULL, input BLOB);
CREATE INDEX decisions_at ON decisions (at);
CREATE TABLE alarms (name TEXT PRIMARY KEY, at REAL NOT NULL,
    text TEXT NOT NULL);
CREATE TABLE audit (seq INTEGER PRIMARY KEY AUTOINCREMENT, at REAL NOT NULL,
    who TEXT NOT NULL, what TEXT NOT NULL, data TEXT NOT NULL,
    epoch INTEGER NOT NULL, hash TEXT NOT NULL);
"""
# What a decision has come to is compressed: zlib of JSON, [text, output]
PACKED = """
ALTER TABLE decisions ADD COLUMN packed BLOB;
ALTER TABLE decisions ADD COLUMN spots INTEGER;
"""
# Means of LONG seconds, for charts: zlib of JSON; see chronicle
CHARTS = """
CREATE TABLE charts (slot INTEGER PRIMARY KEY, data BLOB NOT NULL);
"""
# Each makes the next version of the one before; none is ever changed.  They only
# add, as the leader may still be a controller of the version before.
MIGRATIONS = (FIRST, PACKED, CHARTS)


class TooNew(Exception):
    """A store of a later version than this program's."""


def migrate(database: Database) -> None:
    """Bring the tables up to date, each version whole or not at all."""
    while (have := database.version()) != len(MIGRATIONS):
        if have > len(MIGRATIONS):
            raise TooNew(f"the store has version {have}, this program knows "
                         f"{len(MIGRATIONS)}: install the newer one again")
        with database.transaction() as connection:
            if database.version() != have:
                continue        # another process was faster
            for statement in filter(str.strip, MIGRATIONS[have].split(";")):
                connection.execute(database.table(statement))
            database.set_version(connection, have + 1)
