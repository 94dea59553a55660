# SPDX-License-Identifier: GPL-2.0-or-later
"""What the live map of the page needs, in few bytes: columns, not rows."""

import json
from itertools import islice
from typing import Any, Iterable, Iterator, Mapping

from wsm.controller import draining
from wsm.controller.journal import Entry
from wsm.controller.ledger import Recorded
from wsm.controller.metrics import promises
from wsm.controller.rounds import Controller
from wsm.plan import headway
from wsm.plan.detect import Kind
from wsm.plan.fleet import Guest, Node

LAST = 20                       # decisions
HOT = (Kind.HOST, Kind.SLA, Kind.HEALTH)


def part(value: float, unit: float) -> int:
    """Return how much of @unit that is, in percent; 0 of what is unknown."""
    return round(100 * value / unit) if unit > 0 else 0


def memory(node: Node) -> int:
    """Return how full the memory of a host is, in percent."""
    host = node.host
    return part(host.memory - host.available, host.memory)


def promise(guest: Guest, broken: set[str]) -> str:
    """
    Return how it is with what a VM was promised.

    "broken" if it is a hot spot, "short" if it just has less, "kept", and
    "unknown" if nothing of it was measured.
    """
    if guest.use.name in broken:
        return "broken"
    seen = [kept for _, kept in promises(guest)]
    if not seen:
        return "unknown"
    return "kept" if all(seen) else "short"


def hosts(made: Controller) -> dict[str, list[Any]]:
    """Return hosts by columns."""
    fleet, stale = made.fleet, made.policy.hot.stale
    hot = {spot.host for spot in (made.last.spots if made.last else ())
           if spot.kind in HOT}
    emptied = draining.wanted(made.store)
    table: dict[str, list[Any]] = {name: [] for name in (
        "name", "known", "state", "hot", "drains", "cpu", "memory", "rx",
        "tx", "disk")}
    for name, node in sorted(fleet.nodes.items()):
        cpu, unit = node.load["cpu"], node.capacity["cpu"]
        row = {"name": name, "known": int(fleet.is_known(name, stale)),
               "state": node.host.state.value, "hot": int(name in hot),
               "drains": int(name in emptied), "memory": memory(node),
               "cpu": [part(each, unit) for each in (cpu.now, cpu.peak,
                                                     cpu.forecast)],
               **{each: part(node.load[each].now, node.capacity[each])
                  for each in ("rx", "tx", "disk")}}
        for key, value in row.items():
            table[key].append(value)
    return table


def vms(made: Controller) -> dict[str, list[Any]]:
    """Return VMs by columns; "host" is the number of its row."""
    number = {name: row for row, name in enumerate(sorted(made.fleet.nodes))}
    broken = {spot.victim for spot in (made.last.spots if made.last else ())
              if spot.kind is Kind.SLA}
    found = sorted(made.fleet.guests.values(), key=lambda each: (
        number[each.use.host], each.use.name))
    return {"name": [each.use.name for each in found],
            "host": [number[each.use.host] for each in found],
            "ram": [each.use.memory >> 20 for each in found],
            "sla": [promise(each, broken) for each in found]}


def move(entry: Entry, figures: Mapping[str, Any],
         now: float) -> dict[str, Any]:
    """Return a move that is under way."""
    made = entry.move
    elapsed = max(0.0, now - made.begun)
    how = headway.progress(figures, elapsed, headway.Expected(
        made.expected_bytes, made.expected_seconds))
    sent = headway.done(figures)
    rest = None if how.seconds is None else max(0, round(
        how.seconds - elapsed))
    return {"vm": made.vm, "from": made.source, "to": made.destination,
            "phase": how.phase if figures else "begins", "sent": sent,
            "bytes": max(made.expected_bytes, sent), "why": entry.why,
            "rate": round(how.speed), "percent": how.percent or 0,
            "rest": rest}


def moves(made: Controller) -> list[dict[str, Any]]:
    """Return the moves that are under way."""
    return [move(entry, made.executor.figures.get(entry.move.id, {}),
                 made.clock()) for entry in made.journal.open_entries()]


def told(found: Iterable[Recorded]) -> Iterator[Recorded]:
    """Yield decisions, the newest first; what says the same once only."""
    last = ""
    for each in found:
        said = f"{each.mode} {each.text}"
        if said != last:
            yield each
        last = said


def decisions(made: Controller) -> list[Recorded]:
    """Return the last decisions that differ."""
    return list(islice(told(made.ledger.newest(5 * LAST)), LAST))


def columns(made: Controller) -> str:
    """Return hosts and VMs as JSON, without the brackets around them."""
    return json.dumps({"hosts": hosts(made), "vms": vms(made)},
                      separators=(",", ":"))[1:-1]


def whole(made: Controller, known: str) -> bytes:
    """Return all of it as JSON; @known are the columns of this round."""
    return ("{" + known + "," + json.dumps({
        "round": made.stats.rounds, "now": made.clock(),
        "cluster": made.settings.cluster, "name": made.settings.name,
        "mode": made.mode().value, "paused": made.paused(),
        "waits": round(made.waits()), "problem": made.problem,
        "plan": made.last_id, "moves": moves(made),
        "alarms": [text for _, _, text in made.ledger.alarms()],
        "decisions": [[each.until, each.id, each.mode, each.text]
                      for each in decisions(made)]},
        separators=(",", ":"))[1:]).encode()
