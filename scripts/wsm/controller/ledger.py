# SPDX-License-Identifier: GPL-2.0-or-later
"""Hosts, rules, decisions in the store."""

import json
import zlib
from dataclasses import dataclass
from typing import Any, Callable, Iterator, Mapping, Optional

from wsm.cli.home import HostEntry
from wsm.controller import audit
from wsm.controller.placing import Rule, check
from wsm.controller.storage import Row
from wsm.controller.store import Store

KEPT = 7 * 86400.0              # s that decisions are kept
BIG = 32 << 20                  # bytes of an input


@dataclass(frozen=True)
class Recorded:
    """A decision as it was written down."""

    id: int
    at: float
    until: float                # when it was made the last time
    rounds: int
    mode: str
    text: str
    output: Mapping[str, Any]

    @classmethod
    def of(cls, row: Row) -> "Recorded":
        """Return what a row of decisions says."""
        number, at, until, rounds, mode, text, output, packed = row
        if packed is not None:
            text, output = json.loads(unpacked(packed))
        return cls(number, at, until, rounds, mode, text, json.loads(output))


COLUMNS = "id, at, until, rounds, mode, text, output, packed"


def unpacked(data: bytes) -> bytes:
    """Return what was compressed, if it is not absurdly much."""
    return zlib.decompressobj().decompress(data, BIG)


