# SPDX-License-Identifier: GPL-2.0-or-later
"""A migration whose hosts lose power: at each point, with what is left then.

The migration runs once, with the images of both hosts on a file system that
logs.  Then, without any QEMU, both folders are looked at as they could be after
a cut at some entry, and must tell whose disk the guest's is, with all that it
had flushed by then.
"""

import contextlib
import itertools
import random
import time
from bisect import bisect_right
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Optional

from dev.rig.basics import TestFailure, require
from dev.rig.guest import Guest
from dev.rig.image import Image
from dev.rig.scene import Scene, finish
from tests.crash.flushed import judge_found, summary
from tests.crash.aftermath import Hosts
from tests.crash.logging_fs import LogFs, sync
from tests.crash.powercut import Cut, Entry, cuts_of, read_log
from tests.crash.setting import Setting, Variant


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
    """A migration with a log; it has come to its end, or so far."""

    setting: Setting
    heard: Heard
    log: Path
    begun: float
    written: frozenset[int]     # inodes of the destination's images

    @property
    def images(self) -> tuple[list[Image], list[Image]]:
        """Those of both hosts."""
        return self.setting.source.images, self.setting.destination.images


@dataclass
class Moving:
    """A migration whose images are logged."""

    setting: Setting
    log: Path
    begun: float
    written: frozenset[int]

    def now(self) -> Migrated:
        """All that is known of it by now."""
        return Migrated(self.setting, Heard.of(self.setting.scene.guest),
                        self.log, self.begun, self.written)


@contextlib.contextmanager
def logged(scene: Scene, variant: Variant, seed: int,
           skipped: str = '') -> Iterator[Moving]:
    """Begin a migration; its guest runs at the destination, with maps."""
    with LogFs(scene.folder) as files:
        setting = Setting(scene, variant, seed, (
            files.folder('a'), files.folder('b')), skipped)
        for name in 'ab':
            sync(files.path / name)
        begun = time.time()
        written = frozenset(image.path.stat().st_ino
                            for image in setting.destination.images)
        setting.in_postcopy()
        yield Moving(setting, files.log, begun, written)


def migrate(scene: Scene, variant: Variant, seed: int,
            skipped: str = '') -> Migrated:
    """Move a guest, and let it work on for a bit."""
    with logged(scene, variant, seed, skipped) as moving:
        setting = moving.setting
        scene.guest.wait_rounds(30)
        setting.hurry()
        finish(setting.source, setting.destination)
        scene.guest.wait_rounds(5)
        setting.source.kill()
        setting.destination.kill()
        return moving.now()


def places(moved: Migrated, log: list[Entry], count: Optional[int],
           seed: int) -> set[int]:
    """Where to cut: everywhere, or at so many entries.

    From the first write to the destination's images on: when they are no
    disks any more, that must be known.
    """
    first = next(place for place, entry in enumerate(log)
                 if entry.time > moved.begun and entry.kind == 'w'
                 and entry.inode in moved.written)
    every = range(first, len(log))
    if count is None or count >= len(every):
        return set(every)
    return {every[0], every[-1], *random.Random(seed).sample(every, count)}


def cuts(moved: Migrated, seed: int, count: Optional[int],
         draws: int = 1) -> Iterator[Cut]:
    """What can be left, at each entry or at so many of them."""
    log = list(read_log(moved.log))
    return cuts_of(log, places(moved, log, count, seed), seed, draws)


def cut_everywhere(moved: Migrated, seed: int, folder: Path,
                   count: Optional[int] = None,
                   draws: int = 1) -> Counter[str]:
    """Cut; return whose the disk was how often.  Fails if it is not right."""
    hosts, whose = Hosts(moved.images, folder), Counter[str]()
    for cut in cuts(moved, seed, count, draws):
        try:
            disks = hosts.disks(cut)
            text = summary(judge_found(moved.setting.plan, moved.heard.at(
                cut.entry.time), disks.found))
            require(not text, f'the disk is that of {disks.whose}: {text}')
        except TestFailure as error:
            raise TestFailure(f'seed {seed}, {cut}, '
                              f'{cut.entry.time - moved.begun:.3f} s: {error}'
                              ) from error
        whose[disks.whose] += 1
    return whose
