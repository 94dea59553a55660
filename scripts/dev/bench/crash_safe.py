# SPDX-License-Identifier: GPL-2.0-or-later
"""What it costs that a guest survives the death of its destination.

The same moves with maps of missing blocks and without, in turns: how long the
guest is frozen, and what PostgreSQL does in a long post-copy, where each of
its commits is a flush that has to wait for the map, too.
"""

import os
import time
from contextlib import closing
from dataclasses import replace
from functools import partial
from typing import Callable

from dev.bench.apps import PROBLEMS, milliseconds, rate
from dev.bench.debian_guest import DebianConfig, DebianScene, debian_config
from dev.bench.methods import WSM, Stage, final_query
from dev.bench.moving import NO_LIMIT, Plan, allocated, prepare, verify
from dev.bench.pull import ALL_AT_ONCE_MS, WRITERS, hand_over
from dev.bench.sample import Sample, Samples, latencies
from dev.bench.settings import BUSY, Settings, machine
from dev.bench.workloads import GuestClock, Postgresql
from dev.common import BUILD
from dev.demo.network import make_network
from dev.rig.basics import require
from dev.rig.qmp import Json
from dev.rig.scene import Scene, begin, disk_total, finish, wait_phase
from dev.rig.vm import Vm

WITH, WITHOUT = 'with maps', 'without maps'
OPTION = {WITH: 'on', WITHOUT: 'off'}
# In post-copy next to nothing is pushed, so that it lasts
PUSH_DELAY_MS = 5000
FLUSHERS = {'writers': 1, 'full': 1, 'flush': 1}
BEFORE_SECONDS, SETTLE_SECONDS = 8.0, 5.0
NO_CLOCK = GuestClock(0, 0, 0)


def move_once(plan: Plan, kind: str, load: Json,
              work: Callable[[Stage, Sample], None]) -> Sample:
    """Let @work move a guest, and verify that it has moved well."""
    sample = Sample(WSM, kind, load_average=os.getloadavg()[0])
    scene = Scene(plan.config)
    try:
        if plan.limited:
            scene.make_link(plan.rate)
        source = prepare(scene, plan)
        source.set_params(max_bandwidth=NO_LIMIT)
        source.set_caps('events')
        if load:
            scene.guest.start(**load)
        destination = scene.destination(crash_safe=OPTION[kind])
        work(Stage(scene, source, destination, plan.settings.give_up), sample)
        verify(scene, plan, sample)
        source.quit()
        destination.quit()
    except PROBLEMS as err:
        sample.failure = f'{type(err).__name__}: {err}'
    finally:
        scene.close()
    return sample


def freeze(stage: Stage, sample: Sample) -> None:
    """See how long the guest is down."""
    stage.begin()
    begin(stage.source, stage.uri())
    sample.synchronised = stage.wait_both() - stage.start
    sample.stopped = (stage.wait(stage.destination, 'RESUME')
                      - stage.wait(stage.source, 'STOP'))
    sample.wsm = final_query(stage.source)


def freeze_once(settings: Settings, kind: str) -> Sample:
    """A guest that writes."""
    plan = Plan(machine(settings.disk), settings, BUSY, limited=False,
                data=((0, settings.crash_data),))
    return move_once(plan, kind, {}, freeze)


# Each write with a flush of its own, to blocks that are nearly all missing

def flush_in_postcopy(stage: Stage, settings: Settings,
                      sample: Sample) -> None:
    guest = stage.scene.guest
    guest.start(**FLUSHERS)
    guest.wait_progress(writes=50)
    begun = time.time()
    time.sleep(settings.crash_seconds / 2)
    ended = time.time()
    sample.numbers['missing at last'] = disk_total(stage.destination,
                                                   'missing')
    require(sample.numbers['missing at last'] > 0, 'post-copy is over')
    guest.stop()
    beats = [beat for beat in guest.beats(begun) if beat.time <= ended]
    first, last = beats[0], beats[-1]
    sample.numbers['rate'] = ((last.flushes - first.flushes)
                              / (last.time - first.time))
    sample.latency['during'] = latencies(beats, begun, ended,
                                         'worst_flush_us')


def flushes(stage: Stage, sample: Sample, settings: Settings) -> None:
    """As fast as it can, with next to nothing that is pushed."""
    hand_over(stage, settings)
    flush_in_postcopy(stage, settings, sample)
    stage.source.qmp.cmd('wsm-set-options', x_push_delay=0, bandwidth=0)
    sample.synchronised = stage.wait_both() - stage.start


