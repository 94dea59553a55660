# SPDX-License-Identifier: GPL-2.0-or-later
"""What is sent of a guest's memory, in each of the ways.

The destination has a copy of the disk from before, so the disk is compared
and not sent: that takes seconds, and memory sees the same in all ways.
"""

from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Callable, Iterable, Optional

from dev.bench.apps import PROBLEMS
from dev.bench.debian_guest import DebianScene, disk_of
from dev.bench.far_link import DelayedLink
from dev.bench.memory_guests import HARD, SIBLINGS, guest_config, start
from dev.bench.memory_move import move
from dev.bench.memory_sets import set_of
from dev.bench.memory_ways import (BOTH, DEFAULT, DISK, FIRST_WAYS,
                                   MEMORY_WAYS, PLAIN, XBZRLE, ZSTD_1, Way)
from dev.bench.methods import Stage
from dev.bench.sample import Sample, Samples
from dev.bench.settings import Settings
from dev.demo.client import Heartbeat
from dev.demo.network import Network, make_network
from dev.rig.basics import wait_until
from dev.rig.host import Link
from dev.rig.vm import Vm

READING = 'reading'             # the guest reads files while it moves
FAR_GUEST = 'pgbench'
FAR_WAYS = (DEFAULT, PLAIN, ZSTD_1, DISK, BOTH)
HARD_WAYS = (DEFAULT, PLAIN, ZSTD_1, DISK, BOTH)
READING_WAYS = (XBZRLE, PLAIN, ZSTD_1, DISK)


@dataclass(frozen=True)
class Road:
    """The link that memory is moved over."""
    mbit: int = 0                   # 0: no limit
    trip_ms: int = 0                # round trip

    @property
    def rate(self) -> Optional[str]:
        return f'{self.mbit}mbit' if self.mbit else None

    @property
    def key(self) -> str:
        return f'{self.mbit} {self.trip_ms}'

    def make(self, rate: Optional[str]) -> Link:
        return DelayedLink(rate, self.trip_ms / 2000) if self.trip_ms \
            else Link(rate)


def road_of(settings: Settings) -> Road:
    """That of the sections that compare bytes."""
    return Road(settings.memory_links_mbit[0], settings.memory_trips_ms[0])


@dataclass(frozen=True)
class Errand:
    """One move of a guest."""
    guest: str
    way: Way
    road: Road
    adaptive: bool = False          # a busy machine would blur the bytes
    reads: bool = False             # files, while it moves


@dataclass(frozen=True)
class Stand:
    """Where a guest is moved in one of the ways."""
    scene: DebianScene
    network: Network
    way: Way
    pages: Optional[Path]           # of a set of templates

    def open_destination(self, source: Vm) -> Vm:
        """With a copy of the disk of the guest when its state was kept."""
        image = self.scene.copy_image('destination',
                                      disk_of(self.scene.files.state))
        destination = self.scene.destination('defer', images=[image])
        self.listen(source, destination)
        return destination

    def listen(self, source: Vm, destination: Vm) -> None:
        self.way.set_up(source, destination, self.pages)
        destination.qmp.cmd('migrate-incoming',
                            uri=f'tcp:{destination.address()}:0')

    def stage(self, source: Vm, destination: Vm,
              settings: Settings) -> Stage:
        return Stage(self.scene, source, destination,
                     settings.memory_give_up)


def move_guest(stand: Stand, errand: Errand, settings: Settings,
               sample: Sample) -> None:
    source = stand.scene.source()
    with closing(Heartbeat(stand.network)) as heartbeat:
        wait_until(heartbeat.last, 'the guest answers')
    destination = stand.open_destination(source)
    job = start(stand.network, 'begin', 'read', settings.memory_reads_kib) \
        if errand.reads else None
    try:
        move(stand.stage(source, destination, settings), stand.network,
             errand.way.options | {'memory_adaptive': errand.adaptive},
             sample)
    finally:
        if job:
            job.close()
    source.quit()
    destination.quit()


def perform(guest: str, way: Way, road: Road, settings: Settings,
            play: Callable[[Stand, Sample], None]) -> Sample:
    """On a fresh scene; what goes wrong is the sample's failure."""
    sample = Sample(way.name, guest)
    try:
        config = guest_config(guest, settings.app_memory)
        pages = set_of(guest, way.threshold, settings) if way.threshold \
            else None
        with make_network(road.rate, road.make) as network:
            scene = DebianScene(config, network)
            try:
                play(Stand(scene, network, way, pages), sample)
            finally:
                scene.close()
    except PROBLEMS as err:
        sample.failure = f'{type(err).__name__}: {err}'
    return sample


def measure(errand: Errand, settings: Settings) -> Sample:
    return perform(
        errand.guest, errand.way, errand.road, settings,
        lambda stand, sample: move_guest(stand, errand, settings, sample))


def in_turns(guests: Iterable[str], ways: Iterable[str], road: Road,
             settings: Settings) -> Samples:
    """Keys are the guest and the way."""
    for guest in guests:
        for name in ways:
            yield f'{guest} {name}', measure(
                Errand(guest, MEMORY_WAYS[name], road), settings)


def section_siblings(settings: Settings) -> Samples:
    """All ways, with guests that were made from one image."""
    for _ in range(settings.few_rounds):
        yield from in_turns(SIBLINGS[:settings.memory_guests], FIRST_WAYS,
                            road_of(settings), settings)


def section_far(settings: Settings) -> Samples:
    """Links that are faster, or farther; at last no limit at all.

    Keys are Mbit/s, milliseconds, and the way.
    """
    roads = [Road(mbit, trip) for mbit in settings.memory_links_mbit
             for trip in settings.memory_trips_ms]
    for _ in range(settings.few_rounds):
        for road in [*roads, Road()]:
            for name in FAR_WAYS:
                yield f'{road.key} {name}', measure(
                    Errand(FAR_GUEST, MEMORY_WAYS[name], road, adaptive=True),
                    settings)


def section_hard(settings: Settings) -> Samples:
    """Memory that is nowhere else, and a guest that reads its disk."""
    road = road_of(settings)
    for _ in range(settings.few_rounds):
        yield from in_turns(HARD, HARD_WAYS, road, settings)
        for name in READING_WAYS:
            yield f'{READING} {name}', measure(
                Errand('idle', MEMORY_WAYS[name], road, reads=True), settings)


MEMORY_SECTIONS = {
    'memory-siblings': section_siblings,
    'memory-far': section_far,
    'memory-hard': section_hard,
}
