# SPDX-License-Identifier: GPL-2.0-or-later
"""The measurements of incremental migration: back, resumed, from a template.

A journey is one guest that moves between the two hosts again and again, each
time to the image that it left there.  So the ways that are compared follow
each other, on the same machine in the same minute.
"""

import random
import time
from collections import deque
from dataclasses import replace

from dev.bench.methods import METHODS, POLL_SECONDS, WSM, Stage
from dev.bench.moving import Plan, attempt, move_once, prepare, verify
from dev.bench.sample import Sample, Samples
from dev.bench.settings import CALM, Settings, machine
from dev.rig.basics import require, run
from dev.rig.guest import Request
from dev.rig.image import Image
from dev.rig.qmp import QmpClosed
from dev.rig.scene import Scene, begin, disk_total
from dev.rig.vm import Vm

BLOCK = 4096
PIECES = 4096                   # of unique writes; each is a command
AT_ONCE = 8                     # commands under way in the guest


class Journey:
    """A guest and the two hosts; use as a context."""

    def __init__(self, settings: Settings, load: bool,
                 way: str = WSM) -> None:
        self.method = METHODS[way]
        self.plan = Plan(machine(settings.disk), settings,
                         CALM if load else None, data=((0, settings.data),))
        self.scene = Scene(self.plan.config, self.method.binary)
        self.scene.make_link(f'{settings.link_mbit}mbit')
        self.here = prepare(self.scene, self.plan)
        self.there: list[Image] = []    # at the other host; empty: none
        self._moves = 0

    def __enter__(self) -> 'Journey':
        return self

    def __exit__(self, *_: object) -> None:
        self.scene.close()

    def open_other(self, images: list[Image]) -> Vm:
        """A QEMU at the other host that waits for the guest.

        It has these images, or blank ones if there are none.
        """
        self._moves += 1
        at_a = self.here.host == self.scene.link.a if self.scene.link else True
        where = 'destination' if at_a else 'home'
        return self.scene.destination(
            name=f'{where}-{self._moves}', images=images,
            wsm=self.method.name == WSM,
            config=self.method.waiting(self.plan.config))

    def go(self, wait: float = 0.0) -> Sample:
        """Move on, to the images at the other host; wait for so long before.

        The QEMU that the guest leaves is ended.
        """
        other = self.open_other(self.there)
        plan = replace(self.plan, settings=replace(self.plan.settings,
                                                   before_seconds=wait))
        sample = Sample(self.method.name,
                        plan.load.name if plan.load else 'idle')
        move_once(Stage(self.scene, self.here, other, plan.settings.give_up),
                  plan, sample)
        self.here.quit()
        self.there = self.here.images
        self.here = other
        return sample

    def write_unique(self, total: int) -> None:
        """Write so much, in pieces at random places, none twice."""
        size = max(BLOCK, total // PIECES)
        sectors = size // 512
        places = random.sample(range(self.plan.settings.data // size),
                               total // size)
        waiting: deque[Request] = deque()
        for place in places:
            waiting.append(self.scene.guest.start_command(
                f'write 0 {place * sectors} {sectors}'))
            if len(waiting) >= AT_ONCE:
                waiting.popleft().wait()
        for request in waiting:
            request.wait()
        self.scene.guest.command('flush')

    def finish(self, sample: Sample) -> None:
        """The guest reads back everything; end it."""
        verify(self.scene, self.plan, sample)
        self.here.quit()


# After w bytes of writes

def back_after_writes(settings: Settings) -> Samples:
    with Journey(settings, load=False) as journey:
        journey.go()
        done: list[tuple[str, Sample]] = []
        for written in (0, *settings.back_writes):
            journey.write_unique(written)
            done.append((str(written), journey.go()))
        journey.finish(done[-1][1])
        yield from done


# Against the way there

def there_and_back(settings: Settings) -> Samples:
    """At 100 writes/s all the time; at last, only between two ways."""
    seconds = settings.away_seconds
    with Journey(settings, load=True) as journey:
        guest = journey.scene.guest
        done = [('there', journey.go(settings.before_seconds))]
        done.append(('back', journey.go(seconds)))
        guest.stop()
        journey.go()            # a way with nothing to do with it
        guest.start(**CALM.words())
        time.sleep(seconds)
        guest.stop()
        done.append(('between', journey.go()))
        journey.finish(done[-1][1])
        yield from done


def section_return(settings: Settings) -> Samples:
    for _ in range(settings.rounds):
        yield from attempt('there', lambda: there_and_back(settings))


# Resuming

def cancel_half(journey: Journey, settings: Settings, other: Vm) -> int:
    """Returns how much was sent before."""
    source = journey.here
    begin(source, journey.scene.uri(other))
    while disk_total(source, 'sent') < settings.data // 2:
        require(source.migration_status() in ('setup', 'active'),
                f'it is {source.migration_status()} already')
        time.sleep(POLL_SECONDS)
    source.qmp.cmd('migrate_cancel')
    source.wait_migration('cancelled')
    count = disk_total(source, 'sent')
    try:
        other.qmp.cmd('quit')
    except QmpClosed:
        pass
    other.wait_exit()
    return count


def resume_half(settings: Settings) -> Samples:
    with Journey(settings, load=True) as journey:
        journey.here.set_params(max_bandwidth=1 << 40)
        other = journey.open_other([])
        before = cancel_half(journey, settings, other)
        journey.there = other.images
        sample = journey.go()
        sample.numbers['before'] = before
        journey.finish(sample)
        yield 'resumed', sample


def section_resume(settings: Settings) -> Samples:
    """Cancelled when half of the data was sent, then begun again."""
    for _ in range(settings.rounds):
        yield from attempt('resumed', lambda: resume_half(settings))


# Templates

def copy_there(journey: Journey) -> Image:
    """The other host has the same image as this one."""
    journey.there = journey.scene.new_images('template')
    copy = journey.there[0]
    run('cp', '--sparse=always', str(journey.here.images[0].path),
        str(copy.path))
    return copy


def seed(image: Image, data: int, share: float) -> None:
    """Overwrite this share of the blocks, scattered at random."""
    count = data // BLOCK
    with open(image.path, 'r+b') as out:
        for block in random.sample(range(count), round(count * share)):
            out.seek(block * BLOCK)
            out.write(random.randbytes(BLOCK))


def from_template(settings: Settings) -> Samples:
    with Journey(settings, load=False) as journey:
        copy = copy_there(journey)
        seed(copy, settings.data, settings.template_differs)
        sample = journey.go()
        journey.finish(sample)
        yield 'template', sample


def section_template(settings: Settings) -> Samples:
    """The destination has an image that is nearly equal."""
    for _ in range(settings.rounds):
        yield from attempt('template', lambda: from_template(settings))


BACK_SECTIONS = {
    'return': section_return,
    'resume': section_resume,
    'template': section_template,
}
