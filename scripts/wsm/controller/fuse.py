# SPDX-License-Identifier: GPL-2.0-or-later
"""When a controller must stop deciding alone: its moves do not help.

All that it looks at is in the journal, so that a new start forgets nothing.
"""

from typing import Iterator, Sequence

from wsm.controller.journal import Entry

BACK = 6 * 3600.0               # s in which moves count
RETURNS = 2                     # of a VM
USELESS = 3                     # moves of one hot spot that did not cool it
FAILED = 0.10                   # part of the moves that have failed,
SOME = 3                        # if so many have failed at least
WAITS = (60.0, 300.0, 1800.0)   # s that a VM stays after 1, 2, 3 failures


def returns(ended: Sequence[Entry]) -> Iterator[str]:
    """Yield each VM that came back twice to hosts it had just left."""
    left: dict[tuple[str, str], float] = {}
    count: dict[str, int] = {}
    for move in (entry.move for entry in ended
                 if entry.move.result == "moved"):
        when = left.get((move.vm, move.destination))
        if when is not None and move.ended - when < BACK:
            count[move.vm] = count.get(move.vm, 0) + 1
        left[move.vm, move.source] = move.ended
    for vm, number in sorted(count.items()):
        if number >= RETURNS:
            yield (f"{vm} came back {number} times within 6 hours to a host "
                   "that it had left")


def useless(ended: Sequence[Entry], now: float) -> Iterator[str]:
    """Yield each hot spot that the last moves for it have not cooled."""
    seen: dict[str, list[bool]] = {}
    for entry in ended:
        if entry.cooled is not None and now - entry.move.ended < BACK:
            seen.setdefault(entry.spot, []).append(entry.cooled)
    for spot, cooled in sorted(seen.items()):
        if len(cooled) >= USELESS and not any(cooled[-USELESS:]):
            yield f"the last {USELESS} moves for '{spot}' have not helped"


def failures(ended: Sequence[Entry], now: float) -> Iterator[str]:
    """Yield if too many moves have failed lately."""
    results = [entry.move.result for entry in ended
               if now - entry.move.ended < BACK
               and entry.move.result != "cancelled"]
    failed = results.count("stayed")
    if failed >= SOME and failed > FAILED * len(results):
        yield f"{failed} of the last {len(results)} moves have failed"


def reasons(ended: Sequence[Entry], now: float) -> list[str]:
    """
    Return why nothing more is to be done without a person; [] if not.

    @ended are the moves of the last hours since a person has looked.
    """
    return [*returns(ended), *useless(ended, now), *failures(ended, now)]


def waits(ended: Sequence[Entry], vm: str) -> float:
    """Return until when a VM whose moves have failed stays, s; 0: it need not."""
    number, last = 0, 0.0
    for move in (entry.move for entry in ended if entry.move.vm == vm):
        number = 0 if move.result == "moved" else number + 1
        last = move.ended
    return last + WAITS[min(number, len(WAITS)) - 1] if number else 0.0
