# SPDX-License-Identifier: GPL-2.0-or-later
"""What hosts and VMs used lately, for charts: ten minutes, and a day.

Where there are very many VMs only hosts are kept; of VMs there is the last hour
then, from the fleet.  What a chart of a day needs is in the store, too, a row for
each point of it, so that it outlives a restart.
"""

import contextlib
import json
import math
import zlib
from array import array
from typing import Any, Container, Iterator, Mapping

from wsm.controller.store import Store
from wsm.plan.fleet import RESOURCES, Fleet
from wsm.plan.series import MINUTE, Series

SHORT, LONG = 10.0, 900.0       # s of a point
POINTS = {SHORT: 60, LONG: 96}
SPANS = {600: SHORT, 86400: LONG}
MOST = 20000                    # VMs that are kept
OFTEN = 300.0                   # s between words to the store
BIG = 64 << 20                  # bytes of a point of all
KEEP = ("INSERT INTO charts VALUES (?, ?) ON CONFLICT (slot) "
        "DO UPDATE SET data = excluded.data")


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

    def at(self, slot: int) -> float | None:
        """Return the mean over one of the times, if it is the newest."""
        return (round(self.values[-1], 4) if self.values and slot == self.slot
                else None)

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


def empty() -> dict[float, Line]:
    """Return lines without a point."""
    return {step: Line(step) for step in POINTS}


class Chronicle:
    """Of all hosts and VMs."""

    def __init__(self) -> None:
        self.hosts: dict[str, Lines] = {}
        self.vms: dict[str, Lines] = {}
        self._slot = 0              # that is being written,
        self._written = -math.inf   # and when it was

    def note(self, fleet: Fleet) -> None:
        """Take in a round: what was heard in it."""
        forget(self.hosts, fleet.nodes, fleet.now)
        for name, node in fleet.nodes.items():
            used = 1 - node.host.available / max(node.host.memory, 1)
            self._add(self.hosts, name, fleet.now, node.load, {
                **{each: node.load[each] for each in RESOURCES},
                "memory": used})
        many = len(fleet.guests) > MOST
        if many:
            self.vms = {}
        forget(self.vms, fleet.guests, fleet.now)
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
        lines = table.setdefault(name, {})
        for each, value in values.items():
            if isinstance(value, Series):
                if not value.samples:
                    continue
                value = value.samples[-1]
            for line in lines.setdefault(each, empty()).values():
                line.add(now, value)

    # What outlives a restart

    def load(self, store: Store, now: float) -> None:
        """Take in what a store has of the last day; raise StoreGone."""
        self.hosts, self.vms = {}, {}
        self._slot, self._written = int(now // LONG), now
        for slot, data in store.read(
                "SELECT slot, data FROM charts WHERE slot > ? AND slot <= ? "
                "ORDER BY slot", self._slot - POINTS[LONG], self._slot):
            with contextlib.suppress(ValueError, zlib.error, TypeError,
                                     AttributeError):   # it was damaged
                found = json.loads(zlib.decompressobj().decompress(
                    bytes(data), BIG))
                for table, kind in ((self.hosts, "hosts"), (self.vms, "vms")):
                    for name, values in found[kind].items():
                        lines = table.setdefault(name, {})
                        for each, value in values.items():
                            lines.setdefault(each, empty())[LONG].add(
                                slot * LONG, float(value))

    def save(self, store: Store, now: float, due: bool = False) -> None:
        """Write the newest point, if it is time; raise StoreGone, Deposed."""
        slot = int(now // LONG)
        if not (due or slot != self._slot or now - self._written >= OFTEN):
            return
        with store.write() as database:
            for each in sorted({self._slot, slot}):
                database.execute(KEEP, (each, self.packed(each)))
            database.execute("DELETE FROM charts WHERE slot <= ?",
                             (slot - POINTS[LONG],))
        self._slot, self._written = slot, now

    def packed(self, slot: int) -> bytes:
        """Return a point of all lines."""
        return zlib.compress(json.dumps({kind: {
            name: {each: value for each, by in lines.items()
                   if (value := by[LONG].at(slot)) is not None}
            for name, lines in table.items()} for kind, table in (
                ("hosts", self.hosts), ("vms", self.vms))}).encode())

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


def forget(table: dict[str, Lines], known: Container[str],
           now: float) -> None:
    """Forget what was not seen for a day; not at once: it may be known soon."""
    oldest = int(now // LONG) - POINTS[LONG]
    for name in [name for name, lines in table.items() if name not in known
                 and all(by[LONG].slot < oldest for by in lines.values())]:
        del table[name]


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
