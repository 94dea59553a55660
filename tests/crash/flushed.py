# SPDX-License-Identifier: GPL-2.0-or-later
"""Do disks have what the test guest has flushed?  See tests/guest/rounds.h.

The guest writes in rounds.  When round r + 1 begins, round r is flushed; so a
crash may leave what round r + 1 writes or what was there before it, in each
sector, and all else must be as it was after round r.
"""

import functools
from array import array
from collections import Counter
from dataclasses import dataclass
from typing import Iterable, Iterator, Optional

from tests.crash.sectors import MASK, TORN, VERSION_ROUND, Found, read

BLOCK = 8               # sectors
MAX_COUNT = 64
SHOWN = 5
STRETCH = 128           # sectors that are compared at once

Write = tuple[int, int, int]                    # disk, sector, count


@dataclass(frozen=True)
class Rounds:
    """What the guest was told to do."""

    seed: int
    writes: int                                 # in each round
    sectors: tuple[int, ...]                    # of each disk
    filled: tuple[int, ...] = ()                # written once, from 0 on
    regions: tuple[tuple[int, int], ...] = ()   # or the whole disks

    def region(self, disk: int) -> tuple[int, int]:
        """Where rounds write: the first sector, and how many."""
        return (self.regions[disk] if self.regions
                else (0, self.sectors[disk]))

    def of(self, number: int) -> Iterator[Write]:
        """What a round writes."""
        base = mix(mix(self.seed) + number)
        for place in range(self.writes):
            yield self._write(mix(base + place))

    def _write(self, dice: int) -> Write:
        disk = dice % len(self.sectors)
        start, room = self.region(disk)
        kind, count = dice >> 8 & 7, dice >> 11 & MAX_COUNT - 1
        place = (dice >> 17) % room
        if kind < 4:
            count, place = BLOCK, place // BLOCK * BLOCK
        elif kind < 6:
            count = 1 + count % (BLOCK - 1)
        else:
            count += 1
        return disk, start + place, min(count, room - place)


def mix(x: int) -> int:
    x &= MASK
    x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9 & MASK
    x = (x ^ x >> 27) * 0x94d049bb133111eb & MASK
    return x ^ x >> 31


def name(version: int) -> str:
    """A version, for people."""
    if version > VERSION_ROUND:
        return f'round {version - VERSION_ROUND}'
    return f'version {version}' if version else 'zeroes'


@functools.lru_cache(maxsize=8)
def history(plan: Rounds, last: int) -> list['array[int]']:
    """The version of each sector of each disk after a round; not to change."""
    disks = [array('q', bytes(8 * sectors)) for sectors in plan.sectors]
    for disk, count in zip(disks, plan.filled):
        disk[:count] = array('q', [1]) * count
    for number in range(1, last + 1):
        for disk_number, start, count in plan.of(number):
            disks[disk_number][start:start + count] = array(
                'q', [VERSION_ROUND + number]) * count
    return disks


@dataclass(frozen=True)
class Verdict:
    """What was found."""

    flushed: int                # rounds
    begun: bool                 # something is there of one more
    wrong: list[str]            # sectors


def newest(found: Iterable[Found]) -> int:
    """The last round of which anything is there."""
    return max(0, max(max(disk.versions) for disk in found) - VERSION_ROUND)


def problem(found: Found, number: int, before: int,
            after: Optional[int]) -> str:
    """What is wrong with a sector, or ''."""
    got = found.versions[number]
    if got in (before, after):
        return ''
    said = found.torn[number] if got == TORN else name(got)
    kind = ('neither' if got == TORN else
            'LOST or STALE' if got < before else 'too new')
    return f'sector {number}: {name(before)} was flushed, it has {said}: {kind}'


def judge(plan: Rounds, heard: int, disks: list[bytes]) -> Verdict:
    """Compare disks with what the guest has flushed.

    @heard is the last round that was heard of.  If more of them have left
    something, all but the last of these had been flushed, too.
    """
    return judge_found(plan, heard, look(disks))


def look(disks: list[bytes]) -> list[Found]:
    """What is on all disks."""
    return [read(number, data) for number, data in enumerate(disks)]


def judge_found(plan: Rounds, heard: int, found: list[Found]) -> Verdict:
    """The same, of what was found on the disks."""
    last = newest(found)
    flushed = max(heard, last - 1)
    before = history(plan, flushed)
    touched: list[set[int]] = [set() for _ in found]
    for disk, start, count in plan.of(flushed + 1):
        touched[disk].update(range(start, start + count))
    wrong = []
    for number, disk_found in enumerate(found):
        if len(disk_found.versions) != len(before[number]):
            wrong.append(f'disk {number} has {len(disk_found.versions)} '
                         f'sectors, not {len(before[number])}: size')
        for sector in differing(disk_found.versions, before[number]):
            after = (VERSION_ROUND + flushed + 1
                     if sector in touched[number] else None)
            text = problem(disk_found, sector, before[number][sector], after)
            wrong += [f'disk {number} {text}'] * bool(text)
    return Verdict(flushed, last > flushed, wrong)


def differing(some: 'array[int]', others: 'array[int]') -> Iterator[int]:
    """The places of numbers that are not the same."""
    size = min(len(some), len(others))
    for start in range(0, size, STRETCH):
        stretch = slice(start, start + STRETCH)
        if some[stretch] != others[stretch]:
            yield from (number for number in range(*stretch.indices(size))
                        if some[number] != others[number])


def summary(verdict: Verdict) -> str:
    """What is wrong, for people; '' if nothing is."""
    if not verdict.wrong:
        return ''
    kinds = Counter(line.rsplit(': ', 1)[1] for line in verdict.wrong)
    return (f'{len(verdict.wrong)} sectors are wrong after '
            f'{verdict.flushed} rounds ({dict(kinds)}):\n'
            + '\n'.join(verdict.wrong[:SHOWN]))
