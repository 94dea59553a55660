# SPDX-License-Identifier: GPL-2.0-or-later
"""What the map of missing blocks beside an image says, see docs/records.md.

Written from the document alone, so that map and document are held against each
other.  Only records' sums are checked: all else is whole.
"""

import shutil
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from dev.rig.basics import require, run, tool
from dev.rig.image import Image
from wsm.missing_map import crc32c

PAGE = 4096
MAGIC = bytes.fromhex('57534d4d41500a1a')
RECORD = '>4sIQQ16sII'
RECORD_HEAD = struct.calcsize(RECORD)


def map_path(image: Image) -> Path:
    return image.path.with_name(image.path.name + '.wsm.map')


def numbers(data: bytes) -> Iterator[int]:
    """Unsigned LEB128."""
    value = shift = 0
    for byte in data:
        value |= (byte & 0x7f) << shift
        shift += 7
        if not byte & 0x80:
            yield value
            value = shift = 0


def runs(data: bytes) -> Iterator[range]:
    """Runs of blocks."""
    pairs = numbers(data)
    end = 0
    for gap, count in zip(pairs, pairs, strict=True):
        first = end + gap
        end = first + count
        yield range(first, end)


def blocks(data: bytes) -> set[int]:
    return {block for run_ in runs(data) for block in run_}


def up(size: int) -> int:
    return -(-size // PAGE) * PAGE


@dataclass(frozen=True)
class Map:
    """A map that counts."""

    granularity: int
    missing: frozenset[int]             # blocks
    records: int


def head_of(data: bytes) -> bytes:
    """Return the head that counts."""
    heads = [data[at:at + PAGE] for at in (0, PAGE)
             if data[at:at + len(MAGIC)] == MAGIC]
    require(bool(heads), 'the map is not committed')
    return max(heads, key=lambda head: head[16:24])


@dataclass(frozen=True)
class Layout:
    """Where what counts is in a map."""

    generation: int
    session: bytes
    snapshot: slice
    records: list[slice]                # with their heads
    end: int                            # where the next record goes
    area_end: int

    @property
    def head(self) -> slice:
        at = self.generation % 2 * PAGE
        return slice(at, at + PAGE)


def has_sum(record: bytes) -> bool:
    """Is it whole, as far as its sum tells?"""
    return (int.from_bytes(record[4:8], 'big')
            == crc32c(record[:4] + bytes(4) + record[8:]))


def layout(data: bytes) -> Layout:
    """Find the parts of a map that counts."""
    head = head_of(data)
    generation, session = struct.unpack_from('>Q16s', head, 16)
    length, = struct.unpack_from('>I', head, 52)
    area, room = struct.unpack_from('>QQ', head, 64)
    at = area + max(up(length), PAGE)
    records: list[slice] = []
    while at < area + room:
        magic, _, whose, number, _, size, _ = struct.unpack_from(
            RECORD, data, at)
        end = at + RECORD_HEAD + size
        if (magic != b'WSMR' or whose != generation
                or number != len(records) + 1
                or not has_sum(data[at:end])):
            break
        records.append(slice(at, end))
        at += up(RECORD_HEAD + size)
    return Layout(generation, session, slice(area, area + length), records, at,
                  area + room)


def read_map(path: Path) -> Map:
    return parse_map(path.read_bytes())


def parse_map(data: bytes) -> Map:
    """What a map says."""
    flags, granularity = struct.unpack_from('>HI', head_of(data), 46)
    require(not flags, 'the map is void')
    found = layout(data)
    listed = data[found.snapshot]
    missing = blocks(listed)
    require(bool(missing) or not listed, 'a list of nothing')
    for each in found.records:
        missing -= blocks(data[each.start + RECORD_HEAD:each.stop])
    return Map(granularity, frozenset(missing), len(found.records))


def as_raw(image: Path, fmt: str, raw: Path) -> None:
    run(tool('qemu-img'), 'convert', '-U', '-f', fmt, '-O', 'raw', str(image),
        str(raw))


def filled(found: Map, ours: bytes, theirs: bytes) -> bytes:
    """The disk of the destination, with what it misses from the source's."""
    disk = bytearray(ours)
    for block in found.missing:
        place = slice(block * found.granularity,
                      (block + 1) * found.granularity)
        disk[place] = theirs[place]
    return bytes(disk)


def merged(found: Map, image: Path, source: Image, raw: Path) -> Image:
    """Make the disk that a crash of the destination has left.

    IMAGE is a copy of the destination's, in the format of the source's.
    """
    as_raw(image, source.fmt, raw)
    theirs = raw.with_suffix('.source')
    as_raw(source.path, source.fmt, theirs)
    raw.write_bytes(filled(found, raw.read_bytes(), theirs.read_bytes()))
    theirs.unlink()
    return Image(raw, 'raw', source.size)


def crash_copy_of(image: Image, folder: Path) -> Path:
    """Copy an image, as it is, for who was stopped."""
    copy = folder / f'crash-{image.path.name}'
    shutil.copyfile(image.path, copy)
    return copy


def crash_copy(image: Image, folder: Path) -> tuple[Path, Path]:
    """Copy an image and its map, likewise."""
    copy = folder / 'crash.map'
    shutil.copyfile(map_path(image), copy)
    return crash_copy_of(image, folder), copy
