# SPDX-License-Identifier: GPL-2.0-or-later
"""What the test guest writes into a sector: the same as tests/guest/disk.c.

A sector says which disk, sector and version it is; the rest is noise that
follows from these.  So whatever is found on a disk can be named.
"""

import functools
import struct
from array import array
from dataclasses import dataclass
from typing import Iterator

SECTOR = 512
PART = 16 * SECTOR      # of a disk, what is looked at at once
WORDS = SECTOR // 8
MASK = (1 << 64) - 1
MAGIC = 0x57534d << 40
GOLDEN = 0x9e3779b97f4a7c15
VERSION_ROUND = 1 << 28
TORN = -1               # no version


def seed_of(first: int, number: int) -> int:
    return ((first ^ number * GOLDEN) & MASK | 1) if first else 0


def lanes(value: int, count: int) -> int:
    """The same 64 bits, so many times beside each other."""
    return int.from_bytes(value.to_bytes(8, 'little') * count, 'little')


def noise(seeds: 'array[int]') -> Iterator[bytes]:
    """Words 2 to 63 of many sectors at once: of each word, that of all."""
    count = len(seeds)
    left, right, last = (lanes(value & MASK, count) for value in
                         (MASK << 13, MASK >> 7, MASK << 17))
    x = int.from_bytes(seeds.tobytes(), 'little')
    for _ in range(2, WORDS):
        x ^= x << 13 & left
        x ^= x >> 7 & right
        x ^= x << 17 & last
        yield x.to_bytes(8 * count, 'little')


def sector(disk: int, number: int, version: int) -> bytes:
    """The content of one sector; version 0 is zeroes."""
    if not version:
        return bytes(SECTOR)
    first = version | disk << 32 | MAGIC
    rest = noise(array('Q', [seed_of(first, number)]))
    return struct.pack('<QQ', first, number) + b''.join(rest)


@dataclass(frozen=True)
class Found:
    """What is on a disk."""

    versions: 'array[int]'        # of each sector, or TORN
    torn: dict[int, str]        # what those have instead


def version_of(disk: int, number: int, first: int, second: int) -> int:
    """The version that the first two words of a sector are of."""
    if not first:
        return TORN if second else 0
    right = (first >> 32 == MAGIC >> 32 | disk and second == number
             and first & 0xffffffff)
    return first & 0xffffffff if right else TORN


def read_part(disk: int, first: int, data: bytes | memoryview) -> Found:
    """Look at some sectors of a disk, from the first on."""
    words = memoryview(data).cast('Q')
    firsts = array('Q', words[0::WORDS].tobytes())
    seconds = array('Q', words[1::WORDS].tobytes())
    numbers = range(first, first + len(firsts))
    versions = array('q', map(version_of, [disk] * len(firsts), numbers,
                              firsts, seconds))
    seeds = array('Q', map(seed_of, firsts, numbers))
    for place, wanted in enumerate(noise(seeds), 2):
        got = words[place::WORDS].tobytes()
        if got != wanted:
            for number in range(len(firsts)):
                at = slice(8 * number, 8 * number + 8)
                if got[at] != wanted[at]:
                    versions[number] = TORN
    return Found(versions, {
        first + number: f'{firsts[number]:016x} {seconds[number]:016x}'
        for number, version in enumerate(versions) if version == TORN})


# Who looks at a disk again and again finds most of it as it was
known_part = functools.lru_cache(maxsize=1 << 15)(read_part)


def read(disk: int, data: bytes) -> Found:
    """Look at each sector of a disk."""
    found = Found(array('q'), {})
    for at in range(0, len(data), PART):
        part = known_part(disk, at // SECTOR, data[at:at + PART])
        found.versions.extend(part.versions)
        found.torn.update(part.torn)
    return found
