# SPDX-License-Identifier: GPL-2.0-or-later
"""How much is kept of what decisions were made of.

A large fleet with a hot spot in each round would fill any disk.  So what is kept
is paid from a purse that fills evenly; what is dear is kept more rarely.
"""

import json
import math
import zlib
from typing import Any, Callable, Mapping, Optional

from wsm.plan.decision import Decision
from wsm.plan.fleet import Fleet

DAY = 86400.0                   # s
FLEET, VM = 16e6, 800.0         # bytes in a day for a fleet, and for each VM
MANY = 4000                     # VMs, of which more are not kept without need
QUIET = 300.0                   # s between inputs of rounds without hot spots
OWING = 3600.0                  # s of the purse that may be spent before


def concerned(decision: Decision) -> set[str]:
    """Return the hosts that a decision is about."""
    steps = (*decision.steps, *decision.asked, *decision.later)
    return {spot.host for spot in decision.spots}.union(
        *({step.source, step.to} for step in steps))


def only(found: Mapping[str, Any], hosts: set[str],
         all_hosts: bool) -> dict[str, Any]:
    """Return what kept.record() says of some hosts and their VMs."""
    vms = {vm for name in hosts & set(found["hosts"])
           for vm in found["hosts"][name]["vms"]}
    return {**found, "vms": {name: each for name, each in found["vms"].items()
                             if name in vms},
            "hosts": {name: each for name, each in found["hosts"].items()
                      if all_hosts or name in hosts}}


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
              record: Callable[[], Mapping[str, Any]]) -> Optional[bytes]:
        """
        Return what is kept of that which a decision was made of.

        @record returns all of it, as kept.record().
        """
        rate = (FLEET + VM * len(fleet.guests)) / DAY
        self._purse = min(0.0, self._purse + rate * max(
            0.0, min(now - self._at, DAY)))
        self._at = now
        hosts = concerned(decision)
        rare = (not hosts and now - self._quiet < QUIET
                and size_of(fleet) == self._size)
        if rare or self._purse < (-OWING * rate if decision.steps else 0.0):
            return None
        if not hosts:
            self._quiet = now
        self._size = size_of(fleet)
        made = record()
        if self._purse < 0.0:
            made = only(made, hosts, False)
        elif len(fleet.guests) > MANY:
            made = only(made, hosts, True)
        found = zlib.compress(json.dumps(made).encode())
        self._purse -= len(found)
        return found
