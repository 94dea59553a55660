# SPDX-License-Identifier: GPL-2.0-or-later
"""Carry out moves: one thread for each, by the same driver as wsmctl.

All is in the journal before it is done.  Whoever becomes the leader takes up
what is open there, by looking at both ends.
"""

import contextlib
import logging
import threading
from collections import deque
from dataclasses import dataclass
from typing import Any, Callable, Mapping, Optional

from wsm.cli import outlook
from wsm.cli.agents import Agents, AgentSaid, NoAnswer
from wsm.cli.drive import Driver
from wsm.cli.duly import Duly
from wsm.cli.home import CliError, Move
from wsm.controller.journal import Entry, Journal
from wsm.controller.store import Deposed, StoreGone
from wsm.plan import filters
from wsm.plan.fleet import Flight
from wsm.plan.grants import USEFUL
from wsm.plan.inventory import Host
from wsm.plan.pace import Due
from wsm.plan.plain import BadData
from wsm.plan.decision import Step
from wsm.plan.recovery import Step as Next

LOG = logging.getLogger("wsm-controller")
AGAIN = 5.0                     # s after something that must not happen
PERSON = 60.0                   # s between looks where a person is needed


@dataclass(frozen=True)
class Ended:
    """What became of a step."""

    flight: Flight
    at: float
    result: str                 # as in Move; "not begun"
    text: str = ""


