# SPDX-License-Identifier: GPL-2.0-or-later
"""What must be true: the guest's disks, and what each host's images know.

The guest's disk is simply its bytes.  Of an image the model follows which
sync points it has.  Where the test cannot know (QEMU was killed at a moment
that only QEMU knows) a point is there, but not sure.  So of two images the
model can say that they must, or must not, be brought up to date by a sync
point.
"""

from copy import copy
from dataclasses import dataclass, field
from typing import Optional

from dev.rig.basics import require
from tests.functional.lib.back import point_id

SECTOR = 512
WRITE_EXTRA = 2         # blocks that a write touches beyond its length


def first_difference(have: bytes, want: bytes) -> str:
    """Where two contents differ, or ''."""
    if have == want:
        return ''
    bad = [at for at in range(0, len(want), SECTOR)
           if have[at:at + SECTOR] != want[at:at + SECTOR]]
    if not bad:
        return f'it has {len(have)} bytes instead of {len(want)}'
    at = bad[0]
    return (f'{len(bad)} sectors differ, the first at {at} (0x{at:x}), the '
            f'last at 0x{bad[-1]:x}: {have[at:at + 4].hex()} instead of '
            f'{want[at:at + 4].hex()}')


@dataclass
class Point:
    """A sync point as an image knows it."""
    id: str
    sure: bool = True
    rest: Optional[bool] = False    # made by a break-off here; None: perhaps
    bound: int = 0                  # bytes changed since, at most


@dataclass
class ImageModel:
    """The image of one disk on one host."""
    size: int
    points: list[Point] = field(default_factory=list)
    state: str = 'current'          # as in its record; '': not known
    blank: bool = True              # nobody ever wrote to it
    garbled: bool = False           # its record cannot be read
    session: str = ''               # that its record names, if that matters
    map: str = ''                   # that of a committed map beside it, if any
    map_is_good: bool = True        # what is missing can be known

    def __str__(self) -> str:
        marks = {False: '', True: '*', None: '*?'}
        points = [point.id[:8] + marks[point.rest] + '?' * (not point.sure)
                  for point in self.points]
        return f'{self.state or "?"}[{" ".join(points)}]'

    @property
    def arriving(self) -> bool:
        """A guest's disk of which blocks are missing."""
        return (self.state == 'incomplete' and not self.garbled
                and self.map != '' and self.map == self.session)

    def become_current(self) -> None:
        """Record and map go."""
        self.state, self.session, self.map = 'current', '', ''

    def begin_incomplete(self, session: str) -> None:
        """A migration to it has begun, of which no map is committed."""
        self.state, self.session, self.map = 'incomplete', session, ''

    def ids(self, sure: bool = False) -> list[str]:
        return [point.id for point in self.points
                if point.sure or not sure]

    def doubt(self) -> None:
        """Whether its points are kept cannot be known."""
        for point in self.points:
            point.sure = False

    def forget(self) -> None:
        self.points = []

    def taken(self) -> None:
        """QEMU is about to write to it."""
        if self.garbled:
            self.points = []
            self.garbled = False

    def write(self, count: int) -> None:
        """The guest, or somebody with QEMU's help, wrote @count bytes."""
        self.blank = False
        for point in self.points:
            point.bound += count

    def limit(self, most: int) -> None:
        """The newest @most stay; those not sure count, or do not."""
        kept: list[Point] = []
        sure = 0
        for point in reversed(self.points):
            if sure >= most:
                break
            sure += point.sure
            point.sure = point.sure and len(kept) < most
            kept.insert(0, point)
        self.points = kept

    def forget_interrupted(self) -> None:
        self.points = [point for point in self.points if not point.rest]
        for point in self.points:
            if point.rest is None:
                point.rest, point.sure = False, False

    def left(self, session: str, most: int) -> None:
        """The guest has gone elsewhere for good."""
        self.forget_interrupted()
        self.points.append(Point(session))
        self.limit(most)

    def broke_off(self, session: str, sure: bool, most: int,
                  source: bool) -> None:
        """A migration from (@source) or to this image ended in pre-copy."""
        if source:
            if sure:
                self.forget_interrupted()
            else:
                self.doubt()
            self.points.append(Point(session, sure, True, self.size))
        else:
            self.write(self.size)
            if not sure:
                self.doubt()
            self.points.append(Point(session, sure))
        self.limit(most)


