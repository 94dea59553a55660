# SPDX-License-Identifier: GPL-2.0-or-later
"""Tests of tests/crash/flushed.py: the checker must find what is wrong."""

import functools
import random
import unittest

from tests.crash.flushed import Rounds, Verdict, history, judge, summary
from tests.crash.sectors import SECTOR, TORN, VERSION_ROUND, read, sector

SECTORS = (256, 96)
PLAN = Rounds(7, 4, SECTORS, (64, 0), ((0, 256), (8, 80)))
HEARD = 40

Disks = list[bytearray]
known = functools.cache(sector)


def put(disks: Disks, disk: int, number: int, version: int) -> None:
    """Write one sector."""
    disks[disk][number * SECTOR:(number + 1) * SECTOR] = known(
        disk, number, version)


def disks_after(last: int, lost: int = 0) -> Disks:
    """What the guest's disks are after so many rounds; one may be lost."""
    disks = [bytearray(count * SECTOR) for count in SECTORS]
    for number in range(PLAN.filled[0]):
        put(disks, 0, number, 1)
    for number in range(1, last + 1):
        for disk, start, count in PLAN.of(number):
            for place in range(start, start + count if number != lost else 0):
                put(disks, disk, place, VERSION_ROUND + number)
    return disks


def verdict(disks: Disks, heard: int = HEARD) -> Verdict:
    """What the checker says."""
    return judge(PLAN, heard, [bytes(disk) for disk in disks])


class RoundsTest(unittest.TestCase):
    """Disks that are right, and disks that are not."""

    def good(self, disks: Disks, flushed: int, heard: int = HEARD) -> None:
        """Nothing is wrong."""
        said = verdict(disks, heard)
        self.assertEqual((summary(said), said.flushed), ('', flushed))

    def bad(self, disks: Disks, word: str, heard: int = HEARD) -> None:
        """It is found."""
        self.assertIn(word, summary(verdict(disks, heard)))

    def test_content(self) -> None:
        """As in tests/guest/disk.c: pinned, a functional test compares."""
        data = sector(1, 5, 3)
        self.assertEqual(data[:32].hex(),
                         '0300000001' '4d5357' '0500000000000000'
                         + data[16:32].hex())
        self.assertEqual(list(read(1, bytes(5 * SECTOR) + data).versions),
                         [0] * 5 + [3])
        x = (0x57534d0100000003 ^ 5 * 0x9e3779b97f4a7c15) % 2 ** 64 | 1
        for place in range(16, SECTOR, 8):
            x ^= x << 13 & (1 << 64) - 1
            x ^= x >> 7
            x ^= x << 17 & (1 << 64) - 1
            self.assertEqual(data[place:place + 8], x.to_bytes(8, 'little'))

    def test_writes(self) -> None:
        """Of each kind, inside its region, on each disk."""
        seen = set()
        for number in range(1, 200):
            for disk, start, count in PLAN.of(number):
                first, room = PLAN.region(disk)
                self.assertTrue(first <= start
                                and start + count <= first + room)
                seen.add((disk, count))
        self.assertTrue({(disk, count) for disk in (0, 1)
                         for count in range(1, 8)} < seen)
        self.assertGreater(max(count for _, count in seen), 40)

    def test_whole(self) -> None:
        """All rounds are there; more than were heard of, too."""
        self.good(disks_after(HEARD), HEARD)
        self.assertEqual(verdict(disks_after(HEARD + 3)).wrong, [])
        self.good(disks_after(0), 0, heard=0)

    def test_one_more(self) -> None:
        """Of the next round any sector may be there, or not."""
        chance = random.Random(1)
        for _ in range(20):
            disks = disks_after(HEARD)
            for disk, start, count in PLAN.of(HEARD + 1):
                for number in range(start, start + count):
                    if chance.random() < 0.5:
                        put(disks, disk, number, VERSION_ROUND + HEARD + 1)
            self.good(disks, HEARD)

    def test_lost_rounds(self) -> None:
        """Each round that was flushed and is not there is found."""
        shown = 0
        for lost in range(1, HEARD + 1):
            disks = disks_after(HEARD, lost)
            if disks == disks_after(HEARD):
                continue        # all of it was written again
            shown += 1
            self.bad(disks, 'LOST or STALE')
        self.assertGreater(shown, 5)

    def test_the_last_is_lost(self) -> None:
        """It was heard of, and is not there; or only a later one is."""
        self.bad(disks_after(HEARD - 1), 'LOST or STALE')
        self.bad(disks_after(HEARD + 2, HEARD + 1), 'LOST or STALE')

    def test_stale(self) -> None:
        """Old content in one sector."""
        now, old = history(PLAN, HEARD), history(PLAN, HEARD - 10)
        places = [(disk, number) for disk, count in enumerate(SECTORS)
                  for number in range(count)
                  if now[disk][number] != old[disk][number]]
        for disk, number in random.Random(1).sample(places, 20):
            disks = disks_after(HEARD)
            put(disks, disk, number, old[disk][number])
            self.bad(disks, f'disk {disk} sector {number}:')

    def test_others(self) -> None:
        """Zeroes, torn sectors, those of another place, and of no round."""
        number = next(iter(PLAN.of(HEARD)))[1]
        disk = next(iter(PLAN.of(HEARD)))[0]
        for at, data in ((0, bytes(SECTOR)), (SECTOR - 1, b'?'), (300, b'?'),
                         (8, b'?'), (4, b'?'),
                         (0, sector(disk, number + 1, VERSION_ROUND + HEARD)),
                         (0, sector(1 - disk, number, VERSION_ROUND + HEARD))):
            disks = disks_after(HEARD)
            place = number * SECTOR + at
            disks[disk][place:place + len(data)] = data
            self.bad(disks, f'disk {disk} sector {number}:')
        disks = disks_after(HEARD)
        put(disks, 1, 0, VERSION_ROUND + HEARD)         # outside the region
        self.bad(disks, 'disk 1 sector 0: zeroes was flushed')

    def test_zeroes_only(self) -> None:
        """A sector whose first word alone is zero is torn."""
        for place in (8, 15, 16, 100, SECTOR - 1):
            data = bytearray(SECTOR)
            data[place] = 1
            self.assertEqual(read(0, bytes(data)).versions[0], TORN)

    def test_next_elsewhere(self) -> None:
        """Content of the next round where that round does not write."""
        touched = {(disk, number) for disk, start, count in PLAN.of(HEARD + 1)
                   for number in range(start, start + count)}
        number = next(number for number in range(SECTORS[0])
                      if (0, number) not in touched)
        disks = disks_after(HEARD + 1)
        put(disks, 0, number, VERSION_ROUND + HEARD + 1)
        self.bad(disks, f'disk 0 sector {number}:')
