# SPDX-License-Identifier: GPL-2.0-or-later
"""What a controller has done in the last days, and how good it was."""

import statistics
from collections import Counter
from typing import Any

from wsm.plan.past import KEPT
from wsm.controller.journal import Entry
from wsm.controller.rounds import Controller

AGAIN = 3600.0                  # s


def ratio(values: list[tuple[float, float]]) -> dict[str, float]:
    """Return how (real, expected) compare: median, and nine of ten."""
    found = sorted(real / expected for real, expected in values
                   if expected > 0)
    if not found:
        return {}
    return {"median": round(statistics.median(found), 3), "count": len(found),
            "most": round(found[min(len(found) - 1,
                                    int(0.9 * len(found)))], 3)}


def repeats(moved: list[Entry]) -> tuple[int, int]:
    """Return how often a VM moved again within an hour, and came back."""
    again = back = 0
    last: dict[str, list[Entry]] = {}
    for entry in moved:
        trips = last.setdefault(entry.move.vm, [])
        again += bool(trips) and (entry.move.begun - trips[-1].move.ended
                                  < AGAIN)
        back += any(each.move.source == entry.move.destination
                    and entry.move.ended - each.move.ended < KEPT
                    for each in trips)
        trips.append(entry)
    return again, back


def made_of(made: Controller, since: float) -> dict[str, Any]:
    """Return the figures since then."""
    ended = made.journal.ended_since(since)
    moved = [each for each in ended if each.move.result == "moved"]
    again, back = repeats(moved)
    rounds, hot = made.ledger.rounds(since)
    return {
        "since": since, "moves": dict(Counter(each.move.result
                                              for each in ended)),
        "for": dict(Counter(each.spot.split(" ")[0] or "people"
                            for each in moved)),
        "bytes": sum(each.move.bytes for each in ended),
        "seconds": ratio([(each.move.seconds, each.move.expected_seconds)
                          for each in moved]),
        "bytes-ratio": ratio([(each.move.bytes, each.move.expected_bytes)
                              for each in moved]),
        "downtime-ms-most": max((each.move.downtime_ms for each in moved),
                                default=0),
        "again-in-an-hour": again, "back-in-6-hours": back,
        "cooled": sum(each.cooled is True for each in moved),
        "not-cooled": sum(each.cooled is False for each in moved),
        "rounds": rounds, "rounds-with-hot-spots": hot,
        "dropped-samples": dict(made.collector.intake.dropped)}
