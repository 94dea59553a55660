# SPDX-License-Identifier: GPL-2.0-or-later
"""Files of a set of templates, which docs/templates.md has byte by byte."""

import hashlib
import os
import struct
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Iterable, Iterator

from wsm.durable import sync_folder

PAGE = 4096
HASH = 32
PREFIX = 8
MAGIC = b"WSM-SET\n"
VERSION = 1
MAX_PAGES = 4 << 20
HEADER = struct.Struct(">8sIIIIQ32s")
PAGES, LIST, INDEX = 1, 2, 3
SUFFIXES = {PAGES: ".pages", LIST: ".list", INDEX: ".idx"}
AT_ONCE = 1 << 20               # bytes


class BadSet(Exception):
    """A file that is no good set; says why."""


def filled(size: int) -> int:
    """Return @size with what fills its last page."""
    return -(-size // PAGE) * PAGE


@dataclass(frozen=True)
class Header:
    """What a file of a set says of itself."""

    kind: int
    count: int
    id: bytes

    @property
    def entry(self) -> int:
        """Bytes of an entry of the list."""
        return PREFIX if self.kind == INDEX else HASH

    @property
    def pages_at(self) -> int:
        """Where the list ends."""
        return PAGE + filled(self.count * self.entry)

    @property
    def size(self) -> int:
        """Bytes of the file."""
        pages = self.count if self.kind == PAGES else 0
        return self.pages_at + pages * PAGE

    def encode(self) -> bytes:
        """Return the header's bytes."""
        return HEADER.pack(MAGIC, VERSION, self.kind, PAGE, 0, self.count,
                           self.id).ljust(PAGE, b"\0")


def decode(data: bytes, size: int) -> Header:
    """Return the header of a file of @size bytes that begins with @data."""
    if len(data) < PAGE or not data.startswith(MAGIC):
        raise BadSet("it is no set of templates")
    _, version, kind, page, reserved, count, identity = (
        HEADER.unpack_from(data))
    if version != VERSION:
        raise BadSet(f"version {version} is not {VERSION}")
    if kind not in SUFFIXES:
        raise BadSet(f"kind {kind} is unknown")
    if page != PAGE:
        raise BadSet(f"its pages have {page} bytes, and not {PAGE}")
    if not 1 <= count <= MAX_PAGES:
        raise BadSet(f"{count} pages are not 1 to {MAX_PAGES}")
    if reserved or any(data[HEADER.size:PAGE]):
        raise BadSet("what is reserved in its header is not 0")
    header = Header(kind, count, identity)
    if size != header.size:
        raise BadSet(f"{size} bytes are not the {header.size} that {count} "
                     "pages take")
    return header


def read_header(file: BinaryIO) -> Header:
    """Return what an open file says of itself."""
    return decode(os.pread(file.fileno(), PAGE, 0),
                  os.fstat(file.fileno()).st_size)


def read_entries(file: BinaryIO, header: Header) -> Iterator[bytes]:
    """Yield the entries of the list; they must ascend."""
    last = b""
    file.seek(PAGE)
    for number in range(header.count):
        entry = file.read(header.entry)
        if entry[:PREFIX] <= last:
            raise BadSet(f"entry {number} of its list is not behind the one "
                         "before")
        last = entry[:PREFIX]
        yield entry


def check(file: BinaryIO) -> tuple[Header, list[int]]:
    """Return the header, and the numbers of pages that are not as listed."""
    header = read_header(file)
    entries = list(read_entries(file, header))
    if header.kind == INDEX:
        return header, []
    if hashlib.sha256(b"".join(entries)).digest() != header.id:
        raise BadSet("its ID is not that of its list")
    if header.kind == LIST:
        return header, []
    file.seek(header.pages_at)
    return header, [number for number, entry in enumerate(entries)
                    if hashlib.sha256(file.read(PAGE)).digest() != entry]


class Writer:
    """A new file beside its place, which it takes when it is whole."""

    def __init__(self, folder: Path) -> None:
        handle, name = tempfile.mkstemp(dir=folder, prefix=".new-")
        self._name = name
        self.file = os.fdopen(handle, "wb")

    def publish(self, path: Path, mode: int) -> None:
        """Give it its name; when this returns it is on the disk."""
        self.file.flush()
        os.fchmod(self.file.fileno(), mode)
        os.fsync(self.file.fileno())
        os.replace(self._name, path)
        sync_folder(path.parent)

    def close(self) -> None:
        """Close it, and remove it unless it was published."""
        self.file.close()
        Path(self._name).unlink(missing_ok=True)


def write_file(folder: Path, header: Header, hashes: list[bytes],
               pages: Iterable[bytes], mode: int) -> Path:
    """Write one file of a set; return its path."""
    path = folder / (header.id.hex() + SUFFIXES[header.kind])
    writer = Writer(folder)
    try:
        writer.file.write(header.encode())
        for each in hashes:
            writer.file.write(each[:header.entry])
        writer.file.write(bytes(header.pages_at - writer.file.tell()))
        for page in pages:
            writer.file.write(page)
        assert writer.file.tell() == header.size
        writer.publish(path, mode)
    finally:
        writer.close()
    return path


def write(folder: Path, hashes: list[bytes], pages: Iterable[bytes],
          mode: int = 0o640) -> list[Path]:
    """
    Write the files of a set; return their paths, the pages' first.

    @hashes ascend, and @pages are those in the same order.
    """
    identity = hashlib.sha256(b"".join(hashes)).digest()
    return [write_file(folder, Header(kind, len(hashes), identity), hashes,
                       pages if kind == PAGES else (), mode)
            for kind in (PAGES, INDEX)]
