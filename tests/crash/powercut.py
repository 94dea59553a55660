# SPDX-License-Identifier: GPL-2.0-or-later
"""What a power cut leaves of a folder, by the log of tests/crash/logfs.c.

Of a file that is synced all is there that was written before; of what came
later each sector may be there or not.  A name is there for good when its folder
is synced; of the changes of names since then the first few may be there.
"""

import enum
import random
import struct
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from tests.crash.sectors import SECTOR

ENTRY = struct.Struct('<QQQIc')


class Entry(NamedTuple):
    """One change, or one sync."""

    time: float                 # s since 1970
    inode: int
    offset: int
    kind: str
    data: bytes

    def names(self) -> tuple[str, str]:
        """Of a change of names: from, to."""
        first, _, second = self.data.decode().partition('\n')
        return first, second


def read_log(path: Path) -> Iterator[Entry]:
    """All that came to pass."""
    data = path.read_bytes()
    at = 0
    while at + ENTRY.size <= len(data):
        stamp, inode, offset, size, kind = ENTRY.unpack_from(data, at)
        at += ENTRY.size
        if at + size > len(data):
            break               # it is being written
        yield Entry(stamp / 1e9, inode, offset, kind.decode(),
                    data[at:at + size])
        at += size


class Left(enum.Enum):
    """How much of what is not synced is there."""

    ALL = 'all'                 # only the process died
    NOTHING = 'nothing'
    SOME = 'some'


def write(data: bytearray, offset: int, new: bytes) -> None:
    data.extend(bytes(max(0, offset + len(new) - len(data))))
    data[offset:offset + len(new)] = new


def resize(data: bytearray, size: int) -> None:
    del data[size:]
    data.extend(bytes(size - len(data)))


class File:
    """One file."""

    def __init__(self) -> None:
        self.durable, self.now = bytearray(), bytearray()
        self.pending: list[Entry] = []
        self._known: dict[Left, bytes] = {}

    def take(self, entry: Entry) -> None:
        """A change of what is in it."""
        change(self.now, entry)
        self.pending.append(entry)
        self._known.pop(Left.ALL, None)

    def sync(self) -> None:
        for entry in self.pending:
            change(self.durable, entry)
        self.pending.clear()
        self._known.clear()

    def left(self, left: Left, chance: random.Random) -> bytes:
        """What there is after the cut; the same object if it is the same."""
        share = chance.choice((0.1, 0.5, 0.9))
        if not self.pending:
            left = Left.NOTHING
        if left is Left.SOME:
            data = bytearray(self.durable)
            for entry in self.pending:
                change_some(data, entry, share, chance)
            return bytes(data)
        if left not in self._known:
            self._known[left] = bytes(self.now if left is Left.ALL
                                      else self.durable)
        return self._known[left]


def change(data: bytearray, entry: Entry) -> None:
    if entry.kind == 'w':
        write(data, entry.offset, entry.data)
    else:
        resize(data, entry.offset)


def change_some(data: bytearray, entry: Entry, share: float,
                chance: random.Random) -> None:
    """Some of the sectors of a write."""
    if entry.kind != 'w':
        if chance.random() < share:
            change(data, entry)
        return
    at, end = 0, len(entry.data)
    while at < end:
        step = min(SECTOR - (entry.offset + at) % SECTOR, end - at)
        if chance.random() < share:
            write(data, entry.offset + at, entry.data[at:at + step])
        at += step


Names = dict[str, File]


@dataclass
class Folder:
    """A folder, as a host has it and as its disk has it."""

    path: str                   # in the log
    names: Names = field(default_factory=dict)
    durable: Names = field(default_factory=dict)
    pending: list[tuple[str, str, str, File]] = field(default_factory=list)

    def _has(self, name: str) -> bool:
        return name.rpartition('/')[0] == self.path

    def take(self, entry: Entry, files: dict[int, File]) -> None:
        """A change of names; those of other folders are none of ours."""
        first, second = entry.names()
        if entry.kind == 'd':
            if first == self.path:
                for step in self.pending:
                    rename(self.durable, step)
                self.pending.clear()
        elif self._has(first):
            file = (File() if entry.kind == 'c' else self.names[first])
            if entry.kind == 'c':
                files[entry.inode] = file
            step = entry.kind, first, second, file
            rename(self.names, step)
            self.pending.append(step)

    def left(self, left: Left, chance: random.Random) -> dict[str, bytes]:
        """What there is after the cut."""
        if left is Left.ALL:
            names = self.names
        else:
            names = dict(self.durable)
            some = chance.randint(0, len(self.pending))
            for step in self.pending[:some if left is Left.SOME else 0]:
                rename(names, step)
        return {name.rpartition('/')[2]: file.left(left, chance)
                for name, file in names.items()}


def rename(names: Names, step: tuple[str, str, str, File]) -> None:
    kind, first, second, file = step
    if kind == 'c':
        names[first] = file
    else:
        names.pop(first, None)
        if kind == 'r':
            names[second] = file


class Replay:
    """All folders, entry after entry."""

    def __init__(self, *paths: str) -> None:
        self.folders = {path: Folder(path) for path in paths}
        self._files: dict[int, File] = {}

    def take(self, entry: Entry) -> None:
        if entry.kind in 'crud':
            for folder in self.folders.values():
                folder.take(entry, self._files)
        elif entry.kind == 's':
            if entry.inode in self._files:
                self._files[entry.inode].sync()
        else:
            self._files[entry.inode].take(entry)


def put(files: dict[str, bytes], where: Path) -> None:
    """Make the folder that a host finds when it is started again."""
    where.mkdir(exist_ok=True)
    for path in where.iterdir():
        path.unlink()
    for name, data in files.items():
        (where / name).write_bytes(data)


Files = dict[str, bytes]    # of a folder

# What is left at source and destination; ALL is one whose process died
LEFT = ((Left.ALL, Left.SOME), (Left.ALL, Left.NOTHING),
        (Left.SOME, Left.SOME), (Left.SOME, Left.ALL),
        (Left.NOTHING, Left.NOTHING), (Left.NOTHING, Left.ALL),
        (Left.ALL, Left.ALL))


@dataclass(frozen=True)
class Cut:
    """A cut, and what it leaves of both hosts' folders."""

    place: int                  # of the last entry before it
    entry: Entry
    number: int                 # which of those at this place
    left: tuple[Left, Left]
    files: tuple[Files, Files]

    def __str__(self) -> str:
        return (f'cut at entry {self.place} ({self.entry.kind}), left: '
                f'{[how.value for how in self.left]}')


def cuts_of(log: list[Entry], where: Collection[int], seed: int,
            draws: int = 1) -> Iterator[Cut]:
    """What can be left of the folders /a and /b of a log, at some entries.

    All of LEFT; of what is there by chance so many @draws.  The same cut is
    always the same, whichever others there are.
    """
    replay = Replay('/a', '/b')
    every = [left for left in LEFT
             for _ in range(draws if Left.SOME in left else 1)]
    for place, entry in enumerate(log):
        replay.take(entry)
        for number, left in enumerate(every) if place in where else ():
            chance = random.Random(f'{seed} {place} {number}')
            yield Cut(place, entry, number, left, (
                replay.folders['/a'].left(left[0], chance),
                replay.folders['/b'].left(left[1], chance)))
