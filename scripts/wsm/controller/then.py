# SPDX-License-Identifier: GPL-2.0-or-later
"""Answers of a round that is over, from the record of seven days.

Each decision is kept word by word.  What it was made of is kept when what is
decided changes, and each five minutes; so an answer may be of a round that
was a little earlier, and says so.
"""

import dataclasses
from typing import Any, Optional

from wsm.cli.again import Prices
from wsm.cli.moment import clock
from wsm.controller import because
from wsm.controller.ledger import Recorded
from wsm.controller.rounds import Controller, NotNow
from wsm.plan import kept, planner
from wsm.plan.booked import Booked
from wsm.plan.fleet import Guest


def plan_json(made: Controller, number: int) -> dict[str, Any]:
    """Return a plan with all that it was made of; raise NotNow."""
    found = made.ledger.decision(number)
    if found is None:
        raise NotNow("there is no such plan in the record")
    return {"lines": [found.text], "decisions": [because.recorded_json(found)],
            "input": made.ledger.input(number),
            "lessons": [dataclasses.asdict(each) for each in
                        made.journal.past(found.at)]}


class Then:
    """The round of a time, or of a decision; raises NotNow, BadData."""

    def __init__(self, made: Controller, at: float,
                 number: Optional[int] = None) -> None:
        found = (made.ledger.decision(number) if number is not None
                 else made.ledger.decision_at(at))
        if found is None:
            raise NotNow(f"the record has no plan {number}"
                         if number is not None else
                         f"the record has no round before {clock(at)}: it "
                         "goes back seven days, and to the controller's "
                         "first start")
        self.decision: Recorded = found
        self.at = found.at if number is not None else min(at, found.until)
        data = made.ledger.input_at(self.at)
        if data is None:
            raise NotNow(f"what the round of {clock(self.at)} was made of "
                         "was not kept")
        self.round = kept.restore(data)
        self._prices = Prices(self.round.fleet, self.round.policy.links,
                              tuple(made.journal.past(self.at)))
        self._moves = made.journal

    def lines(self) -> list[str]:
        """Return of when this is."""
        known = self.round.fleet.now
        return [f"at {clock(self.at)}" + (
            f", with what was known at {clock(known)}"
            if self.at - known >= 1.0 else "") + ":"]

    def answer(self, lines: list[str]) -> dict[str, Any]:
        """Return lines, and the decision of that round."""
        return {"at": self.at, "known": self.round.fleet.now,
                "lines": [*self.lines(), *lines],
                "decisions": [because.recorded_json(self.decision)]}

    def guest(self, name: str) -> Guest:
        """Return a VM; raise NotNow."""
        found = self.round.fleet.guests.get(name)
        if found is None:
            raise NotNow(f"no VM {name[:80]} was known at {clock(self.at)}; "
                         "there were: " + (", ".join(sorted(
                             self.round.fleet.guests)) or "none"))
        return found

    def of_vm(self, name: str) -> dict[str, Any]:
        """Explain a VM; raise NotNow."""
        guest, fleet = self.guest(name), self.round.fleet
        lines = [f"{name} was on {guest.use.host}: "
                 + because.figures(guest.load)]
        if flight := fleet.flights.get(name):
            lines.append(f"it moved from {flight.source} to {flight.to}")
        until = self.round.past.cooling(name, fleet.now,
                                        self.round.policy.calm)
        if until > fleet.now:
            lines.append("it had moved lately, and was to stay for "
                         f"{(until - fleet.now) / 60:.0f} min more")
        mode = guest.spec.placement.mode.value
        if mode != "auto":
            lines.append(f"its placement.mode was {mode}")
        for entry in self._moves.entries("vm = ? AND begun <= ?", name,
                                         self.at)[-because.SHOWN:]:
            move = entry.move
            lines.append(f"move {move.id[:8]} to {move.destination} began "
                         f"{clock(move.begun)}: {entry.why}")
        return self.answer(lines)

    def of_host(self, name: str) -> dict[str, Any]:
        """Explain a host; raise NotNow."""
        fleet = self.round.fleet
        node = fleet.nodes.get(name)
        if node is None:
            raise NotNow(f"no host {name[:80]} was known at {clock(self.at)}")
        lines = [f"{name} ({node.host.state.value}, "
                 f"{node.capacity['cpu']:.1f} cores, {len(node.guests)} VMs: "
                 f"{', '.join(sorted(node.guests)) or 'none'}): "
                 + because.figures(node.load)]
        if not fleet.is_known(name, self.round.policy.hot.stale):
            lines.append(f"nothing was heard of it for {fleet.now - node.load['cpu'].last:.0f} s")
        return self.answer(lines)

    def of_nothing(self) -> dict[str, Any]:
        """Explain what was done, or why nothing was."""
        booked = Booked(self.round.fleet)
        return self.answer([self.decision.text, *because.fullest(booked)])

    def why_not(self, name: str, there: str) -> dict[str, Any]:
        """Say what spoke against a host for a VM; raise NotNow."""
        guest, fleet = self.guest(name), self.round.fleet
        if there not in fleet.nodes:
            raise NotNow(f"no host {there[:80]} was known at "
                         f"{clock(self.at)}")
        now = planner.a_round(fleet, self.round.policy, self.round.past,
                              self._prices)
        decision = planner.decide(fleet, self.round.policy, self.round.past,
                                  self._prices)
        found = because.against(now, decision, guest, there)
        return {**found, **self.answer(found["lines"])}
