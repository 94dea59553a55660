# SPDX-License-Identifier: GPL-2.0-or-later
"""How much a controller's store grows: rounds of an invented fleet, written."""

import functools
import tempfile
from dataclasses import dataclass
from pathlib import Path

from wsm.controller import keeping
from wsm.controller.ledger import Ledger
from wsm.controller.storage import Sqlite
from wsm.controller.store import Store
from wsm.plan import kept, planner, shown
from wsm.plan.policy import Policy
from wsm.sim.simworld import World


@dataclass(frozen=True)
class Growth:
    """Bytes; those of a day as if each round were another record."""

    rounds: int
    records: int                # that are not the one before again
    spots: int                  # in the last round
    file: int                   # all of it
    record: float               # of one of them, without input
    input: int                  # of one, the first
    records_day: float
    inputs_day: float           # at most: with one due in each round
    day: float


def size(store: Store) -> int:
    """Return the bytes of a store's file."""
    store.read("PRAGMA wal_checkpoint(TRUNCATE)")
    pages, = store.read("SELECT page_count * page_size FROM "
                        "pragma_page_count, pragma_page_size")[0]
    return int(pages)


@dataclass(frozen=True)
class Held:
    """What a store has, in bytes."""

    file: int
    records: int
    inputs: int
    first: int                  # input


def held(store: Store) -> Held:
    """Return what a store has."""
    count, inputs, first = store.read(
        "SELECT COUNT(*), COALESCE(SUM(LENGTH(input)), 0), COALESCE((SELECT "
        "LENGTH(input) FROM decisions WHERE input IS NOT NULL ORDER BY id "
        "LIMIT 1), 0) FROM decisions")[0]
    return Held(size(store), count, inputs, first)


class Writer:
    """Writes rounds of an invented fleet."""

    def __init__(self, store: Store, world: World, moves: bool) -> None:
        self.ledger = Ledger(store)
        self.world = world
        self.moves = moves
        self.keeper = keeping.Keeper()
        self.spots = 0          # in the last round
        for _ in range(5):
            world.step()

    def write(self, rounds: int) -> Held:
        """Write rounds; return what there is then."""
        world, policy = self.world, Policy()
        for _ in range(rounds):
            world.step()
            found = planner.decide(world.fleet, policy, world.past,
                                   world.cost)
            self.spots = len(found.spots)
            self.ledger.record(
                "auto", found.text(), shown.decision_json(found),
                functools.partial(
                    self.keeper.input, world.fleet.now, world.fleet, found,
                    functools.partial(kept.record, kept.Round(
                        world.fleet, policy, world.past))),
                self.keeper.is_due(world.fleet.now, world.fleet))
            for step in found.steps if self.moves else ():
                world.begin(step.vm, step.to, step.spot, step.hard, step.goal)
        return held(self.ledger.store)


def measure(world: World, rounds: int, moves: bool) -> Growth:
    """
    Return what rounds of @world have written; without @moves it stays hot.

    What a record takes is seen from the second fifth on: a file has a begin.
    """
    with tempfile.TemporaryDirectory() as folder:
        store = Store(Sqlite(Path(folder) / "growth.db"))
        try:
            store.lead("growth", "growth", "growth")
            writer = Writer(store, world, moves)
            begin = writer.write(rounds // 5)
            end = writer.write(rounds - rounds // 5)
        finally:
            store.close()
    each = (end.file - begin.file - end.inputs + begin.inputs) / max(
        1, end.records - begin.records)
    day = keeping.DAY / Policy().interval
    purse = keeping.FLEET + keeping.VM * len(world.fleet.guests)
    most = min(end.first * day, purse * (1 + keeping.OWING / keeping.DAY)
               + end.first)
    return Growth(rounds, end.records, writer.spots, end.file, each,
                  end.first, each * day, most, each * day + most)
