# SPDX-License-Identifier: GPL-2.0-or-later
"""What hosts and VMs used lately, for charts: ten minutes, and a day.

It is in memory only: after a start it begins anew.  Where there are very many
VMs only hosts are kept; of VMs there is the last hour then, from the fleet.
"""

import math
from array import array
from typing import Any, Iterator, Mapping

from wsm.plan.fleet import RESOURCES, Fleet
from wsm.plan.series import MINUTE, Series

SHORT, LONG = 10.0, 900.0       # s of a point
POINTS = {SHORT: 60, LONG: 96}
SPANS = {600: SHORT, 86400: LONG}
MOST = 20000                    # VMs that are kept


class Line:
    """Means over equal times; NaN where nothing was measured."""

    __slots__ = ("step", "values", "slot", "_count")

    def __init__(self, step: float) -> None:
        self.step = step
        self.values = array("f")
        self.slot = 0               # of the newest
        self._count = 0             # samples in it

    def add(self, at: float, value: float) -> None:
        """Take a sample."""
        slot, most = int(at // self.step), POINTS[self.step]
        if slot < self.slot:
            return                  # the clock was set back
        if self.values and slot == self.slot:
            self._count += 1
            self.values[-1] += (value - self.values[-1]) / self._count
            return
        if self.values:
            self.values.extend([math.nan] * min(slot - self.slot - 1, most))
        self.values.append(value)
        del self.values[:-most]
        self.slot, self._count = slot, 1

    def until(self, now: float) -> list[float | None]:
        """Return all points, the last of them now's."""
        most = POINTS[self.step]
        late = min(most, max(0, int(now // self.step) - self.slot))
        points: list[float | None] = [None] * (most - len(self.values))
        points += [None if math.isnan(each) else round(each, 4)
                   for each in self.values]
        points += [None] * late
        return points[-most:]


Lines = dict[str, dict[float, Line]]


class Chronicle:
    """Of all hosts and VMs."""

    def __init__(self) -> None:
        self.hosts: dict[str, Lines] = {}
        self.vms: dict[str, Lines] = {}

    def note(self, fleet: Fleet) -> None:
        """Take in a round: what was heard in it."""
        for name in set(self.hosts) - set(fleet.nodes):
            del self.hosts[name]
        for name, node in fleet.nodes.items():
            used = 1 - node.host.available / max(node.host.memory, 1)
            self._add(self.hosts, name, fleet.now, node.load, {
                **{each: node.load[each] for each in RESOURCES},
                "memory": used})
        many = len(fleet.guests) > MOST
        for name in set(self.vms) - (set() if many else set(fleet.guests)):
            del self.vms[name]
        for name, guest in fleet.guests.items() if not many else ():
            load = guest.load
            self._add(self.vms, name, fleet.now, load, {
                "cpu": load["cpu"], "disk": load["disk"],
                "net": sum(load[way].recent(1)[0] for way in ("rx", "tx")
                           if load[way].samples)})

    @staticmethod
    def _add(table: dict[str, Lines], name: str, now: float,
             load: Mapping[str, Series],
             values: Mapping[str, Series | float]) -> None:
        if load["cpu"].last < now:
            return
        lines = table.setdefault(name, {
            each: {step: Line(step) for step in POINTS} for each in values})
        for each, value in values.items():
            if isinstance(value, Series):
                if not value.samples:
                    continue
                value = value.samples[-1]
            for line in lines[each].values():
                line.add(now, value)

    def history(self, fleet: Fleet, kind: str, name: str,
                span: int) -> dict[str, Any]:
        """Return the points of a host ("host") or VM of so many seconds."""
        step = SPANS[span]
        lines = (self.hosts if kind == "host" else self.vms).get(name)
        if lines is not None:
            series = {each: by[step].until(fleet.now)
                      for each, by in lines.items()}
        else:
            step = MINUTE
            series = dict(hour(fleet, kind, name))
        return {"name": name, "until": fleet.now, "step": step,
                "series": series, "most": tops(fleet, kind, name)}


def hour(fleet: Fleet, kind: str, name: str
         ) -> Iterator[tuple[str, list[float | None]]]:
    """Yield what is known of the last hour: the most of each minute."""
    found = (fleet.nodes.get(name) if kind == "host"
             else fleet.guests.get(name))
    load = found.load if found else {}
    for each in sorted({"cpu", "disk"} & set(load)):
        yield each, [round(value, 4) for value in load[each].maxima]


def tops(fleet: Fleet, kind: str, name: str) -> dict[str, float]:
    """Return what can be had of each resource, where that is known."""
    if kind == "host" and name in fleet.nodes:
        return {**fleet.nodes[name].capacity, "memory": 1.0}
    guest = fleet.guests.get(name)
    return {"cpu": float(guest.use.vcpus), "disk": 1.0} if guest else {}
