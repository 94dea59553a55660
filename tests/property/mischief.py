# SPDX-License-Identifier: GPL-2.0-or-later
"""Somebody puts another file where the map of missing blocks is.

Each kind comes with what the images are good for then, by docs/records.md.
"""

import random
import struct
from dataclasses import dataclass
from typing import Callable, Optional

from dev.rig.image import Image
from tests.crash.whose import words
from tests.functional.lib.mapfile import RECORD, RECORD_HEAD, layout, map_path
from tests.property.world import World

Content = Optional[bytes]               # of a file; None: there is none


@dataclass
class Found:
    """What was done, and what follows from it."""

    what: str
    states: list[str]                   # of the images
    damaged: bool = False               # what is missing is not known
    goes_on: bool = False               # as if nothing had been done
    copied: tuple[int, ...] = ()        # beside the source's images, too

    def __str__(self) -> str:
        return self.what


class Maps:
    """The maps of the disks at a destination that was killed."""

    def __init__(self, world: World, images: list[Image],
                 left: list[Image]) -> None:
        self.images, self.world = images, world
        self.paths = [map_path(image) for image in images]
        self.source_paths = [map_path(image) for image in left]
        self.right: list[Content] = []      # what was there
        self.before: list[Content] = []     # at the end of the life before
        self.other = dict(world.maps)       # of another migration
        self.changed = False                # not what was there
        self.damaged = False                # so that nobody can know

    def ended(self, only_arrived: bool) -> None:
        """QEMU was killed; blocks came, or the guest wrote as well."""
        self.before = self.right if only_arrived else []

    def look(self) -> None:
        """Keep what is there."""
        self.right = [path.read_bytes() if path.exists() else None
                      for path in self.paths]
        for number, content in enumerate(self.right):
            if content:
                self.world.maps[number] = content

    def put(self, contents: list[Content]) -> None:
        for path, content in zip(self.paths, contents):
            path.unlink(missing_ok=True)
            if content is not None:
                path.write_bytes(content)

    def put_back(self) -> None:
        """All is as it was."""
        self.put(self.right)
        self.changed = self.damaged = False

    def play(self, kind: str, rng: random.Random) -> Optional[Found]:
        """Do that to the map of one disk that is arriving, or of two.

        None if that cannot be done now.
        """
        states = words(self.images)
        number = rng.choice([number for number, state in enumerate(states)
                             if state == 'arriving'])
        found = KINDS[kind](self, number, states, rng)
        self.changed = found is not None and not found.goes_on
        self.damaged = found is not None and found.damaged
        return found

    def replace(self, number: int, content: Content) -> None:
        """Put another file in place."""
        self.put([content if place == number else right
                   for place, right in enumerate(self.right)])

    def content(self, number: int) -> bytes:
        """The map of a disk that is arriving."""
        content = self.right[number]
        assert content is not None
        return content


Kind = Callable[[Maps, int, list[str], random.Random], Optional[Found]]
KINDS: dict[str, Kind] = {}


def add(function: Kind) -> Kind:
    """Decorator: one kind of mischief."""
    KINDS[function.__name__] = function
    return function


def changed(states: list[str], number: int, state: str) -> list[str]:
    """The states, but of one image."""
    return states[:number] + [state] + states[number + 1:]


@add
def cut(maps: Maps, number: int, states: list[str],
        rng: random.Random) -> Optional[Found]:
    """The file ends too early, anywhere."""
    content = maps.content(number)
    found = layout(content)
    size = rng.choice((0, rng.randrange(found.head.stop), found.snapshot.start,
                       rng.randrange(found.end), rng.randrange(len(content))))
    maps.replace(number, content[:size])
    return Found(f'disk {number}: {size} bytes', states, damaged=True)


@add
def damage(maps: Maps, number: int, states: list[str],
           rng: random.Random) -> Optional[Found]:
    """A bit is wrong, in what was durable and is needed.

    That was durable shows in what was written later.  If nothing was, and
    nothing is durable but what may be torn, nobody can know.
    """
    content = maps.content(number)
    found = layout(content)
    if not found.records:
        return None
    parts = [found.head, found.snapshot] * 2 + found.records[:-1]
    part = rng.choice([part for part in parts if part.stop > part.start])
    at = rng.randrange(part.start, part.stop)
    maps.replace(number, content[:at] + bytes([content[at] ^ 1 << rng.randrange
                                               (8)]) + content[at + 1:])
    return Found(f'disk {number}: byte {at}', states, damaged=True)


@add
def remove(maps: Maps, number: int, states: list[str],
           _rng: random.Random) -> Optional[Found]:
    """There is none."""
    maps.replace(number, None)
    return Found(f'disk {number}', changed(states, number, 'incomplete'))


@add
def exchange(maps: Maps, _number: int, _states: list[str],
             _rng: random.Random) -> Optional[Found]:
    """Those of two disks."""
    if None in maps.right:
        return None
    maps.put(maps.right[::-1])
    return Found('both', ['arriving'] * len(maps.right), damaged=True)


@add
def of_another(maps: Maps, number: int, states: list[str],
               _rng: random.Random) -> Optional[Found]:
    """That of an earlier migration."""
    if number not in maps.other:
        return None
    maps.replace(number, maps.other[number])
    return Found(f'disk {number}', changed(states, number, 'incomplete'))


@add
def torn(maps: Maps, number: int, states: list[str],
         rng: random.Random) -> Optional[Found]:
    """One more record of which a crash has left a part: it does not count."""
    content = maps.content(number)
    found = layout(content)
    size = rng.randrange(1, 400)
    if found.end + RECORD_HEAD + size > found.area_end:
        return None
    record = struct.pack(RECORD, b'WSMR', rng.getrandbits(32),
                         found.generation, len(found.records) + 1,
                         found.session, size, 0) + rng.randbytes(size)
    end = found.end + len(record)
    maps.replace(number, content[:found.end] + record + content[end:])
    return Found(f'disk {number}: record {len(found.records) + 1}', states,
                 goes_on=True)


@add
def older(maps: Maps, _number: int, states: list[str],
          _rng: random.Random) -> Optional[Found]:
    """As it was before blocks came: they come once more."""
    if not maps.before or None in maps.before:
        return None
    maps.put(maps.before)
    return Found('both', ['arriving' if state == 'incomplete' else state
                          for state in states], goes_on=True)


@add
def beside_source(maps: Maps, number: int, states: list[str],
                  _rng: random.Random) -> Optional[Found]:
    """A copy beside the source's image, where it means nothing."""
    maps.source_paths[number].write_bytes(maps.content(number))
    return Found(f'disk {number}', states, goes_on=True, copied=(number,))