def flushes_once(settings: Settings, kind: str) -> Sample:
    """A guest that has just written nearly all of its disk anew."""
    plan = Plan(machine(settings.pull_data), settings,
                data=((0, settings.pull_data),))
    return move_once(plan, kind, WRITERS, partial(flushes, settings=settings))


class Commits(Postgresql):
    """As many transactions as it can; each ends with a flush."""

    def microseconds(self, fields: list[str]) -> int:
        """Since it was begun: all are overdue."""
        return int(fields[2]) - int(fields[6])


def look_at_postcopy(destination: Vm, settings: Settings,
                     sample: Sample) -> tuple[float, float]:
    """Return from when until when."""
    wait_phase(destination, 'postcopy')
    time.sleep(SETTLE_SECONDS)
    begun = time.time()
    sample.numbers['missing at first'] = disk_total(destination, 'missing')
    time.sleep(settings.crash_seconds)
    ended = time.time()
    sample.numbers['missing at last'] = disk_total(destination, 'missing')
    require(sample.numbers['missing at last'] > 0, 'post-copy is over')
    return begun, ended


def commit_in_postcopy(scene: DebianScene, settings: Settings,
                       sample: Sample) -> None:
    source = scene.source()
    with closing(Commits(scene.network, settings, scene.folder,
                         scene.files.home / 'pgbench')) as workload:
        workload.start()
        time.sleep(settings.app_warm_up)
        destination = scene.destination(config=scene.config,
                                        crash_safe=OPTION[sample.load])
        source.set_params(max_bandwidth=NO_LIMIT)
        start = time.time()
        # As slow as this, so that much is written to again meanwhile
        begin(source, scene.uri(destination), max_residue=ALL_AT_ONCE_MS,
              bandwidth=allocated(source.images) // settings.crash_precopy,
              x_push_delay=PUSH_DELAY_MS)
        begun, ended = look_at_postcopy(destination, settings, sample)
        source.qmp.cmd('wsm-set-options', x_push_delay=0, bandwidth=0)
        finish(source, destination)
        workload.stop()
        requests = workload.requests(NO_CLOCK)
        sample.rate_before = rate(requests, start - BEFORE_SECONDS, start)
        sample.numbers['rate'] = rate(requests, begun, ended)
        sample.latency['during'] = milliseconds(
            [request.seconds for request in requests
             if begun <= request.end < ended])
        require(not workload.errors,
                f'{workload.errors} clients lost their connection')
        workload.check()
        sample.synchronised = time.time() - start
        source.quit()
        destination.quit()


def commits_once(config: DebianConfig, settings: Settings,
                 kind: str) -> Sample:
    """On the disk of this machine: in memory a flush would cost nothing."""
    sample = Sample(WSM, kind, load_average=os.getloadavg()[0])
    try:
        with make_network(f'{settings.paper_link_mbit}mbit') as network:
            scene = DebianScene(config, network, folder=BUILD)
            try:
                commit_in_postcopy(scene, settings, sample)
            finally:
                scene.close()
    except PROBLEMS as err:
        sample.failure = f'{type(err).__name__}: {err}'
    return sample


def in_turns(rounds: int, measure: Callable[[str], Sample]) -> Samples:
    """Which is first takes turns, too."""
    for turn in range(rounds):
        for kind in (WITHOUT, WITH) if turn % 2 == 0 else (WITH, WITHOUT):
            yield kind, measure(kind)


def section_freeze(settings: Settings) -> Samples:
    """How long the guest is down."""
    yield from in_turns(settings.crash_pairs,
                        lambda kind: freeze_once(settings, kind))


def section_flushes(settings: Settings) -> Samples:
    """What a flush takes."""
    yield from in_turns(settings.many_rounds,
                        lambda kind: flushes_once(settings, kind))


def section_commits(settings: Settings) -> Samples:
    """PostgreSQL in post-copy."""
    config = debian_config(settings.app_memory)
    busy = replace(settings, app_transactions=settings.crash_transactions)
    yield from in_turns(settings.many_rounds,
                        lambda kind: commits_once(config, busy, kind))


CRASH_SECTIONS = {'crash-safe-freeze': section_freeze,
                  'crash-safe-flushes': section_flushes,
                  'crash-safe-commits': section_commits}
