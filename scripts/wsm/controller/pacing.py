# SPDX-License-Identifier: GPL-2.0-or-later
"""Share links out among the moves that this controller drives.

Every few seconds each of them is told what it may use, for a while.  If that
is not said again, it goes on so: a controller that is dead stops nothing.
"""

import asyncio
import logging
from typing import Any, Mapping, Optional

from wsm.cli import outlook
from wsm.cli.drive import RENEW
from wsm.cli.duly import Duly
from wsm.controller.executor import Executor
from wsm.plan.fleet import Fleet, Flight
from wsm.plan.grants import (Claim, Wire, claim_of, crossed, fits, share,
                             wires_of)
from wsm.plan.learn import Lessons
from wsm.plan.pace import Due
from wsm.plan.policy import Links

LOG = logging.getLogger("wsm-controller")


class Pacer:
    """Used from the event loop only; drivers read Executor.grants."""

    def __init__(self, links: Links, fleet: Fleet,
                 executor: Executor) -> None:
        self.links = links
        self.fleet = fleet
        self.executor = executor
        self._wires: dict[str, Wire] = {}       # as they were the last time
        self._rooms: dict[str, float] = {}      # in them

    async def run(self) -> None:
        """Go on until cancelled."""
        while True:
            try:
                self.once()
            except Exception as error:  # pylint: disable=broad-exception-caught
                LOG.error("links are not shared out", exc_info=error)
            await asyncio.sleep(RENEW)

    def once(self) -> None:
        """See what links carry, and share them out."""
        self._wires = wires_of(self.fleet, self.links)
        self._rooms = {name: wire.room(self.links)
                       for name, wire in self._wires.items()}
        self.share()

    def share(self, new: Optional[Flight] = None) -> None:
        """Share out what was seen, also for one that is about to begin."""
        notes: dict[str, str] = {}
        claims = self.claims(notes)
        if new and new.vm not in self.executor.flights:
            claims.append(self.claim(new))
        self.executor.grants = share(self._rooms, claims)
        self.executor.notes = notes

    def usual(self, flight: Flight) -> float:
        """Return what a move would get if it were alone; 0: not known."""
        return min((self._rooms[name] for name in crossed(flight, self.links)
                    if name in self._rooms), default=0.0)

    def has_turn(self, flight: Flight) -> bool:
        """Return whether one more may begin now."""
        return fits(self._wires, self.claims({}), self.claim(flight),
                    self.links)

    def claims(self, notes: dict[str, str]) -> list[Claim]:
        """
        Return what all moves claim; @notes: words about their deadlines.

        One whose links are not known yet is told nothing, and goes on so.
        """
        return [self.claim(flight, notes)
                for flight in list(self.executor.flights.values())
                if {flight.source, flight.to} <= set(self.fleet.nodes)]

    def claim(self, flight: Flight,
              notes: Optional[dict[str, str]] = None) -> Claim:
        """Return what a move claims."""
        guest = self.fleet.guests.get(flight.vm)
        move, figures = self.executor.seen(flight.vm)
        gold = guest is not None and guest.spec.sla.class_ == "gold"
        found = claim_of(flight, gold, str(figures.get("phase", "")),
                         self.links, move.rate if move else 0)
        due = move.due if move else flight.due
        if not due:
            return found
        need, note = self._need(flight, Due(
            move.begun if move else self.executor.journal.store.clock(), due),
            figures)
        if notes is not None and note:
            notes[flight.vm] = f"{flight.vm}: {note}"
        return Claim(found.move, found.wires, found.weight, found.most,
                     due, need)

    def _need(self, flight: Flight, due: Due,
              figures: Mapping[str, Any]) -> tuple[float, str]:
        """Return what a move with a deadline needs, and a word about it."""
        guest = self.fleet.guests.get(flight.vm)
        if guest is None or not {flight.source, flight.to} <= set(
                self.fleet.nodes):
            return 0.0, ""
        journal = self.executor.journal
        subject = outlook.Subject(
            guest.use, guest.spec, self.fleet.nodes[flight.source].host,
            Lessons(journal.past()))
        return Duly(subject, self.fleet.nodes[flight.to].host, due,
                    journal.store.clock)(figures)
