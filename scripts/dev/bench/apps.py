# SPDX-License-Identifier: GPL-2.0-or-later
"""Applications in a Debian guest that is moved, in each of the ways.

All times are the wall clock of the machine, which QEMU's events and the
clients share.
"""

import os
import time
from collections.abc import Callable
from contextlib import closing
from functools import partial

from dev.bench.debian_guest import DebianConfig, DebianScene, debian_config
from dev.bench.methods import METHODS, MIRROR, SHARED, SYNC, WSM, Stage, phases
from dev.bench.moving import (NO_LIMIT, account, allocated, sent_bytes,
                              sides_cpu)
from dev.bench.sample import BIN_SECONDS, Sample, Samples, percentiles
from dev.bench.settings import Settings
from dev.bench.workloads import (Build, Factory, Fio, GuestClock, Postgresql,
                                 Request, Web, Workload, guest_clock)
from dev.common import Failure
from dev.demo.client import Heartbeat
from dev.demo.network import make_network
from dev.rig.basics import TestFailure, require, run
from dev.rig.qmp import QmpClosed, QmpError
from dev.rig.vm import Vm

WAYS = (WSM, MIRROR, SYNC, SHARED)
PROBLEMS = (TestFailure, Failure, QmpError, QmpClosed, OSError)


class Move:
    """One move of the guest with its clients, and what they saw."""

    def __init__(self, stage: Stage, settings: Settings,
                 heartbeat: Heartbeat, sample: Sample) -> None:
        self.stage = stage
        self.settings = settings
        self.heartbeat = heartbeat
        self.sample = sample
        self.since = 0.0                # the measured time before
        # Until there is more to tell, the moment of giving up
        self.stop = self.resume = self.end = self.until = 0.0

    def run(self) -> None:
        """A way that is given up counts as failed, but is looked at."""
        stage, sample, source = self.stage, self.sample, self.stage.source
        source.set_params(max_bandwidth=NO_LIMIT)
        source.set_caps('events')
        self.since = time.time()
        time.sleep(self.settings.app_before)
        sample.du_before = allocated(source.images)
        sample.load_average = os.getloadavg()[0]
        sent, cpu = sent_bytes(source), sides_cpu(stage)
        try:
            self.end = METHODS[sample.way].run(stage)
            self.stop = stage.wait(source, 'STOP')
            self.resume = stage.wait(stage.destination, 'RESUME')
        except TestFailure as err:
            sample.failure = str(err)
            self.stop = self.resume = self.end = time.time()
        sample.phases = phases(stage, sample.way)
        sample.link_bytes = sent_bytes(source) - sent
        sample.cpu = {side: seconds - cpu[side]
                      for side, seconds in sides_cpu(stage).items()}
        if not sample.failure:
            time.sleep(self.settings.app_after)
            self.end = max(self.end, self.resume)
            account(stage, sample, (self.stop, self.resume, self.end),
                    self.settings.app_link_bytes)
        self.until = time.time()

    def clock(self) -> GuestClock:
        """Takes the heartbeats, too."""
        sample, wall = self.sample, time.time() - time.monotonic()

        def longest(since: float, until: float) -> float:
            return max((gap.length for gap in self.heartbeat.gaps(
                since - wall, until - wall)), default=until - since)

        start = self.stage.start
        sample.longest_gap_before = longest(self.since, start)
        sample.longest_gap = longest(start, self.end)
        if not sample.failure:
            sample.gap = longest(self.stop, self.resume)
        return guest_clock([(here + wall, there) for here, there
                            in self.heartbeat.clocks()],
                           self.stop, self.resume)

    def look_at(self, requests: list[Request]) -> None:
        """Take what the clients were answered."""
        sample, start = self.sample, self.stage.start
        windows = {'before': (self.since, start), 'during': (start, self.stop),
                   'move': (start, self.until)}
        for name, (since, until) in windows.items():
            sample.latency[name] = milliseconds(
                [request.seconds for request in requests
                 if since <= request.end < until])
        # What waited while the guest was frozen is no matter of afterwards
        sample.latency['after'] = milliseconds(
            [request.seconds for request in requests
             if request.end - request.seconds >= self.resume])
        sample.rate_before = rate(requests, self.since, start)
        sample.rates = (rates(requests, start, self.stop)
                        + rates(requests, self.resume, self.end))
        sample.rates_after = rates(requests, self.end, self.until)
        sample.numbers['rate during'] = rate(requests, start, self.end)
        sample.series = time_line(requests, self.since, start, self.until)


