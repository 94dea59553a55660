# SPDX-License-Identifier: GPL-2.0-or-later
"""Move one guest under load, in one of the ways of methods.py.

Times come from QMP events, which carry QEMU's own time stamps, and from the
guest's heartbeats; so polling does not blur them.
"""

import os
import statistics
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Callable, Optional

from dev.bench.methods import METHODS, SHARED, WSM, Stage, final_query, phases
from dev.bench.sample import (SETTLE_SECONDS, Sample, Samples, latencies,
                              longest_gap, rates_between, series)
from dev.bench.settings import Load, Settings
from dev.rig.basics import TestFailure
from dev.rig.host import Link
from dev.rig.image import MIB, Image
from dev.rig.qmp import Json, QmpClosed, QmpError
from dev.rig.scene import Scene
from dev.rig.vm import MachineConfig, Vm

NO_LIMIT = 1 << 40              # max-bandwidth, bytes per second
LEAD_SECONDS = 3.0              # of the time line, before the move
TICKS = os.sysconf('SC_CLK_TCK')
GUEST_DISKS = 8                 # MAX_DISKS of tests/guest


@dataclass(frozen=True)
class Plan:
    """How to set up one move."""
    config: MachineConfig
    settings: Settings
    load: Optional[Load] = None     # None: an idle guest
    limited: bool = True            # by the link
    data: tuple[tuple[int, int], ...] = ()  # offset, bytes; of each disk
    meter: Optional[Callable[[Vm], Any]] = None     # see memory.py
    link_mbit: int = 0              # 0: that of the settings
    link: Optional[Callable[[], Link]] = None   # in place of the usual one
    options: Json = field(default_factory=dict)     # of wsm-set-options
    look: Optional[Callable[[Stage], None]] = None  # see Stage
    noise: int = 0                  # MiB of the guest's RAM

    @property
    def data_disks(self) -> range:
        """Numbers of the disks that have data."""
        return range(min(len(self.config.disks), GUEST_DISKS))

    @property
    def rate(self) -> Optional[str]:
        """Of the link, in tc's words."""
        mbit = self.link_mbit or self.settings.link_mbit
        return f'{mbit}mbit' if self.limited else None

    @property
    def link_bytes(self) -> float:
        """Speed of the link in bytes per second."""
        return (self.link_mbit or self.settings.link_mbit) * 1e6 / 8


def look_before(scene: Scene, plan: Plan, sample: Sample) -> None:
    """The rate of writes with no migration."""
    now = time.time()
    time.sleep(plan.settings.before_seconds)
    beats = scene.guest.beats(now)
    rates = rates_between(beats, now, time.time())
    sample.rate_before = statistics.median(rates) if rates else 0.0
    sample.longest_gap_before = longest_gap(beats, now, time.time())
    sample.latency['before'] = latencies(beats, now, time.time())


def look_at_beats(stage: Stage, sample: Sample, stop: float, resume: float,
                  end: float) -> None:
    """Take what the heartbeats told; wall clock times of the move."""
    start = stage.start
    # At the moment of the switchover the two hosts' frames may cross
    beats = sorted(stage.scene.guest.beats(start - LEAD_SECONDS),
                   key=lambda beat: beat.time)
    sample.gap = longest_gap(beats, stop, resume)
    sample.longest_gap = longest_gap(beats, start, end)
    sample.rates = (rates_between(beats, start, stop)
                    + rates_between(beats, resume, end))
    sample.rates_after = rates_between(beats, resume, resume + SETTLE_SECONDS)
    sample.worst_write = max((beat.worst_write_us for beat in beats
                              if start <= beat.time <= end), default=0) / 1e6
    sample.series = series(beats, start)
    sample.latency['during'] = latencies(beats, start, stop)
    sample.latency['after'] = latencies(beats, end, end + SETTLE_SECONDS)


def prepare(scene: Scene, plan: Plan) -> Vm:
    source = scene.source()
    for disk in plan.data_disks:
        for offset, length in plan.data:
            scene.guest.region(disk, offset, length)
            scene.guest.fill(disk, offset, length)
        if plan.data:
            scene.guest.region(disk, *plan.data[0])
    scene.guest.command('flush')
    if plan.noise:
        scene.guest.start(mem=plan.noise)
        scene.guest.stop()
    if plan.load and plan.load.writers:
        scene.guest.start(**plan.load.words())
        scene.guest.wait_progress(writes=50)
    return source


def verify(scene: Scene, plan: Plan, sample: Sample) -> None:
    """Read back everything in the guest; count what is wrong."""
    scene.guest.stop()
    places = list(plan.data)
    size = plan.config.disks[0].size
    if plan.settings.verify_all and size <= plan.settings.disk:
        places = [(0, size)]
    try:
        for place in places:
            for disk in plan.data_disks:
                scene.guest.region(disk, *place)
            scene.guest.verify()
    except TestFailure as err:
        sample.failure = str(err)
    sample.wrong = scene.guest.last_beat().errors


