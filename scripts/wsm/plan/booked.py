# SPDX-License-Identifier: GPL-2.0-or-later
"""A fleet as it will be when all moves have ended, and is until then.

A VM in flight counts at both ends: it still runs here, and it has its place
there.  The planner adds what it decides, one move after the other.
"""

import dataclasses
import math
from collections import defaultdict
from typing import Iterator, Sequence

from wsm.plan.filters import Wish
from wsm.plan.fleet import RESOURCES, Fleet, Flight, Guest, Node
from wsm.plan.inventory import Host

HONEST = 1.25                   # times what a host says its VMs may use,
LEAST = 0.05                    # and this part of the host
NOTHING = (0.0,) * len(RESOURCES)


def peaks_of(guest: Guest) -> Sequence[float]:
    """Return the peaks of the last hour of a VM."""
    return [guest.load[each].peak for each in RESOURCES]


class Booked:
    """Of @fleet, which is not changed."""

    def __init__(self, fleet: Fleet) -> None:
        self.fleet = fleet
        self.flying: set[str] = set()
        self._out: dict[str, list[Flight]] = defaultdict(list)
        self._into: dict[str, list[Flight]] = defaultdict(list)
        self._hosts: dict[str, Host] = {}
        self._peaks: dict[str, Sequence[float]] = {}
        for flight in fleet.flights.values():
            self.fly(flight)

    def fly(self, flight: Flight) -> None:
        """Count a move."""
        self.flying.add(flight.vm)
        self._out[flight.source].append(flight)
        self._into[flight.to].append(flight)
        self._peaks.pop(flight.to, None)
        for host in (flight.source, flight.to):
            self._hosts.pop(host, None)

    def land(self, flight: Flight) -> None:
        """Count a move no more; it has not begun."""
        self.flying.discard(flight.vm)
        self._out[flight.source].remove(flight)
        self._into[flight.to].remove(flight)
        self._peaks.pop(flight.to, None)
        for host in (flight.source, flight.to):
            self._hosts.pop(host, None)

    def where(self, vm: str) -> tuple[str, ...]:
        """Return the hosts at which a VM counts; the last is its own then."""
        guest = self.fleet.guests.get(vm)
        if guest is None:
            return ()
        here = guest.use.host
        if vm not in self.flying:
            return (here,)
        return (here, next(each.to for each in self._out[here]
                           if each.vm == vm))

    def leaving(self, host: str) -> list[Flight]:
        """Return the moves out of a host."""
        return self._out.get(host, [])

    def coming(self, host: str) -> list[Flight]:
        """Return the moves into a host."""
        return self._into.get(host, [])

    def _guests(self, flights: list[Flight]) -> Iterator[Guest]:
        return (self.fleet.guests[each.vm] for each in flights)

    def relieved(self, host: str, resource: str) -> float:
        """Return what of a resource is used now, less what is leaving."""
        return self.fleet.nodes[host].load[resource].now - math.fsum(
            guest.load[resource].now
            for guest in self._guests(self.leaving(host)))

    def peaks(self, host: str) -> Sequence[float]:
        """Return the peaks of the last hour, with all that is coming."""
        found = self._peaks.get(host)
        if found is None:
            load = self.fleet.nodes[host].load
            coming = [guest.load for guest in self._guests(self.coming(host))]
            found = [load[each].peak + math.fsum(one[each].peak
                                                 for one in coming)
                     for each in RESOURCES]
            self._peaks[host] = found
        return found

    def peak(self, host: str, resource: str) -> float:
        """Return the peak of one resource."""
        return self.peaks(host)[RESOURCES.index(resource)]

    def fullest(self, host: str, add: Sequence[float] = NOTHING) -> float:
        """
        Return how full a host may become: the fullest of its resources.

        @add are the peaks of a VM that comes.
        """
        most, units = 0.0, self.fleet.nodes[host].capacity
        for each, peak, plus in zip(RESOURCES, self.peaks(host), add):
            if unit := units[each]:
                most = max(most, (peak + plus) / unit)
        return most

    def is_honest(self, name: str) -> bool:
        """Whether a host says no less than its VMs use together."""
        node = self.fleet.nodes[name]
        told = node.load["cpu"].now
        used = math.fsum(self.fleet.guests[vm].load["cpu"].now
                         for vm in node.guests)
        return used <= HONEST * told + LEAST * node.capacity["cpu"]

    def host(self, name: str) -> Host:
        """Return a host as filters want it: as it is, with what is coming."""
        if name not in self._hosts:
            node: Node = self.fleet.nodes[name]
            coming = list(self._guests(self.coming(name)))
            self._hosts[name] = dataclasses.replace(
                node.host, moves_in=len(coming),
                moves_out=len(self.leaving(name)),
                demand=node.load["cpu"].now + math.fsum(
                    guest.load["cpu"].now for guest in coming),
                available=node.host.available - sum(guest.use.memory
                                                    for guest in coming))
        return self._hosts[name]

    def wish(self, guest: Guest) -> Wish:
        """Return a VM as filters want it."""
        return Wish(dataclasses.replace(guest.use,
                                        demand=guest.load["cpu"].now),
                    guest.spec, self.fleet.nodes[guest.use.host].host,
                    guest.needs)
