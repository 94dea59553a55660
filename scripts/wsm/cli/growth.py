# SPDX-License-Identifier: GPL-2.0-or-later
"""How much a controller's store grows: rounds of an invented fleet, written."""

import functools
import tempfile
from dataclasses import dataclass
from pathlib import Path

from wsm.controller import keeping, kept, shown
from wsm.controller.ledger import Ledger
from wsm.controller.storage import Sqlite
from wsm.controller.store import Store
from wsm.plan import planner
from wsm.plan.policy import Policy
from wsm.sim import crowd


@dataclass(frozen=True)
class Growth:
    """Bytes; of a day they are reckoned from what a round takes."""

    rounds: int
    records: int                # that are not the one before again
    spots: int                  # in the last round
    file: int                   # what these rounds have added to the file
    record: float               # of one round, without input
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


def written(ledger: Ledger, hosts: int, vms: int, rounds: int, seed: int,
            moves: bool) -> int:
    """Write rounds; return the hot spots of the last one."""
    world, policy = crowd.world(hosts, vms, seed), Policy()
    keeper, spots = keeping.Keeper(), 0
    for _ in range(5):
        world.step()
    for _ in range(rounds):
        world.step()
        found = planner.decide(world.fleet, policy, world.past, world.cost)
        spots = len(found.spots)
        made_of = functools.partial(
            keeper.input, world.fleet.now, world.fleet, found,
            functools.partial(kept.record, kept.Round(
                world.fleet, policy, world.past)))
        ledger.record("auto", found.text(), shown.decision_json(found),
                      made_of, keeper.is_due(world.fleet.now, world.fleet))
        for step in found.steps if moves else ():
            world.begin(step.vm, step.to, step.spot, step.hard, step.goal)
    return spots


def measure(hosts: int, vms: int, rounds: int, seed: int,
            moves: bool) -> Growth:
    """Return what rounds have written; without @moves it stays hot."""
    with tempfile.TemporaryDirectory() as folder:
        store = Store(Sqlite(Path(folder) / "growth.db"))
        try:
            store.lead("growth", "growth", "growth")
            before = size(store)
            spots = written(Ledger(store), hosts, vms, rounds, seed, moves)
            added = size(store) - before
            count, inputs, first = store.read(
                "SELECT COUNT(*), COALESCE(SUM(LENGTH(input)), 0), "
                "COALESCE((SELECT LENGTH(input) FROM decisions "
                "WHERE input IS NOT NULL ORDER BY id LIMIT 1), 0) "
                "FROM decisions")[0]
        finally:
            store.close()
    each = (added - inputs) / rounds
    day = keeping.DAY / Policy().interval
    purse = keeping.FLEET + keeping.VM * vms
    most = min(first * day, purse * (1 + keeping.OWING / keeping.DAY) + first)
    return Growth(rounds, count, spots, added, each, first, each * day, most,
                  each * day + most)