def moved(source: ImageModel, dest: ImageModel, session: str, most: int,
          written: int) -> None:
    """The guest went over; it wrote @written bytes there in post-copy."""
    old = source.points
    ids = source.ids()
    source.points = [copy(point) for point in old]
    source.left(session, most)
    dest.write(dest.size)
    dest.points = [point for point in dest.points if point.id not in ids]
    for point in old:
        travelled = copy(point)
        if point.rest is not False:
            travelled.rest, travelled.sure = None, False
        dest.points.append(travelled)
    dest.points.append(Point(session))
    dest.limit(most)
    dest.write(written)
    source.state = 'handed-over'
    dest.become_current()


def check_basis(name: str, source: ImageModel, dest: ImageModel, wish: str,
                basis: dict[str, str]) -> None:
    """Is that what the migration of a disk may build on?"""
    kind, reason = basis['kind'], basis['reason']
    must = set(source.ids(True)) & set(dest.ids(True))
    may = set(source.ids()) & set(dest.ids())
    what = f'{name}: basis is {kind} ({reason})'
    if kind == 'sync-point':
        require(basis['point'] in may, f'{what}: no image may have point '
                f'{basis["point"]}, but {sorted(may)}')
    if wish != 'auto':
        require(kind == wish, f'{what}, but {wish} was asked for')
    elif must:
        require(kind == 'sync-point',
                f'{what}, but both must have {sorted(must)}')
    elif not may and dest.blank:
        require(kind == 'full', f'{what}, but the image is blank')
    elif not may:
        require(kind != 'sync-point', what)


def most_sent(source: ImageModel, dest: ImageModel) -> int:
    """How much the first pass can send by the best sure sync point."""
    theirs = {point.id: point for point in dest.points if point.sure}
    return min([point.bound + theirs[point.id].bound
                for point in source.points
                if point.sure and point.id in theirs] + [source.size])


class Disk:
    """The guest's disk, and its image on each host."""

    def __init__(self, number: int, fmt: str, size: int, hosts: int) -> None:
        self.number = number
        self.name = f'vd{number}'
        self.fmt = fmt
        self.size = size
        self.data = bytearray(size)
        # Where it was written since it was flushed: what else may be there
        # after a crash, sector by sector.  None: nobody will ask.
        self.loose: Optional[dict[int, set[bytes]]] = None
        self.images = [ImageModel(size) for _ in range(hosts)]

    def point(self, session: str) -> str:
        """The id of the sync point that a migration makes for this disk."""
        return point_id(session, self.number)

    def track(self, on: bool) -> None:
        """Begin, at a flush, to follow what is not flushed; or stop it."""
        self.loose = {} if on else None

    def flushed(self) -> None:
        """All of it is durable."""
        if self.loose:
            self.loose.clear()

    def settle(self, content: bytes) -> str:
        """A crash has left this.  Returns what is wrong, or ''.

        What was not flushed may be there or not; now it is known.
        """
        loose = self.loose or {}
        wrong = bytearray(self.data)
        for at, allowed in loose.items():
            if content[at:at + SECTOR] in allowed:
                wrong[at:at + SECTOR] = content[at:at + SECTOR]
        text = first_difference(content, bytes(wrong))
        if not text:
            self.data[:] = content
            loose.clear()
        return text

    def fill(self, offset: int, count: int, byte: int) -> None:
        for at in range(offset, offset + count, SECTOR):
            if self.loose is not None:
                self.loose.setdefault(at, set()).add(
                    bytes(self.data[at:at + SECTOR]))
        self.data[offset:offset + count] = bytes([byte]) * count

    def run_at(self, offset: int, most: int) -> int:
        """How many bytes from @offset on are the same, at most @most."""
        part = bytes(self.data[offset:offset + most])
        return len(part) - len(part.lstrip(part[:1]))
