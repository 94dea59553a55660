# SPDX-License-Identifier: GPL-2.0-or-later
"""
What QEMU writes of a guest's memory: its digest, or pages of it.

docs/templates.md has both byte by byte.  A list of wanted pages is a digest of
no guest.
"""

import hashlib
import os
import struct
import sys
import uuid
from array import array
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Iterator

from wsm.templates.sets import PAGE, PREFIX

MAGIC = b"WSM-MEM\n"
VERSION = 1
HEADER = struct.Struct(">8sIIIIQ16s16x")
DIGEST, CONTENT = 1, 2
ENTRY = {DIGEST: PREFIX, CONTENT: PAGE}
NAMES = {DIGEST: "digest", CONTENT: "pages"}
NOBODY = uuid.UUID(int=0)


class BadFile(Exception):
    """A file that is not what it should be; says why."""


@dataclass(frozen=True)
class Header:
    """What such a file says of itself."""

    kind: int
    count: int
    guest: uuid.UUID

    def encode(self) -> bytes:
        """Return the header's bytes."""
        return HEADER.pack(MAGIC, VERSION, self.kind, PAGE, 0, self.count,
                           self.guest.bytes)


def decode(data: bytes, size: int, kind: int) -> Header:
    """Return the header of a file of @size bytes that begins with @data."""
    if not any(data):
        raise BadFile("QEMU has not finished it")
    if len(data) < HEADER.size or not data.startswith(MAGIC):
        raise BadFile("it is no digest and no pages that QEMU wrote")
    _, version, found, page, reserved, count, guest = HEADER.unpack(
        data[:HEADER.size])
    if version != VERSION:
        raise BadFile(f"version {version} is not {VERSION}")
    if found != kind:
        raise BadFile(f"kind {found} is not {kind}, as {NAMES[kind]} are")
    if page != PAGE or reserved or any(data[48:HEADER.size]):
        raise BadFile("its pages are not of this machine's kind")
    if size != HEADER.size + count * ENTRY[kind]:
        raise BadFile(f"{size} bytes are not those of {count} entries")
    return Header(kind, count, uuid.UUID(bytes=guest))


def read_header(file: BinaryIO, kind: int) -> Header:
    """Return what an open file says of itself."""
    return decode(os.pread(file.fileno(), HEADER.size, 0),
                  os.fstat(file.fileno()).st_size, kind)


def numbers(data: bytes) -> "array[int]":
    """Return prefixes as numbers."""
    values = array("Q", data)
    if sys.byteorder == "little":
        values.byteswap()
    return values


@dataclass(frozen=True)
class Digest:
    """The prefixes of a guest's pages, each once, ascending."""

    name: str
    guest: uuid.UUID
    prefixes: "array[int]"


def read_digest(path: Path) -> Digest:
    """Return the digest in a file."""
    with path.open("rb") as file:
        header = read_header(file, DIGEST)
        file.seek(HEADER.size)
        prefixes = numbers(file.read(header.count * PREFIX))
    if any(a >= b for a, b in zip(prefixes, prefixes[1:])):
        raise BadFile("its prefixes do not ascend")
    return Digest(path.name, header.guest, prefixes)


def encode_digest(prefixes: "array[int]", guest: uuid.UUID = NOBODY) -> bytes:
    """Return the file that has these prefixes, which ascend."""
    values = array("Q", prefixes)
    if sys.byteorder == "little":
        values.byteswap()
    return (Header(DIGEST, len(values), guest).encode()
            + values.tobytes())


@dataclass(frozen=True)
class Place:
    """Where the content of a page is."""

    path: Path
    offset: int


def pages_of(path: Path) -> Iterator[tuple[bytes, Place]]:
    """Yield (hash, place) of the pages in a file that QEMU has exported."""
    with path.open("rb") as file:
        header = read_header(file, CONTENT)
        file.seek(HEADER.size)
        for number in range(header.count):
            page = file.read(PAGE)
            yield (hashlib.sha256(page).digest(),
                   Place(path, HEADER.size + number * PAGE))
