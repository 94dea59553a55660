# SPDX-License-Identifier: GPL-2.0-or-later
"""Power cuts that are brought to an end, as a user does it.

Both hosts' images are put back as a cut has left them.  Then QEMU and the
programs do what the documents say: they boot one side and refuse the other, or
fetch what is missing, with a guest or without one.  The disks must have all
that was flushed, and be to the byte what both images were together.
"""

import random
import time
from collections import Counter, defaultdict
from dataclasses import replace
from pathlib import Path
from typing import Iterator, Optional

from dev.rig.basics import TestFailure, require
from dev.rig.image import Image
from dev.rig.scene import Scene, disk_total, wait_phase
from dev.rig.vm import Vm
from tests.crash.cuts import Migrated, cuts, logged
from tests.crash.flushed import Rounds, history
from tests.crash.aftermath import Hosts
from tests.crash.images import contents, expect_flushed
from tests.crash.load import begin_rounds
from tests.crash.powercut import Cut, Left, cuts_of, read_log
from tests.crash.sectors import SECTOR, sector
from tests.crash.setting import PACE, Setting, Variant
from tests.crash.ways_out import ROUNDS, WayOut
from tests.crash.whose import BOTH, OWNERS
from tests.functional.lib.rescue import Serving

LOOKED_AT = 5               # places for each that is brought to an end,
LEAST = 30                  # but so many
RATE = 128 << 10            # bytes a second, until the guest writes
WORKING = 3                 # every third time a guest writes while blocks come


class Ending(WayOut):
    """What follows one cut."""

    def __init__(self, setting: Setting, hosts: Hosts, cut: Cut,
                 heard: int) -> None:
        super().__init__(setting)
        hosts.put(cut)
        self.source_images = hosts.source
        self.destination_images = hosts.destination
        self.expected = [bytearray(data) for data in hosts.disks(cut).data]
        self.heard: Optional[int] = heard   # None: they were overwritten
        self.working = False

    def judge(self, images: list[Image]) -> None:
        """All that was flushed is there, and each byte as it was."""
        if self.heard is not None:
            expect_flushed(self.setting.plan, self.heard, images,
                           self.scene.folder)
        for image, expected in zip(images, self.expected):
            found = contents(image, self.scene.folder)
            wrong = [at // SECTOR for at in range(0, len(expected), SECTOR)
                     if expected[at:at + SECTOR] != found[at:at + SECTOR]]
            require(len(found) == len(expected) and not wrong,
                    f'{image.path.name}: {len(wrong)} sectors are not what '
                    f'the images held, the first is {wrong[:1]}')

    def check(self, image: Image) -> None:
        """A power cut may leave clusters that nobody uses."""
        image.check(leaks=True)

    def serve(self) -> Serving:
        """These images are copies, so their stamps do not fit."""
        self.taken.append('wsm-serve')
        return Serving(self.source_images, '--changed-ok')

    def arriving(self, found: list[str]) -> None:
        """Fetch what is missing."""
        self.expect_stale(self.source_images)
        self.expect_stale(self.destination_images)
        if self.working:
            self.setting.relay.edit = slowly
            with self.rejoined() as vm, self.serve() as serving:
                self.work(vm)
                serving.wait(0)
        else:
            self.finish()
        self.at_destination()

    def work(self, vm: Vm) -> None:
        """A guest boots, and writes while blocks come."""
        self.boot(vm)
        plan = replace(self.setting.plan, seed=self.setting.seed + 1,
                       filled=())
        begin_rounds(vm.guest, plan, PACE)
        if disk_total(vm, 'missing'):
            self.taken.append('writes while blocks come')
        self.setting.relay.edit = None
        if self.source.alive():
            self.setting.hurry()
        wait_phase(vm, 'completed')
        vm.guest.wait_rounds(ROUNDS)
        vm.guest.stop()
        vm.guest.wait_progress()        # so the last round is heard of
        vm.guest.command('flush')
        vm.quit()
        self.overwritten(plan, vm.guest.rounds())

    def overwritten(self, plan: Rounds, last: int) -> None:
        """What is expected now, after so many rounds of another guest."""
        self.heard = None
        for disk, versions in enumerate(history(plan, last)):
            for number, version in enumerate(versions):
                if version:
                    place = slice(number * SECTOR, (number + 1) * SECTOR)
                    self.expected[disk][place] = sector(disk, number, version)


def slowly(_kind: str, data: bytes) -> bytes:
    """What comes through the relay comes no faster than RATE."""
    time.sleep(len(data) / RATE)
    return data


def chosen(moved: Migrated, hosts: Hosts, seed: int, count: int,
           lost: bool) -> Iterator[Cut]:
    """So many cuts, spread over the time; most when the disk is in both.

    With @lost the destination's host has lost power in each of them.
    """
    found: dict[str, list[tuple[int, int]]] = defaultdict(list)
    for cut in cuts(moved, seed, max(LEAST, LOOKED_AT * count)):
        if not lost or cut.left[1] is not Left.ALL:
            found[hosts.whose(cut)].append((cut.place, cut.number))
    require(set(found) == set(OWNERS), f'not all happened: {list(found)}')
    chance, picked = random.Random(seed), set()
    for whose, names in found.items():
        share = count // 5 if whose != BOTH else count - 2 * (count // 5)
        for part in range(share):
            first, behind = (len(names) * end // share
                             for end in (part, part + 1))
            picked.add(names[chance.randrange(first, behind)])
    log = list(read_log(moved.log))
    for cut in cuts_of(log, {place for place, _ in picked}, seed):
        if (cut.place, cut.number) in picked:
            yield cut


def end(ending: Ending, cut: Cut) -> None:
    """Bring one cut to its end."""
    try:
        ending.both_dead()
    except TestFailure as error:
        raise TestFailure(
            f'{cut}: {error}\n(seed {ending.setting.seed}; the way out: '
            f'{", ".join(ending.taken) or "none yet"})') from error


def end_cuts(moved: Migrated, seed: int, folder: Path, count: int,
             lost: bool = False) -> Counter[str]:
    """Bring some cuts to their ends; return which ways were taken."""
    hosts, ways = Hosts(moved.images, folder), Counter[str]()
    for number, cut in enumerate(chosen(moved, hosts, seed, count, lost)):
        ending = Ending(moved.setting, hosts, cut,
                        moved.heard.at(cut.entry.time))
        ending.working = number % WORKING == 1
        end(ending, cut)
        ways[', '.join(ending.taken)] += 1
    return ways


def destination_lost(scene: Scene, variant: Variant, seed: int) -> None:
    """The destination's host loses power; the source's QEMU waits for it.

    What is left is found by the QEMU that rejoins, to which the source sends
    the rest; meanwhile the guest has booted, and writes.
    """
    with logged(scene, variant, seed) as moving:
        scene.guest.wait_rounds(20)
        setting = moving.setting
        setting.destination.kill()
        moved = moving.now()
        log = list(read_log(moved.log))
        wanted = Left.ALL, (Left.SOME, Left.NOTHING)[seed % 2]
        cut = next(cut for cut in cuts_of(log, {len(log) - 1}, seed)
                   if cut.left == wanted)
        hosts = Hosts(moved.images, scene.folder / 'cut')
        ending = Ending(setting, hosts, cut, scene.guest.rounds())
        with ending.rejoined() as vm:
            ending.work(vm)
        setting.source.wait_migration('completed')
        setting.source.quit()
        ending.at_destination()
        print(f'# {cut}: {", ".join(ending.taken)}', flush=True)
