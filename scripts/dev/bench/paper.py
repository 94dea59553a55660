# SPDX-License-Identifier: GPL-2.0-or-later
"""The tables of the paper that this work follows, measured anew.

Luo, Zhang, Wang, Wang, Sun, Chen: Live and Incremental Whole-System Migration
of Virtual Machines Using Block-Bitmap (IEEE Cluster 2008).  A guest with one of
three workloads moves (there: "three-phase migration"), works on at the other
host, and moves back ("incremental migration"); its clients stay all the time.
"""

import re
import time
from contextlib import closing
from dataclasses import replace
from functools import partial
from typing import Iterable

from dev.bench.apps import PROBLEMS, Move, check_file_system
from dev.bench.debian_guest import (PAPER_RECIPE, DebianConfig, DebianScene,
                                    debian_config)
from dev.bench.methods import WSM, Stage
from dev.bench.moving import allocated
from dev.bench.paper_cost import section_paper_cost
from dev.bench.paper_loads import Bank, Bonnie, Video
from dev.bench.sample import Sample, Samples
from dev.bench.settings import Settings
from dev.bench.workloads import Factory, Workload
from dev.demo.client import Heartbeat
from dev.demo.network import make_network
from dev.rig.basics import require, wait_until
from dev.rig.scene import disk_total
from dev.rig.vm import Vm

THERE, BACK = 'there', 'back'
PASS, LEFT = 'wsm_source_pass', 'wsm_save_freeze'
LINE = re.compile(rf'\b({PASS}|{LEFT})\b.*?\b(?:sent|dirty) (\d+)')


def passes(lines: Iterable[str]) -> dict[str, float]:
    """What the source wrote down of its passes over the disk; bytes.

    "again" is what was sent in passes after the first, before the freeze.
    """
    seen: dict[str, list[int]] = {PASS: [], LEFT: []}
    for line in lines:
        found = LINE.search(line)
        if found:
            seen[found[1]].append(int(found[2]))
    require(seen[PASS] and seen[LEFT], 'the source traced no pass')
    return {'passes': len(seen[PASS]), 'again': sum(seen[PASS][1:]),
            'left': sum(seen[LEFT])}


class Journey:
    """A guest with a workload and its clients, between two hosts."""

    def __init__(self, scene: DebianScene, settings: Settings,
                 heartbeat: Heartbeat, workload: Workload) -> None:
        self.scene = scene
        self.settings = settings
        self.heartbeat = heartbeat
        self.workload = workload
        self.here = scene.source()
        self.moves: list[Move] = []

    def go(self, sample: Sample, other: Vm) -> None:
        """Move; the QEMU that the guest leaves is ended."""
        source = self.here
        for event in (PASS, LEFT):
            source.qmp.cmd('trace-event-set-state',
                           {'name': event, 'enable': True})
        data = allocated(source.images) / self.settings.app_link_bytes
        give_up = self.settings.give_up + self.settings.app_give_up * data
        move = Move(Stage(self.scene, source, other, give_up),
                    self.settings, self.heartbeat, sample)
        move.run()
        require(not sample.failure, sample.failure)
        self.moves.append(move)
        sample.numbers |= passes(source.stderr().splitlines())
        sample.numbers['pulled'] = disk_total(source, 'pulled')
        source.quit()
        self.here = other

    def finish(self) -> None:
        """Stop the clients, look at what they saw, and check the guest."""
        workload = self.workload
        workload.stop()
        for move in self.moves:
            move.look_at(workload.requests(move.clock()))
            move.sample.numbers |= workload.figures(move.stage.start,
                                                    move.until)
        require(not workload.errors,
                f'{workload.errors} clients lost their connection')
        workload.check()
        check_file_system(workload, self.here)
        for move in self.moves:
            move.sample.wrong = 0


def travel(scene: DebianScene, factory: Factory, settings: Settings,
           there: Sample, back: Sample) -> None:
    with (closing(Heartbeat(scene.network)) as heartbeat,
          closing(factory(scene.network, settings,
                          scene.folder)) as workload):
        journey = Journey(scene, settings, heartbeat, workload)
        old = journey.here.images
        wait_until(heartbeat.last, 'the guest answers')
        workload.start()
        time.sleep(settings.app_warm_up)
        journey.go(there, scene.destination())
        # There, the next move's time before is a part of it
        time.sleep(max(0.0, settings.paper_away - settings.app_before))
        journey.go(back, scene.destination(images=old, name='home'))
        journey.finish()


def there_and_back(config: DebianConfig, name: str, factory: Factory,
                   settings: Settings) -> Samples:
    there, back = Sample(WSM, name), Sample(WSM, name)
    try:
        with make_network(f'{settings.app_link_mbit}mbit') as network:
            scene = DebianScene(config, network)
            try:
                travel(scene, factory, settings, there, back)
            finally:
                scene.close()
    except PROBLEMS as err:
        for sample in (there, back):
            sample.failure = sample.failure or f'{type(err).__name__}: {err}'
    yield f'{name} {THERE}', there
    yield f'{name} {BACK}', back


def workloads(config: DebianConfig) -> dict[str, Factory]:
    return {'web': Bank, 'bonnie': Bonnie,
            'video': partial(Video, film=config.home / 'film')}


def section_paper(settings: Settings) -> Samples:
    """Each workload there and back."""
    config = debian_config(settings.app_memory, PAPER_RECIPE)
    settings = replace(settings, app_link_mbit=settings.paper_link_mbit)
    for _ in range(settings.few_rounds):
        for name, factory in workloads(config).items():
            yield from there_and_back(config, name, factory, settings)


PAPER_SECTIONS = {'paper': section_paper, 'paper-cost': section_paper_cost}
