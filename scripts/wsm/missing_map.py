# SPDX-License-Identifier: GPL-2.0-or-later
"""Read IMAGE.wsm.map: which blocks of an image are still at the source.

As migration/wsm/map/load.c does, see docs/records.md.  What is not good is
never taken for "nothing is missing".
"""

import stat
import struct
import uuid
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, Iterator, Optional

from wsm.record import BadRecord, numbers

PAGE = 4096
MAGIC = b"WSMMAP\n\x1a"
VERSION = 1
VOID = 1
HEAD = struct.Struct(">8sIIQ16sHHHHIIQQQIIQ16sHHI")
TEXTS = struct.Struct(">H512sH512s")
TEXTS_AT = 160
RECORD_MAGIC = b"WSMR"
RECORD = struct.Struct(">4sIQQ16sII")
FILE_BYTES = 4 << 20                            # of one that QEMU has made
BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
CRC_AT = {MAGIC: 12, RECORD_MAGIC: 4}

Run = tuple[int, int]                           # offset and bytes, or blocks


class BadMap(Exception):
    """A map that must not be used; the text says why."""


class Void(BadMap):
    """QEMU could not keep it up."""


class Other(BadMap):
    """It is of another migration."""


class Uncommitted(Exception):
    """The guest has not run here; the text says so."""


def crc_table() -> list[int]:
    """Return what CRC-32C adds for each byte."""
    table = []
    for value in range(256):
        for _ in range(8):
            value = value >> 1 ^ (0x82f63b78 if value & 1 else 0)
        table.append(value)
    return table


CRC_TABLE = crc_table()


def crc32c(data: bytes) -> int:
    """Return the CRC-32C of @data."""
    crc = 0xffffffff
    for byte in data:
        crc = CRC_TABLE[(crc ^ byte) & 0xff] ^ crc >> 8
    return crc ^ 0xffffffff


def sum_is_right(data: bytes, magic: bytes) -> bool:
    """Return whether @data has its sum where things of its kind have it."""
    at = CRC_AT[magic]
    return (data.startswith(magic) and int.from_bytes(data[at:at + 4], "big")
            == crc32c(data[:at] + bytes(4) + data[at + 4:]))


@dataclass
class Head:
    """One of the two heads."""

    generation: int
    session: bytes
    disk: int
    is_void: bool
    granularity: int
    size: int
    area: int
    area_bytes: int
    list_bytes: int
    list_sum: int
    missing: int
    boot: bytes

    def of(self) -> tuple[bytes, int, int, int]:
        """Return what must be the same in each generation."""
        return self.session, self.disk, self.size, self.granularity


@dataclass
class Wanted:
    """What an image's record says of its map."""

    session: str
    size: int                                   # bytes of the disk
    disk: Optional[int] = None                  # its number; old records: None


@dataclass
class Missing:
    """What a map says."""

    granularity: int
    size: int                                   # bytes of the disk
    runs: list[Run] = field(default_factory=list)       # offsets and bytes

    @property
    def bytes(self) -> int:
        """Return how much is missing."""
        return sum(count for _offset, count in self.runs)


def decode_head(page: bytes, index: int) -> Optional[Head]:
    """Return the head in a page; None without one; raise BadMap."""
    if not sum_is_right(page, MAGIC):
        return None
    (_magic, version, _sum, generation, session, disk, disks, channels, flags,
     granularity, list_bytes, size, area, area_bytes, list_sum, reserved,
     missing, boot, _protocol, reserved2, _features) = HEAD.unpack_from(page)
    if version != VERSION:
        raise BadMap(f"version {version} is not {VERSION}")
    texts = page[TEXTS_AT:TEXTS_AT + TEXTS.size]
    if (flags & ~VOID or reserved or reserved2 or any(page[HEAD.size:TEXTS_AT])
            or any(page[TEXTS_AT + len(texts):])
            or any(length > 512 for length in TEXTS.unpack(texts)[::2])):
        raise BadMap("its head has what is not known")
    if not generation or generation % 2 != index:
        raise BadMap(f"generation {generation} is in page {index}")
    if (granularity & (granularity - 1) or not 4096 <= granularity <= 1 << 20
            or not 0 < size < 1 << 63 or disk >= disks or channels > 17):
        raise BadMap("it is of a disk that cannot be")
    if not flags and (area < 2 * PAGE or area % PAGE or area_bytes % PAGE
                      or area_bytes < list_room(list_bytes)):
        raise BadMap(f"an area of {area_bytes} bytes at {area} is not allowed")
    return Head(generation, session, disk, bool(flags), granularity, size,
                area, area_bytes, list_bytes, list_sum, missing, boot)