class Ledger:
    """All but moves."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self._last: tuple[Any, ...] = ()    # id, and what it has come to

    # Hosts

    def hosts(self) -> dict[str, HostEntry]:
        """Return the hosts of the cluster."""
        return {name: HostEntry(address, state) for name, address, state in
                self.store.read("SELECT name, address, state FROM hosts")}

    def joined(self, name: str) -> float:
        """Return since when a host is there."""
        found = self.store.read("SELECT joined FROM hosts WHERE name = ?", name)
        return float(found[0][0]) if found else self.store.clock()

    def set_hosts(self, who: str, entries: Mapping[str, HostEntry]) -> None:
        """Be told which hosts there are."""
        old = self.hosts()
        if old == dict(entries):
            return
        with self.store.write() as database:
            for name in set(old) - set(entries):
                database.execute("DELETE FROM hosts WHERE name = ?", (name,))
            for name, entry in entries.items():
                database.execute(
                    "INSERT INTO hosts VALUES (?, ?, ?, ?) ON CONFLICT (name) "
                    "DO UPDATE SET address = excluded.address, "
                    "state = excluded.state",
                    (name, entry.address, entry.state, self.store.clock()))
            self.store.note(database, who, "hosts", {
                name: [entry.address, entry.state]
                for name, entry in entries.items()})

    # Rules

    def rules(self) -> list[Rule]:
        """Return the rules, the oldest first."""
        return [Rule(number, kind, json.loads(data), who, at)
                for number, kind, data, who, at in self.store.read(
                    "SELECT id, kind, data, who, at FROM rules ORDER BY id")]

    def add_rule(self, who: str, kind: str, data: Mapping[str, Any]) -> Rule:
        """Add a rule; return it. Raises BadData."""
        check(kind, data)
        now = self.store.clock()
        with self.store.write() as database:
            number = int(database.execute(
                "INSERT INTO rules (kind, data, who, at) VALUES (?, ?, ?, ?) "
                "RETURNING id",
                (kind, json.dumps(data), who, now)).rows[0][0])
            self.store.note(database, who, "rule", {
                "id": number, "kind": kind, **data})
        return Rule(number, kind, data, who, now)

    def drop_rule(self, who: str, number: int) -> bool:
        """Remove a rule; return whether it was there."""
        with self.store.write() as database:
            found = database.execute("DELETE FROM rules WHERE id = ?",
                                     (number,)).rowcount
            if found:
                self.store.note(database, who, "rule removed", {"id": number})
        return bool(found)

    # Decisions

    def record(self, mode: str, text: str, output: Mapping[str, Any],
               made_of: Callable[[], Optional[bytes]] = lambda: None,
               due: bool = False) -> int:
        """
        Write down what a round has come to; return its number.

        One that says the same as the last is that one, again, unless it is
        @due that something be kept.  @made_of is asked if it is another: what
        it was made of, as Keeper has it.
        """
        now, words = self.store.clock(), json.dumps(output, sort_keys=True)
        said = (self.store.epoch, mode, words)
        if said == self._last[1:] and not due:
            with self.store.write() as database:
                if database.execute(
                        "UPDATE decisions SET until = ?, rounds = rounds + 1 "
                        "WHERE id = ?", (now, self._last[0])).rowcount:
                    return int(self._last[0])
        packed, blob = zlib.compress(json.dumps([text, words]).encode()), (
            made_of())
        with self.store.write() as database:
            number = int(database.execute(
                "INSERT INTO decisions (at, until, rounds, epoch, mode, text, "
                "output, input, packed, spots) VALUES (?, ?, 1, ?, ?, '', '', "
                "?, ?, ?) RETURNING id",
                (now, now, self.store.epoch, mode, blob, packed,
                 len(output.get("spots", ())))).rows[0][0])
        self._last = (number, *said)
        return number

    def prune(self) -> None:
        """Forget old decisions."""
        with self.store.write() as database:
            database.execute("DELETE FROM decisions WHERE until < ?",
                             (self.store.clock() - KEPT,))

    def rounds(self, since: float) -> tuple[int, int]:
        """Return how many rounds there were, and with hot spots."""
        (both, hot), = self.store.read(
            "SELECT SUM(rounds), SUM(CASE WHEN spots > 0 THEN rounds END) "
            "FROM decisions WHERE until >= ?", since)
        return int(both or 0), int(hot or 0)

    def newest(self, count: int) -> Iterator[Recorded]:
        """Return the last ones, the newest first; each is unpacked when asked for."""
        return map(Recorded.of, self.store.read(
            f"SELECT {COLUMNS} FROM decisions ORDER BY id DESC LIMIT ?",
            count))

    def decisions(self, count: int) -> list[Recorded]:
        """Return the last ones, the newest first."""
        return list(self.newest(count))

    def decision(self, number: int) -> Optional[Recorded]:
        """Return one of them."""
        found = self.store.read(
            f"SELECT {COLUMNS} FROM decisions WHERE id = ?", number)
        return Recorded.of(found[0]) if found else None

    def decision_at(self, at: float) -> Optional[Recorded]:
        """Return that of the round at a time, or the last before it."""
        found = self.store.read(
            f"SELECT {COLUMNS} FROM decisions WHERE at <= ? "
            "ORDER BY id DESC LIMIT 1", at)
        return Recorded.of(found[0]) if found else None

    def since(self, at: float) -> list[tuple[int, float, float, int, bool]]:
        """Return (id, at, until, rounds, whether input was kept), in order."""
        return [(int(number), float(begin), float(until), int(rounds),
                 bool(made_of)) for number, begin, until, rounds, made_of in
                self.store.read(
                    "SELECT id, at, until, rounds, input IS NOT NULL "
                    "FROM decisions WHERE until >= ? ORDER BY id", at)]

    def input_at(self, at: float) -> Optional[dict[str, Any]]:
        """Return what was known at a time, None if that was not kept."""
        found = self.store.read(
            "SELECT id FROM decisions WHERE at <= ? AND input IS NOT NULL "
            "ORDER BY id DESC LIMIT 1", at)
        return self.input(found[0][0]) if found else None

    def input(self, number: int) -> Optional[dict[str, Any]]:
        """Return what a decision was made of, None if that was not kept."""
        found = self.store.read("SELECT input FROM decisions WHERE id = ?",
                                number)
        if not found or found[0][0] is None:
            return None
        made: dict[str, Any] = json.loads(unpacked(found[0][0]))
        return made

    # Alarms and audit

    def alarms(self) -> list[tuple[str, float, str]]:
        """Return (name, since, text) of what a person should look at."""
        return [(str(name), float(at), str(text)) for name, at, text in
                self.store.read("SELECT name, at, text FROM alarms "
                                "ORDER BY at, name")]

    def audit(self, count: int) -> list[audit.Entry]:
        """Return the last rows of the audit log, the newest first."""
        return [audit.Entry(seq, at, who, what, json.loads(data), epoch, found)
                for seq, at, who, what, data, epoch, found in self.store.read(
                    "SELECT seq, at, who, what, data, epoch, hash FROM audit "
                    "ORDER BY seq DESC LIMIT ?", count)]

    def audit_wrong(self) -> tuple[int, int]:
        """Return (first row that was changed or 0, how many there are)."""
        rows = self.store.read("SELECT seq, at, who, what, data, epoch, hash "
                               "FROM audit ORDER BY seq")
        return audit.wrong(iter(rows)), len(rows)
