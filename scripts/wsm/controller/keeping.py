# SPDX-License-Identifier: GPL-2.0-or-later
"""How much is kept of what decisions were made of.

A large fleet with a hot spot in each round would fill any disk.  So what is kept
is paid from a purse that fills evenly; what is dear is kept more rarely.
"""

import json
import math
import zlib
from typing import Any, Callable, Container, Mapping, Optional

from wsm.plan.decision import Decision
from wsm.plan.fleet import Fleet

DAY = 86400.0                   # s
FLEET, VM = 12e6, 800.0         # bytes in a day for a fleet, and for each VM
MANY = 4000                     # VMs, of which more are not kept without need
QUIET = 300.0                   # s between inputs of rounds without hot spots
OWING = 3600.0                  # s of the purse that may be spent before


# Hosts and VMs that are wanted (None: all); what there is of them
Record = Callable[[Optional[Container[str]], Optional[Container[str]]],
                  Mapping[str, Any]]


def concerned(fleet: Fleet, decision: Decision) -> set[str]:
    """Return the hosts that a decision is about."""
    steps = (*decision.steps, *decision.asked, *decision.later)
    return {spot.host for spot in decision.spots}.union(
        *({step.source, step.to} for step in steps)) & set(fleet.nodes)


def size_of(fleet: Fleet) -> int:
    """Return a number that is another with about a tenth more VMs."""
    return round(math.log(1 + len(fleet.guests), 1.1))


class Keeper:
    """Decides what is kept of each round."""

    def __init__(self) -> None:
        self._purse = 0.0       # bytes; less than none: owed
        self._at = float("-inf")
        self._quiet = float("-inf")     # when that of a quiet round was kept
        self._size = 0                  # of the fleet then

    def is_due(self, now: float, fleet: Fleet) -> bool:
        """Whether it is time to keep something, whatever was decided."""
        return (now - self._quiet >= QUIET and self._purse >= 0.0
                or size_of(fleet) != self._size)

    def input(self, now: float, fleet: Fleet, decision: Decision,
              record: Record) -> Optional[bytes]:
        """
        Return what is kept of that which a decision was made of.

        @record is kept.record() of the round.
        """
        rate = (FLEET + VM * len(fleet.guests)) / DAY
        self._purse = min(0.0, self._purse + rate * max(
            0.0, min(now - self._at, DAY)))
        self._at = now
        hosts = concerned(fleet, decision)
        rare = (not hosts and now - self._quiet < QUIET
                and size_of(fleet) == self._size)
        if rare or self._purse < (-OWING * rate if decision.steps else 0.0):
            return None
        if not hosts:
            self._quiet = now
        self._size = size_of(fleet)
        owes, many = self._purse < 0.0, len(fleet.guests) > MANY
        # What is not kept is not made: that of 100,000 VMs takes long
        made = record(hosts if owes else None, {
            vm for name in hosts for vm in fleet.nodes[name].guests
            } if owes or many else None)
        found = zlib.compress(json.dumps(made).encode())
        self._purse -= len(found)
        return found
