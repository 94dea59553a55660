# SPDX-License-Identifier: GPL-2.0-or-later
"""How far a move is, and how long it takes in all."""

import math
from dataclasses import dataclass
from typing import Any, Mapping, Optional

END_SHARE = 0.4                 # of what passes with nothing sent: at the end
LATE = ("freeze", "postcopy", "completed")      # from the handover on
NUMBERS = frozenset((
    "speed", "remaining", "expected-seconds", "downtime-ms", "sent", "dirty",
    "compared", "transferred", "dirty-sync-count", "dirty-pages-rate",
    "page-size", "rate", "grant", "ms", "id", "reconnects"))
TEXTS = frozenset(("name", "phase"))
TABLES = ("ram", "limits")
LISTS: Mapping[str, Mapping[str, Any]] = {
    "disks": {"name": "", "sent": 0}, "phases": {"phase": "", "ms": 0},
    "channels": {"id": 0, "reconnects": 0}}
MOST = 1 << 64


@dataclass(frozen=True)
class Expected:
    """What was said before it began; 0: nothing."""

    bytes: int = 0
    seconds: float = 0.0
    start: float = 0.0          # of them, in which nothing is sent

    @property
    def rate(self) -> float:
        """Bytes per second while something is sent."""
        return self.bytes / max(self.seconds - self.start, 0.1)


@dataclass(frozen=True)
class Progress:
    """How far it is now."""

    phase: str
    percent: Optional[int]
    speed: float                # bytes/s
    left: Optional[int]         # bytes
    seconds: Optional[float]    # from the begin to the end; None: unknown


def can_be(name: str, value: Any) -> bool:
    """Return whether a figure is of its type, if that matters."""
    if name in NUMBERS:
        return (isinstance(value, (int, float)) and 0 <= value < MOST
                and not isinstance(value, bool))
    return isinstance(value, str) or name not in TEXTS


def good(found: Any, but: Mapping[str, Any]) -> dict[str, Any]:
    """Return a table, over @but, without what cannot be."""
    told = found if isinstance(found, Mapping) else {}
    return {**but, **{name: value for name, value in told.items()
                      if can_be(name, value)}}


def figures_of(found: Any) -> dict[str, Any]:
    """
    Return what an agent says of a move, without what cannot be.

    It is shown and reckoned with: no move and no round must end by it.
    """
    made = good(found, {})
    for name in made.keys() & set(TABLES):
        made[name] = good(made[name], {})
    for name in made.keys() & LISTS.keys():
        each = made[name] if isinstance(made[name], list) else []
        made[name] = [good(one, LISTS[name]) for one in each]
    return made


def done(figures: Mapping[str, Any]) -> int:
    """Return the bytes that were sent."""
    return int(figures.get("ram", {}).get("transferred", 0)) + sum(
        int(disk.get("sent", 0)) for disk in figures.get("disks", []))


def is_known(figures: Mapping[str, Any]) -> bool:
    """
    Return whether QEMU knows what is left.

    Before it has looked twice at memory it takes for used what may be zeroes.
    """
    return figures.get("phase") in LATE or int(
        figures.get("ram", {}).get("dirty-sync-count", 0)) > 1


def compares(figures: Mapping[str, Any]) -> bool:
    """Return whether time goes by without much being sent."""
    return figures.get("phase") == "disk-precopy" and any(
        disk.get("compared") for disk in figures.get("disks", []))


def progress(figures: Mapping[str, Any], elapsed: float,
             expected: Expected) -> Progress:
    """Return how far a move is, by query-wsm and what was expected."""
    sent, phase = done(figures), str(figures.get("phase", "none"))
    speed = float(figures.get("speed", 0))
    left = int(figures.get("remaining", 0))
    guess = figures.get("expected-seconds")
    seconds = None if guess is None else float(guess)
    if phase == "completed":
        left, seconds = 0, 0.0
    elif expected.bytes > sent and not is_known(figures):
        left = expected.bytes - sent
        seconds = left / (speed or expected.rate)
        if compares(figures) or not sent:
            seconds = max(seconds, expected.seconds - elapsed
                          - END_SHARE * expected.start)
    total = None if seconds is None or not math.isfinite(seconds) else (
        elapsed + seconds + END_SHARE * expected.start)
    if not sent and not left:
        return Progress(phase, None, speed, None, total)
    return Progress(phase, 100 if phase == "completed" else min(
        99, 100 * sent // (sent + left)), speed, left, total)