def allocated(images: list[Image]) -> int:
    return sum(image.allocated() for image in images)


def sent_bytes(vm: Vm) -> int:
    return vm.host.sent_bytes() if vm.host else 0


def cpu_seconds(vm: Vm) -> float:
    """What this QEMU has used so far, all threads, user and system."""
    return used_seconds(Path(f'/proc/{vm.pid}'))


def used_seconds(task: Path) -> float:
    """Of a process or a thread, by its folder in /proc."""
    fields = (task / 'stat').read_text('utf-8').rpartition(') ')[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def sides_cpu(stage: Stage) -> dict[str, float]:
    return {'source': cpu_seconds(stage.source),
            'destination': cpu_seconds(stage.destination)}


def run_move(stage: Stage, sample: Sample) -> float:
    """Returns when all was synchronised; a failure is looked at, too."""
    method = METHODS[sample.way]
    try:
        return method.run(stage)
    except TestFailure:
        now = time.time()
        look_at_beats(stage, sample, now, now, now)
        raise
    finally:
        sample.phases = phases(stage, method.name)


def account(stage: Stage, sample: Sample, moments: tuple[float, float, float],
            link_bytes: float, limited: bool = True) -> None:
    """Note what a finished move took.

    @moments, wall clock: the guest stopped, ran there, all was synchronised.
    @link_bytes: per second, for T0; also the limit of the link if @limited.
    """
    stop, resume, end = moments
    sample.running = resume - stage.start
    sample.synchronised = max(end, resume) - stage.start
    sample.stopped = resume - stop
    sample.disk_bytes = 0 if sample.way == SHARED else sample.du_before
    ram = stage.source.migration()['ram']
    sample.ram_bytes = int(ram['transferred'])
    sample.numbers['downtime bytes'] = int(ram.get('downtime-bytes', 0))
    sample.numbers['link'] = link_bytes if limited else 0
    sample.t0 = (sample.disk_bytes + sample.ram_bytes) / link_bytes
    if sample.way == WSM:
        sample.wsm = final_query(stage.source)


def move_once(stage: Stage, plan: Plan, sample: Sample) -> None:
    source, destination = stage.source, stage.destination
    source.set_params(max_bandwidth=NO_LIMIT)
    source.set_caps('events')
    look_before(stage.scene, plan, sample)
    sample.du_before = allocated(source.images)
    sample.load_average = os.getloadavg()[0]
    sent, cpu = sent_bytes(source), sides_cpu(stage)
    end = run_move(stage, sample)
    stop = stage.wait(source, 'STOP')
    resume = stage.wait(destination, 'RESUME')
    sample.link_bytes = sent_bytes(source) - sent
    sample.cpu = {side: seconds - cpu[side]
                  for side, seconds in sides_cpu(stage).items()}
    time.sleep(SETTLE_SECONDS)

    account(stage, sample, (stop, resume, end), plan.link_bytes, plan.limited)
    look_at_beats(stage, sample, stop, resume,
                  stage.start + sample.synchronised)


def measure(plan: Plan, way: str) -> Sample:
    """A fresh guest, moved once."""
    sample = Sample(way, plan.load.name if plan.load else 'idle')
    method = METHODS[way]
    scene = Scene(plan.config, method.binary)
    try:
        if plan.link:
            scene.link = plan.link()
        else:
            scene.make_link(plan.rate)
        source = prepare(scene, plan)
        destination = method.open_destination(scene, source, plan.config)
        stage = Stage(scene, source, destination, plan.settings.give_up,
                      plan.options, plan.look)
        if plan.meter:
            with plan.meter(source) as here, plan.meter(destination) as there:
                move_once(stage, plan, sample)
            sample.memory = {'source': here.growth,
                             'destination': there.growth}
        else:
            move_once(stage, plan, sample)
        verify(scene, plan, sample)
        scene.guest.command('flush')
        sample.du_after = allocated(destination.images)
        source.quit()
        destination.quit()
    except (TestFailure, QmpError, QmpClosed) as err:
        sample.failure = f'{type(err).__name__}: {err}'
    finally:
        scene.close()
    return sample


def attempt(key: str, function: Callable[[], Samples]) -> Samples:
    """Pass on the samples; an error becomes one that says so."""
    try:
        yield from function()
    except (TestFailure, QmpError, QmpClosed) as err:
        yield key, Sample(WSM, '', failure=f'{type(err).__name__}: {err}')


def evenly(total: int, pieces: int, size: int) -> tuple[tuple[int, int], ...]:
    """Data in some places of a disk, of @total bytes together."""
    step = size // pieces // MIB * MIB
    return tuple((piece * step, total // pieces) for piece in range(pieces))
