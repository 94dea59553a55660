# SPDX-License-Identifier: GPL-2.0-or-later
"""A migration whose hosts lose power: at each point, with what is left then.

The migration runs once, with the images of both hosts on a file system that
logs.  Then, without any QEMU, both folders are made as they could be after a
cut at some entry, and must tell whose disk the guest's is, with all that it had
flushed by then.
"""

import itertools
import random
import time
from bisect import bisect_right
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Iterator, Optional

from dev.rig.basics import TestFailure, require
from dev.rig.guest import Guest
from dev.rig.image import Image
from dev.rig.scene import Scene, finish, wait_phase
from tests.crash.flushed import Rounds, judge, summary
from tests.crash.images import contents
from tests.crash.logging_fs import LogFs, sync
from tests.crash.whose import DESTINATION, SOURCE, owner, words
from tests.crash.powercut import Left, Replay, put, read_log
from tests.crash.setting import Setting, Variant
from tests.functional.lib.mapfile import filled, map_path, read_map

# What is left at source and destination; ALL is one whose process died
LEFT = ((Left.ALL, Left.SOME), (Left.ALL, Left.NOTHING),
        (Left.SOME, Left.SOME), (Left.SOME, Left.ALL),
        (Left.NOTHING, Left.NOTHING), (Left.NOTHING, Left.ALL),
        (Left.ALL, Left.ALL))


@dataclass
class Heard:
    """Which rounds were heard of, and when."""

    times: list[float]
    rounds: list[int]

    @classmethod
    def of(cls, guest: Guest) -> 'Heard':
        beats = sorted(guest.beats(), key=lambda beat: beat.time)
        rounds: Iterator[int] = itertools.accumulate(
            (beat.rounds for beat in beats), max)
        return cls([beat.time for beat in beats], list(rounds))

    def at(self, when: float) -> int:
        """The last one that was heard of at this time."""
        place = bisect_right(self.times, when)
        return self.rounds[place - 1] if place else 0


@dataclass
class Migrated:
    """What is left of a migration that has come to its end."""

    plan: Rounds
    heard: Heard
    log: Path
    begun: float
    written: frozenset[int]     # inodes of the destination's images
    images: tuple[list[Image], list[Image]]


def migrate(scene: Scene, variant: Variant, seed: int,
            skipped: str = '') -> Migrated:
    """Move a guest, whose images are logged, and let it work on for a bit."""
    with LogFs(scene.folder) as logged:
        setting = Setting(scene, variant, seed, (
            logged.folder('a'), logged.folder('b')), skipped)
        for name in 'ab':
            sync(logged.path / name)
        begun = time.time()
        written = frozenset(image.path.stat().st_ino
                            for image in setting.destination.images)
        setting.begin()
        wait_phase(setting.destination, 'postcopy')
        setting.wait_committed()
        scene.guest.wait_rounds(30)
        setting.hurry()
        finish(setting.source, setting.destination)
        scene.guest.wait_rounds(5)
        setting.source.kill()
        setting.destination.kill()
        return Migrated(setting.plan, Heard.of(scene.guest), logged.log,
                        begun, written, (setting.source.images,
                                setting.destination.images))


@dataclass
class Hosts:
    """Both hosts after a cut."""

    images: tuple[list[Image], list[Image]]
    folder: Path

    def disk(self) -> tuple[str, list[bytes]]:
        """Whose it is, and what is in it."""
        source, destination = self.images
        found = words(destination)
        whose = owner(words(source), found)
        if whose == SOURCE:
            return whose, [contents(image, self.folder) for image in source]
        disks = []
        for state, ours, theirs in zip(found, destination, source):
            data = contents(ours, self.folder)
            if whose != DESTINATION and state == 'arriving':
                data = filled(read_map(map_path(ours)), data,
                              contents(theirs, self.folder))
            disks.append(data)
        return whose, disks


def places(moved: Migrated, count: Optional[int],
           chance: random.Random) -> set[int]:
    """Where to cut: everywhere, or at so many entries.

    From the first write to the destination's images on: when they are no
    disks any more, that must be known.
    """
    log = list(read_log(moved.log))
    first = next(place for place, entry in enumerate(log)
                 if entry.time > moved.begun and entry.kind == 'w'
                 and entry.inode in moved.written)
    every = range(first, len(log))
    if count is None or count >= len(every):
        return set(every)
    return {every[0], every[-1], *chance.sample(every, count)}


def cut_everywhere(moved: Migrated, seed: int, folder: Path,
                   count: Optional[int] = None) -> Counter[str]:
    """Cut; return whose the disk was how often.  Fails if it is not right."""
    chance = random.Random(seed)
    where = places(moved, count, chance)
    hosts = Hosts(tuple(  # type: ignore[arg-type]
        [replace(image, path=folder / name / image.path.name)
         for image in images] for name, images in zip('ab', moved.images)),
        folder)
    folder.mkdir()
    replay, whose = Replay('/a', '/b'), Counter[str]()
    for place, entry in enumerate(read_log(moved.log)):
        replay.take(entry)
        if place not in where:
            continue
        left = LEFT[sum(whose.values()) % len(LEFT)]
        for name, how in zip('ab', left):
            put(replay.folders[f'/{name}'].left(how, chance), folder / name)
        try:
            said, disks = hosts.disk()
            text = summary(judge(moved.plan, moved.heard.at(entry.time),
                                 disks))
            require(not text, f'the disk is that of {said}: {text}')
        except TestFailure as error:
            raise TestFailure(
                f'seed {seed}, cut at entry {place} ({entry.kind}, '
                f'{entry.time - moved.begun:.3f} s), left: '
                f'{[how.value for how in left]}: {error}') from error
        whose[said] += 1
    return whose
