# SPDX-License-Identifier: GPL-2.0-or-later
"""The disk in a qcow2 image, read without any QEMU: a millisecond each.

For images as the tests make them; whatever else there may be in one is an
error.  Data, tables and what is counted must be where docs/interop/qcow2.rst of
QEMU says, so an image that a power cut has left is looked at as well.
"""

import itertools
import struct
from collections.abc import Iterator
from typing import NamedTuple

from dev.rig.basics import require

HEAD = struct.Struct('>4sIQIIQIIQQIIQQQQII')
MAGIC = b'QFI\xfb'
OFFSET = (1 << 56) - (1 << 9)
COMPRESSED = 1 << 62
ZEROES = 1
REFCOUNT_ORDER = 4          # 16 bits


class Head(NamedTuple):
    """The head of an image."""

    magic: bytes
    version: int
    backing_offset: int
    backing_size: int
    cluster_bits: int
    size: int
    crypt: int
    l1_size: int
    l1_offset: int
    counts_offset: int
    counts_clusters: int
    snapshots: int
    snapshots_offset: int
    incompatible: int
    compatible: int
    autoclear: int
    count_order: int
    length: int


def table(image: bytes, offset: int, entries: int) -> tuple[int, ...]:
    """Numbers of 64 bits; there are zeroes behind the end of a file."""
    data = image[offset:offset + 8 * entries]
    return struct.unpack(f'>{entries}Q', data.ljust(8 * entries, b'\0'))


class Qcow2:
    """One image."""

    def __init__(self, image: bytes) -> None:
        require(len(image) >= HEAD.size, 'no qcow2 image: too short')
        self.image = image
        self.head = head = Head(*HEAD.unpack_from(image))
        require(head.magic == MAGIC and head.version == 3
                and head.count_order == REFCOUNT_ORDER,
                f'no qcow2 image of ours: {head}')
        require(not (head.backing_offset or head.crypt or head.snapshots
                     or head.incompatible), f'it has features: {head}')
        self.cluster = 1 << head.cluster_bits
        self.used: list[int] = []       # offsets of clusters

    def mapped(self) -> Iterator[int]:
        """Of each cluster of the disk the entry in the tables, or 0."""
        entries, left = self.cluster // 8, -(-self.head.size // self.cluster)
        for entry in table(self.image, self.head.l1_offset, self.head.l1_size):
            count = min(left, entries)
            left -= count
            if entry & OFFSET:
                self.used.append(entry & OFFSET)
                yield from table(self.image, entry & OFFSET, count)
            else:
                yield from itertools.repeat(0, count)

    def disk(self) -> bytes:
        """What the guest sees; fails if the image is damaged."""
        image, zeroes = memoryview(self.image), bytes(self.cluster)
        parts: list[bytes | memoryview] = []
        for found in self.mapped():
            require(not found & COMPRESSED, f'compressed: {found:x}')
            place = found & OFFSET
            if place:
                self.used.append(place)
            data = image[place:place + self.cluster]
            if not place or found & ZEROES:
                parts.append(zeroes)
            elif len(data) == self.cluster:
                parts.append(data)
            else:               # there are zeroes behind the end of a file
                parts.append(bytes(data).ljust(self.cluster, b'\0'))
        self._check(self.used)
        return b''.join(parts)[:self.head.size]

    def _check(self, used: list[int]) -> None:
        """Nothing is used twice, or used and free; more is a leak, and legal."""
        require(len(set(used)) == len(used), 'clusters are used twice')
        free = [place for place in used if not self._count(place)]
        require(not free, f'clusters are used and free: {free}')

    def _count(self, place: int) -> int:
        """How often a cluster is used, by the counts."""
        number, entries = place // self.cluster, self.cluster // 2
        block = table(self.image, self.head.counts_offset
                      + 8 * (number // entries), 1)[0]
        at = block + 2 * (number % entries)
        return int.from_bytes(self.image[at:at + 2]) if block else 0