def list_room(size: int) -> int:
    """Return how many bytes a list takes in its area."""
    return max(-(-size // PAGE) * PAGE, PAGE)


def decode_runs(data: bytes, blocks: int) -> Iterator[Run]:
    """Yield first block and count; raise BadMap."""
    block = 0
    try:
        values = numbers(data)
        for gap in values:
            count = next(values, 0)
            if not count or block + gap + count > blocks:
                raise BadMap("a list of blocks goes beyond the disk's end")
            yield block + gap, count
            block += gap + count
    except BadRecord as error:
        raise BadMap(str(error)) from error


def without(runs: list[Run], marks: list[Run]) -> Iterator[Run]:
    """Yield what is left of @runs, which are in order, without @marks."""
    marks = sorted(marks)
    index = 0
    for first, count in runs:
        end = first + count
        while index < len(marks) and sum(marks[index]) <= first:
            index += 1
        at = index
        while at < len(marks) and marks[at][0] < end and first < end:
            if marks[at][0] > first:
                yield first, marks[at][0] - first
            first = max(first, sum(marks[at]))
            at += 1
        if first < end:
            yield first, end - first


class Reader:
    """A map that is open."""

    def __init__(self, file: BinaryIO, size: int) -> None:
        self.file, self.size = file, size

    def read(self, offset: int, count: int) -> bytes:
        """Return @count bytes; raise BadMap."""
        self.file.seek(offset)
        data = self.file.read(count)
        if len(data) != count:
            raise BadMap(f"it ends within {count} bytes at {offset}")
        return data

    def record(self, at: int, end: int,
               session: bytes) -> Optional[tuple[int, int, bytes]]:
        """Return generation, serial number and runs of a record, if any."""
        head = self.read(at, RECORD.size)
        magic, _sum, generation, serial, whose, count, reserved = (
            RECORD.unpack(head))
        if (magic != RECORD_MAGIC or whose != session or reserved
                or count > end - at - RECORD.size):
            return None
        data = self.read(at, RECORD.size + count)
        if not sum_is_right(data, RECORD_MAGIC):
            return None
        return generation, serial, data[RECORD.size:]

    def check_last(self, session: bytes, generation: int, serial: int) -> None:
        """Raise BadMap if there is a record that was written later."""
        end = self.size // PAGE * PAGE
        for at in range(2 * PAGE, end, PAGE):
            found = self.record(at, end, session)
            if found and found[:2] > (generation, serial):
                raise BadMap(f"record {found[1]} of generation {found[0]} is "
                             "there, but not all before it")

    def replay(self, head: Head) -> list[Run]:
        """Return all marks, in blocks."""
        blocks = -(-head.size // head.granularity)
        at = head.area + list_room(head.list_bytes)
        end = head.area + head.area_bytes
        marks: list[Run] = []
        serial = 0
        while at < end:
            found = self.record(at, end, head.session)
            if not found or found[:2] != (head.generation, serial + 1):
                break
            marks += decode_runs(found[2], blocks)
            serial += 1
            at += -(-(RECORD.size + len(found[2])) // PAGE) * PAGE
        self.check_last(head.session, head.generation, serial)
        return marks

    def missing(self, head: Head) -> Missing:
        """Return what is missing; raise BadMap or Uncommitted."""
        whole = head.area + head.area_bytes <= self.size
        listed = self.read(head.area, head.list_bytes) if whole else b""
        if not whole or crc32c(listed) != head.list_sum:
            if head.generation > 1:
                raise BadMap("the list of missing blocks of generation "
                             f"{head.generation} is not whole")
            raise Uncommitted
        blocks = -(-head.size // head.granularity)
        runs = list(decode_runs(listed, blocks))
        result = Missing(head.granularity, head.size)
        result.runs = in_bytes(head, runs)
        if result.bytes != head.missing:
            raise BadMap(f"its list has {result.bytes} bytes missing, and its "
                         f"head says {head.missing}")
        result.runs = in_bytes(head, without(runs, self.replay(head)))
        return result


def in_bytes(head: Head, runs: Iterator[Run] | list[Run]) -> list[Run]:
    """Return runs of blocks as offsets and bytes; the last may be short."""
    size = head.granularity
    return [(first * size, min((first + count) * size, head.size)
             - first * size) for first, count in runs]


def choose(pages: list[bytes]) -> Optional[Head]:
    """Return the head that counts, if any; raise BadMap."""
    heads = [decode_head(page, index) for index, page in enumerate(pages)]
    good = sorted((head for head in heads if head),
                  key=lambda head: head.generation)
    if not good:
        return None
    best = good[-1]
    if len(good) > 1 and (best.generation - 1 != good[0].generation
                          or best.of() != good[0].of()):
        raise BadMap(f"generation {best.generation} cannot follow the "
                     f"{good[0].generation} that is there")
    if best.generation > 1 and not any(pages[1 - best.generation % 2]):
        raise BadMap(f"it has generation {best.generation}, but not the one "
                     "before")
    return best


def check_of(head: Head, wanted: Wanted) -> None:
    """Raise Other if it is not of this migration, BadMap if not of the disk."""
    if head.session != uuid.UUID(wanted.session).bytes:
        raise Other(f"it is of migration {uuid.UUID(bytes=head.session)}, and "
                    f"the image of {wanted.session}")
    # The guest came so far, but this is not the map to tell how far
    if head.size != wanted.size:
        raise BadMap(f"it is of a disk of {head.size} bytes, and the image "
                     f"has {wanted.size}")
    if wanted.disk is not None and head.disk != wanted.disk:
        raise BadMap(f"it is of disk {head.disk}, and the image of disk "
                     f"{wanted.disk}")
    if any(head.boot) and head.boot != this_boot():
        raise BadMap("the image was not flushed to its disk (cache mode "
                     "'unsafe'), and the host was started again since")


def this_boot() -> bytes:
    """Return the ID of the kernel that runs, or nothing."""
    try:
        return uuid.UUID(BOOT_ID.read_text(encoding="ascii").strip()).bytes
    except (OSError, ValueError):
        return b""


def load_open(reader: Reader, wanted: Wanted) -> Missing:
    """Return what is missing; raise BadMap or Uncommitted."""
    if reader.size < FILE_BYTES:
        raise BadMap(f"it was cut off: it has {reader.size} bytes, and was "
                     f"made with {FILE_BYTES}")
    pages = [reader.read(0, PAGE), reader.read(PAGE, PAGE)]
    head = choose(pages)
    try:
        if head is None:
            raise Uncommitted
        check_of(head, wanted)
        if head.is_void:
            raise Void("QEMU could not write it any more while the guest ran "
                       "on")
        return reader.missing(head)
    except Uncommitted as error:
        if any(pages[0]):
            raise BadMap("its heads are damaged") from error
        reader.check_last(uuid.UUID(wanted.session).bytes, 0, 0)
        raise Uncommitted("the guest has not run here: its list of missing "
                          "blocks was not yet written") from error


def load_map(path: Path, wanted: Wanted) -> Optional[Missing]:
    """
    Return what is missing of a disk, by the map at @path.

    None if there is no map.  Raise BadMap or Uncommitted.
    """
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            raise BadMap("it is no regular file")
        with path.open("rb") as file:
            return load_open(Reader(file, status.st_size), wanted)
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise BadMap(getattr(error, "strerror", None) or str(error)) from error
