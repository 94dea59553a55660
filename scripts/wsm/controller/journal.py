# SPDX-License-Identifier: GPL-2.0-or-later
"""The journal of moves in the store, for the same driver that wsmctl has.

Each stage is written before it begins.  While the store cannot be written a
move's driver waits; QEMU and the agents go on, and finish alone.
"""

import contextlib
import json
import math
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Callable, Iterator, Optional, TypeVar

from wsm.cli.home import CliError, Cluster, Home, HostEntry, Move
from wsm.controller.setup import Settings
from wsm.controller.store import Deposed, Store, StoreGone
from wsm.plan.fleet import Flight
from wsm.plan.learn import Past
from wsm.plan.plain import from_plain, to_plain

RETRY = 1.0                     # s until the store is tried again
TAUGHT = 200                    # moves that estimates learn from
T = TypeVar("T")


@dataclass(frozen=True)
class Entry:
    """A move, and why it is made."""

    move: Move
    spot: str = ""              # key of the hot spot, or "apply"
    hard: bool = False
    why: str = ""
    cooled: Optional[bool] = None       # whether it has helped
    goal: float = math.inf              # what the spot must be at most then

    def flight(self) -> Flight:
        """Return it as the planner counts it."""
        return Flight(self.move.vm, self.move.source, self.move.destination,
                      self.spot, self.hard, self.goal,
                      self.move.expected_bytes, self.move.due)


class Journal(Home):
    """What a driver takes for the folder of wsmctl."""

    def __init__(self, settings: Settings, store: Store) -> None:
        super().__init__("/")         # it has no folder
        self.settings = settings
        self.store = store
        self.stopping = threading.Event()

    # Of the cluster

    @property
    def cluster(self) -> Cluster:
        """The cluster as the store has it."""
        rows = self.store.read("SELECT name, address, state FROM hosts")
        return Cluster(self.settings.cluster, self.store.meta("instance"), {
            name: HostEntry(address, state) for name, address, state in rows})

    def certificate(self) -> tuple[Path, Path, Path]:
        """Return the files of controller.toml."""
        tls = self.settings.tls
        return Path(tls.ca), Path(tls.cert), Path(tls.key)

    def may_order(self) -> None:
        """Wait until nobody else can lead; raise Deposed."""
        self.insist(self.store.may_order)

    def epoch_for(self, epoch: int, holder: str) -> int:
        """Return the store's epoch, raised over that of anybody else."""
        mine = self.store.epoch
        if not mine:
            raise Deposed("it does not lead any more")
        ours = holder == self.store.meta("instance")
        if epoch > mine or (epoch == mine and not ours):
            self.store.raise_epoch(epoch + 1)
        return self.store.epoch

    # Moves

    def insist(self, work: Callable[[], T]) -> T:
        """Do something with the store, as soon as that works."""
        while True:
            try:
                return work()
            except StoreGone:
                if self.stopping.wait(RETRY):
                    raise

    def book(self, entry: Entry) -> Move:
        """Write a new move; raise StoreGone, Deposed."""
        move = entry.move
        with self.store.write() as database:
            database.execute(
                "INSERT INTO moves (id, vm, begun, ended, result, data, spot,"
                " hard, goal, why) VALUES (?, ?, ?, 0, '', ?, ?, ?, ?, ?)",
                (move.id, move.vm, move.begun, json.dumps(to_plain(move)),
                 entry.spot, entry.hard, entry.goal, entry.why))
            self.store.note(database, self.settings.name, "move", {
                "move": move.id, "vm": move.vm, "from": move.source,
                "to": move.destination, "why": entry.why})
        return move

    def put_move(self, move: Move) -> Move:
        """Write what a driver is about to do, however long that takes."""
        def write() -> Move:
            with self.store.write() as database:
                database.execute(
                    "UPDATE moves SET ended = ?, result = ?, data = ? "
                    "WHERE id = ?", (move.ended, move.result, json.dumps(
                        to_plain(move)), move.id))
                database.execute(
                    "INSERT INTO move_steps SELECT ?, COALESCE(MAX(seq), 0) "
                    "+ 1, ?, ?, ?, ? FROM move_steps WHERE move = ?",
                    (move.id, move.stage, move.cancel, self.store.clock(),
                     self.store.epoch, move.id))
                if move.ended:
                    self.store.note(database, self.settings.name, "end", {
                        "move": move.id, "vm": move.vm, "text": move.text,
                        "result": move.result})
            return move

        return self.insist(write)

    def entries(self, where: str, *values: object) -> list[Entry]:
        """Return moves, the oldest first."""
        return [Entry(from_plain(Move, json.loads(data)), spot, bool(hard),
                      why, None if cooled is None else bool(cooled), goal)
                for data, spot, hard, why, cooled, goal in self.store.read(
                    "SELECT data, spot, hard, why, cooled, goal FROM moves "
                    f"WHERE {where} ORDER BY begun, id", *values)]

    def open_entries(self) -> list[Entry]:
        """Return the moves that have not ended."""
        return self.entries("ended = 0")

    def ended_since(self, at: float) -> list[Entry]:
        """Return the moves that have ended since then."""
        return self.entries("ended >= ? AND ended > 0", at)

    def moves(self) -> list[Move]:
        """Return all moves, the oldest first."""
        return [entry.move for entry in self.entries("1 = 1")]

    def open_moves(self) -> list[Move]:
        """Return the moves that have not ended."""
        return [entry.move for entry in self.open_entries()]

    def past(self, by: float = math.inf) -> list[Past]:
        """Return what can be learned from: the last that had ended @by then."""
        rows = self.entries(
            "id IN (SELECT id FROM moves WHERE result = 'moved' AND ended <= ? "
            "ORDER BY begun DESC LIMIT ?)", by, TAUGHT)
        return [Home.lesson(entry.move) for entry in rows]

    def note_cooled(self, move: str, cooled: bool) -> None:
        """Write down whether the hot spot of a move has gone."""
        with self.store.write() as database:
            database.execute("UPDATE moves SET cooled = ? WHERE id = ?",
                             (cooled, move))

    def want_cancel(self, move: str, who: str = "") -> None:
        """Tell the driver of a move that it is not wanted any more."""
        with self.store.write() as database:
            database.execute("UPDATE moves SET cancel = 1 WHERE id = ?",
                             (move,))
            self.store.note(database, who, "cancel", {"move": move})

    def cancel_wanted(self, move: str) -> bool:
        """Return whether somebody has said so; no, if that cannot be read."""
        with contextlib.suppress(StoreGone):
            return bool(self.store.read(
                "SELECT 1 FROM moves WHERE id = ? AND cancel = 1", move))
        return False

    @contextlib.contextmanager
    def locked(self, move: str) -> Iterator[None]:
        """Drive a move: only the leader does, and it has one driver for each."""
        if not self.store.epoch:
            raise CliError(f"move {move} is another controller's")
        yield
