# SPDX-License-Identifier: GPL-2.0-or-later
"""Both hosts when they are there again after a power cut: what images hold.

There are many cuts, and most of what one leaves was left by the one before: so
what was found out is kept for a while.
"""

from collections import deque
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Callable, Generic, TypeVar

from dev.rig.image import Image
from tests.crash.flushed import look
from tests.crash.powercut import LEFT, Cut, Files, put
from tests.crash.qcow import Qcow2
from tests.crash.sectors import Found
from tests.crash.whose import DESTINATION, SOURCE, owner, words
from tests.functional.lib.mapfile import filled, map_path, parse_map

HEAD = 4096                 # of an image, more than wsm-info looks at
T = TypeVar('T')


class Kept(Generic[T]):
    """The last few results."""

    def __init__(self, size: int) -> None:
        self._results: deque[tuple[Any, T]] = deque(maxlen=size)

    def get(self, key: object, make: Callable[[], T]) -> T:
        """The result for this key, made if it is not there."""
        for known, result in self._results:
            if known == key:
                return result
        result = make()
        self._results.appendleft((key, result))
        return result


@dataclass(frozen=True)
class Disks:
    """Whose the disks are, and what is in them."""

    whose: str
    data: list[bytes]
    found: list[Found]


class Hosts:
    """The images of both, and what is found out of them."""

    def __init__(self, images: tuple[list[Image], list[Image]],
                 folder: Path) -> None:
        self.folder = folder
        self.source, self.destination = ([
            replace(image, path=folder / name / image.path.name)
            for image in host] for name, host in zip('ab', images))
        self._disks: dict[Path, Kept[bytes]] = {
            image.path: Kept(4) for image in self.source + self.destination}
        self._states: dict[object, list[str]] = {}
        self._results: Kept[Disks] = Kept(2 * len(LEFT))
        folder.mkdir()

    def put(self, cut: Cut) -> None:
        """Make what is left."""
        for name, files in zip('ab', cut.files):
            put(files, self.folder / name)

    def disks(self, cut: Cut) -> Disks:
        """Look at what is left."""
        return self._results.get(cut.files, lambda: self._find(*cut.files))

    def whose(self, cut: Cut) -> str:
        """Whose the disk is, as the documents say."""
        return owner(*map(self._words, (self.source, self.destination),
                          cut.files))

    def _find(self, ours: Files, theirs: Files) -> Disks:
        states = self._words(self.destination, theirs)
        whose = owner(self._words(self.source, ours), states)
        if whose == SOURCE:
            data = [self._disk(image, ours) for image in self.source]
        else:
            data = [self._disk(image, theirs) for image in self.destination]
        if whose not in (SOURCE, DESTINATION):
            for number, image in enumerate(self.destination):
                if states[number] == 'arriving':
                    found = parse_map(theirs[map_path(image).name])
                    data[number] = filled(
                        found, data[number],
                        self._disk(self.source[number], ours))
        return Disks(whose, data, look(data))

    def _disk(self, image: Image, files: Files) -> bytes:
        """What the guest sees of an image."""
        data = files[image.path.name]
        if image.fmt == 'raw':
            return data
        return self._disks[image.path].get(data, lambda: Qcow2(data).disk())

    def _words(self, images: list[Image], files: Files) -> list[str]:
        """The states of images, by all that wsm-info looks at."""
        folder = images[0].path.parent
        names = {image.path.name for image in images}
        key = (folder, *sorted(
            (name, len(data), data[:HEAD] if name in names else data)
            for name, data in files.items()))
        if key not in self._states:
            put(files, folder)
            self._states[key] = words(images)
        return self._states[key]