class Executor:
    """All moves that this controller drives."""

    def __init__(self, journal: Journal,
                 agents: Callable[[Journal], Any] = Agents) -> None:
        self.journal = journal
        self.agents = agents
        self.flights: dict[str, Flight] = {}
        self.figures: dict[str, Mapping[str, Any]] = {}     # by move
        # By VM: bytes/s that its move may use now, words about its deadline
        self.grants: dict[str, float] = {}
        self.notes: dict[str, str] = {}
        self._ended: deque[Ended] = deque()     # threads put, the loop takes
        self._threads: dict[str, threading.Thread] = {}
        self._drivers: dict[str, Driver] = {}

    # From the loop

    def take_up(self) -> list[Entry]:
        """Drive what the journal has and nobody drives; raise StoreGone."""
        found = [entry for entry in self.journal.open_entries()
                 if entry.move.vm not in self.flights]
        for entry in found:
            LOG.info("takes up move %s of %s", entry.move.id, entry.move.vm)
            self._start(entry.flight(), self._drive_on, entry)
        return found

    def begin(self, step: Step) -> bool:
        """Begin a step beside the loop; False if the VM is in a move."""
        if step.vm in self.flights:
            return False
        self._start(step.flight(), self._begin, step)
        return True

    def ended(self) -> list[Ended]:
        """Return what has ended since the last time."""
        found = []
        while self._ended:
            found.append(self._ended.popleft())
            self.flights.pop(found[-1].flight.vm, None)
            self._threads.pop(found[-1].flight.vm, None)
        if found and not self.flights:
            self._release()
        return found

    def busy(self) -> bool:
        """Return whether a move is driven, beside those that have ended."""
        return len(self._ended) < len(self.flights)

    def seen(self, vm: str) -> tuple[Optional[Move], Mapping[str, Any]]:
        """Return a VM's move, if it is driven, and what QEMU says of it."""
        driver = self._drivers.get(vm)
        return (driver.move, driver.figures) if driver else (None, {})

    def _release(self) -> None:
        """Let others order the agents about, now that nothing is done."""
        acting, self.journal.acting = self.journal.acting, []
        if acting:
            def run() -> None:
                with contextlib.suppress(Deposed, StoreGone):
                    for each in acting:
                        each()

            threading.Thread(target=run, daemon=True).start()

    def stop(self, wait: float) -> None:
        """Drive nothing any more; the moves go on."""
        self.journal.stopping.set()
        for driver in list(self._drivers.values()):
            driver.stop = True
        for thread in list(self._threads.values()):
            thread.join(wait)

    def _start(self, flight: Flight, work: Callable[[Flight, Any], Ended],
               what: Any) -> None:
        self.flights[flight.vm] = flight
        term = self.journal.store.term

        def run() -> None:
            self.journal.store.bind(term)
            try:
                self._ended.append(work(flight, what))
            except Exception as error:  # pylint: disable=broad-exception-caught
                # Else nobody would ever drive moves of this VM again
                if isinstance(error, (Deposed, StoreGone)):
                    LOG.info("%s: leaves its move: %s", flight.vm, error)
                else:
                    LOG.error("%s: its driver ends", flight.vm, exc_info=error)
                self._ended.append(Ended(flight, self.journal.store.clock(),
                                         "left", str(error)))

        thread = threading.Thread(target=run, name=f"move-{flight.vm}",
                                  daemon=True)
        self._threads[flight.vm] = thread
        thread.start()

    # In the thread of a move

    def _begin(self, flight: Flight, step: Step) -> Ended:
        """Look again whether the step can be done, book it, and drive it."""
        agents = self.agents(self.journal)
        try:
            subject = outlook.look_at(agents, step.vm, step.source)
            there = outlook.host_now(agents, step.to, subject.spec)
            why = filters.refusals(outlook.wish_of(subject), there)
            if why:
                raise CliError("; ".join(each.text for each in why))
            cost = outlook.cost_of(subject, there,
                                   self._speed(step, subject, there))
        except (CliError, NoAnswer, AgentSaid, BadData) as error:
            return Ended(flight, self.journal.store.clock(), "not begun",
                         str(error))
        move = self.journal.book(Entry(outlook.new_move(
            step.vm, step.source, step.to, cost, due=step.due,
            begun=self.journal.store.clock()), flight.spot, flight.hard,
            step.why, goal=flight.goal))
        driver = self._driver(agents, move)
        driver.suit(outlook.disk_needs(subject),
                    subject.spec.sla.downtime_most)
        return self._drive(flight, driver)

    def _speed(self, step: Step, subject: outlook.Subject,
               there: Host) -> float:
        """Return how fast a step is meant to be; 0: as fast as it can."""
        grant, clock = self._grant(step.vm), self.journal.store.clock
        if not step.due:
            return grant
        need = Duly(subject, there, Due(clock(), step.due), clock).pace({})
        return min(grant or need.rate, need.rate)

    def _drive_on(self, flight: Flight, entry: Entry) -> Ended:
        """Go on with a move of a journal."""
        driver = self._driver(self.agents(self.journal), entry.move)
        return self._drive(flight, driver)

    def _driver(self, agents: Any, move: Move) -> Driver:
        driver = Driver(self.journal, agents, move, self._show)
        driver.pace = lambda _: (self._grant(move.vm),
                                 self.notes.get(move.vm, ""))
        return driver

    def _grant(self, vm: str) -> float:
        """Return what a move may use, bytes/s; 0: all that there is."""
        grant = self.grants.get(vm, 0.0)
        return grant if grant < USEFUL else 0.0

    def _show(self, move: Move, step: Next,
              figures: Mapping[str, Any]) -> None:
        self.figures[move.id] = figures
        if step.alarm or step.person:
            LOG.warning("%s: %s", move.vm, step.text)

    def _drive(self, flight: Flight, driver: Driver) -> Ended:
        """Drive a move to its end, whatever goes wrong meanwhile."""
        stopping = self.journal.stopping
        self._drivers[flight.vm] = driver
        try:
            while not driver.move.ended and not stopping.is_set():
                wait = PERSON
                try:
                    driver.run()
                except (StoreGone, BadData, CliError, OSError, ValueError,
                        KeyError, TypeError) as error:
                    LOG.error("move %s of %s", driver.move.id, flight.vm,
                              exc_info=error)
                    wait = AGAIN
                if not driver.move.ended:
                    stopping.wait(wait)
        finally:
            self._drivers.pop(flight.vm, None)
            self.figures.pop(driver.move.id, None)
        move = driver.move
        return Ended(flight, self.journal.store.clock(),
                     move.result or "left", move.text)
