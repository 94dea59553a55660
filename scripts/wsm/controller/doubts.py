# SPDX-License-Identifier: GPL-2.0-or-later
"""Moves that are not worth their end, and ways on which moves break."""

import logging
from collections import Counter

from wsm.controller.executor import Executor
from wsm.plan import distrust, headway
from wsm.plan.distrust import SPAN, Cut
from wsm.plan.fleet import Fleet
from wsm.plan.policy import Policy
from wsm.plan.regret import Running, regret

LOG = logging.getLogger("wsm-controller")
MANY = 100                      # connections of a channel, at a time


class Doubts:
    """Looked at in each round."""

    def __init__(self, policy: Policy, fleet: Fleet,
                 executor: Executor) -> None:
        self.policy = policy
        self.fleet = fleet
        self.executor = executor
        self.bad: dict[tuple[str, str], str] = {}   # pairs of hosts: why
        self._cuts: list[Cut] = []      # of moves that go on
        self._mended: Counter[tuple[str, int]] = Counter()  # by channel

    def distrust(self, now: float) -> None:
        """Let no VM go where moves break again and again."""
        for vm, flight in self.executor.flights.items():
            move, figures = self.executor.seen(vm)
            for channel in figures.get("channels", []) if move else []:
                key = (move.id if move else "", int(channel["id"]))
                new = min(MANY, max(0, int(channel["reconnects"])
                                    - self._mended[key]))
                self._mended[key] += new
                self._cuts += new * [Cut(now, flight.source, flight.to)]
        self._cuts = [cut for cut in self._cuts if cut.at > now - SPAN]
        failed = [Cut(entry.move.ended, entry.move.source,
                      entry.move.destination)
                  for entry in self.executor.journal.ended_since(now - SPAN)
                  if entry.move.result == "stayed"
                  and distrust.is_cut(entry.move.text)]
        self.bad = distrust.bad([*self._cuts, *failed], now)
        self.fleet.rules += tuple(distrust.rules(self.fleet, self.bad,
                                                 self.policy.hot))

    def regret(self, now: float) -> None:
        """Take back what is not worth its end, before the handover."""
        journal = self.executor.journal
        for entry in journal.open_entries():
            move, figures = self.executor.seen(entry.move.vm)
            if move is None or move.cancel:
                continue
            why = regret(Running(
                entry.flight(), str(figures.get("phase", "")),
                now - move.begun, move.expected_seconds, headway.done(figures),
                float(figures.get("remaining", 0)), float(figures.get(
                    "limits", {}).get("rate", 0)),
                float(figures.get("speed", 0))), self.fleet, self.policy)
            if why and not journal.cancel_wanted(move.id):
                self._take_back(move.id, move.vm, why)

    def _take_back(self, move: str, vm: str, why: str) -> None:
        LOG.info("%s: its move is taken back: %s", vm, why)
        journal, store = self.executor.journal, self.executor.journal.store
        name = journal.settings.name
        with store.write() as database:
            store.note(database, name, "regret", {"move": move, "vm": vm,
                                                  "why": why})
        journal.want_cancel(move, name)