def milliseconds(seconds: list[float]) -> dict[str, float]:
    return {name: round(value * 1000, 3)
            for name, value in percentiles(seconds).items()}


def rate(requests: list[Request], since: float, until: float) -> float:
    """Answers per second."""
    count = sum(since <= request.end < until for request in requests)
    return count / (until - since)


def rates(requests: list[Request], since: float, until: float) -> list[float]:
    """Answers in each whole second of this time."""
    return [rate(requests, since + second, since + second + 1)
            for second in range(int(until - since))]


def time_line(requests: list[Request], since: float, start: float,
              until: float) -> list[tuple[float, float]]:
    """Begin and end of each bin, and the answers per second in it."""
    result = []
    for number in range(int((until - since) / BIN_SECONDS)):
        begin = since + number * BIN_SECONDS
        value = rate(requests, begin, begin + BIN_SECONDS)
        result += [(begin - start, value),
                   (begin + BIN_SECONDS - start, value)]
    return [(round(moment, 2), value) for moment, value in result]


def finish(move: Move, workload: Workload, vm: Vm) -> None:
    """Stop the clients, look at what they saw, and check the guest."""
    sample = move.sample
    workload.stop()
    move.look_at(workload.requests(move.clock()))
    require(not workload.errors,
            f'{workload.errors} clients lost their connection')
    workload.check()
    check_file_system(workload, vm)
    if not sample.failure:
        sample.wrong = 0


def check_file_system(workload: Workload, vm: Vm) -> None:
    """Brings the guest to rest and ends its QEMU; fails if it is damaged."""
    workload.job('freeze')
    vm.quit()
    run('e2fsck', '-fn', str(vm.images[0].path))


def move_guest(sample: Sample, scene: DebianScene, factory: Factory,
               settings: Settings) -> None:
    method = METHODS[sample.way]
    source = scene.source()
    with (closing(Heartbeat(scene.network)) as heartbeat,
          closing(factory(scene.network, settings,
                          scene.folder)) as workload):
        workload.start()
        time.sleep(settings.app_warm_up)
        destination = method.open_destination(scene, source, scene.config)
        data = allocated(source.images) / settings.app_link_bytes
        stage = Stage(scene, source, destination, settings.app_give_up * data)
        move = Move(stage, settings, heartbeat, sample)
        move.run()
        # A way that was given up may have left the guest on either side
        finish(move, workload, source if source.status() == 'running'
               else destination)


def measure_app(config: DebianConfig, name: str, factory: Factory, way: str,
                settings: Settings) -> Sample:
    sample = Sample(way, name)
    try:
        with make_network(f'{settings.app_link_mbit}mbit') as network:
            scene = DebianScene(config, network, METHODS[way].binary)
            try:
                move_guest(sample, scene, factory, settings)
            finally:
                scene.close()
    except PROBLEMS as err:
        sample.failure = sample.failure or f'{type(err).__name__}: {err}'
    return sample


def postgresql(config: DebianConfig) -> Factory:
    return partial(Postgresql, program=config.home / 'pgbench')


APPLICATIONS: dict[str, Callable[[DebianConfig], Factory]] = {
    'postgresql': postgresql,
    'web': lambda config: Web,
    'fio': lambda config: Fio,
    'build': lambda config: Build,
}


def section_app(name: str) -> Callable[[Settings], Samples]:
    def function(settings: Settings) -> Samples:
        config = debian_config(settings.app_memory)
        factory = APPLICATIONS[name](config)
        for _ in range(settings.few_rounds):
            for way in WAYS:
                yield way, measure_app(config, name, factory, way, settings)
    return function


APP_SECTIONS = {f'app-{name}': section_app(name) for name in APPLICATIONS}
