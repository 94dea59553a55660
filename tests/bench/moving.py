# SPDX-License-Identifier: GPL-2.0-or-later
"""Move one guest under load, and what was seen of it from outside.

Times come from QMP events, which carry QEMU's own time stamps, and from the
guest's heartbeats; so polling does not blur them.  A guest is moved in one of
three ways: whole-system migration, migration with shared storage (both sides
have the same image), and blockdev-mirror to an NBD export, then migrate.
"""

import os
import statistics
import time
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Callable, Iterator, Optional

from lib.common import TestFailure
from lib.guest import Beat
from lib.image import MIB, Image
from lib.qmp import Json, QmpClosed, QmpError
from lib.scene import Scene, begin, query
from lib.vm import MachineConfig, Vm
from settings import Load, Settings

POLL_SECONDS = 0.05
GIVE_UP_SECONDS = 180.0
SETTLE_SECONDS = 2.0            # heartbeats after the switchover
NO_LIMIT = 1 << 40              # max-bandwidth, bytes per second
FINAL = ('completed', 'failed', 'cancelled', 'postcopy-paused')

WSM, SHARED, MIRROR = 'wsm', 'shared', 'mirror'


@dataclass
class Sample:
    """What one migration showed; seconds since it was begun."""
    way: str
    load: str
    failure: str = ''
    running: float = 0.0            # the guest runs at the destination
    synchronised: float = 0.0       # the source is needed no more
    disk_bytes: int = 0             # allocated, at the begin
    ram_bytes: int = 0              # sent in the main stream
    link_bytes: int = 0             # all that left the source's host
    t0: float = 0.0
    rate_before: float = 0.0        # guest writes per second, median
    rates: list[float] = field(default_factory=list)    # without the freeze
    rates_after: list[float] = field(default_factory=list)
    gap: float = 0.0                # heartbeat gap at the switchover
    longest_gap: float = 0.0        # anywhere from begin to end
    longest_gap_before: float = 0.0     # without any migration
    stopped: float = 0.0            # from STOP there to RESUME here
    worst_write: float = 0.0        # longest guest write, seconds
    wrong: int = -1                 # blocks with the wrong content, -1: unseen
    du_before: int = 0
    du_after: int = 0
    load_average: float = 0.0       # of the machine, when it began
    memory: dict[str, int] = field(default_factory=dict)    # growth, bytes
    numbers: dict[str, float] = field(default_factory=dict)     # others
    wsm: Json = field(default_factory=dict)     # the source's query-wsm

    def as_json(self) -> Json:
        return asdict(self)


@dataclass(frozen=True)
class Plan:
    """How to set up one move."""
    config: MachineConfig
    settings: Settings
    load: Optional[Load] = None     # None: an idle guest
    limited: bool = True            # by the link
    data: tuple[tuple[int, int], ...] = ()      # offset, bytes
    meter: Optional[Callable[[Vm], Any]] = None     # see memory.py


# (key of the row, sample) as they are measured
Samples = Iterator[tuple[str, Sample]]


# Events

def stamp(message: Json) -> float:
    when = message['timestamp']
    return float(when['seconds'] + when['microseconds'] / 1e6)


def find_event(vm: Vm, name: str, since: float,
               **wanted: str) -> Optional[Json]:
    for message in vm.qmp.events:
        data = message.get('data', {})
        if (message['event'] == name and stamp(message) >= since
                and all(data.get(key) == value
                        for key, value in wanted.items())):
            return message
    return None


def wait_event(vm: Vm, name: str, since: float, **wanted: str) -> float:
    """Wait for it without taking it; returns when it was sent."""
    deadline = time.monotonic() + GIVE_UP_SECONDS
    while time.monotonic() < deadline:
        vm.qmp.cmd('query-version')     # reads what is waiting
        message = find_event(vm, name, since, **wanted)
        if message:
            return stamp(message)
        for status in FINAL[1:]:
            if find_event(vm, 'MIGRATION', since, status=status):
                raise TestFailure(
                    f'{vm.name}: migration {status}: '
                    f'{vm.migration().get("error-desc", "")}')
        time.sleep(POLL_SECONDS)
    raise TestFailure(f'given up after {GIVE_UP_SECONDS:.0f} s waiting for '
                      f'{name} {wanted} of the {vm.name}')


# Heartbeats

def rates_between(beats: list[Beat], since: float,
                  until: float) -> list[float]:
    """Guest writes in each whole second between two moments.

    A second in which the guest was silent counts, with what it wrote.
    """
    inside = [beat for beat in beats if since <= beat.time <= until]
    rates: list[float] = []
    if not inside:
        return rates
    first = last = inside[0]
    for beat in inside[1:]:
        if beat.time >= first.time + 1:
            rates.append((beat.writes - first.writes)
                         / (beat.time - first.time))
            first = beat
        last = beat
    if not rates and last.time - first.time > 0.5:
        rates.append((last.writes - first.writes) / (last.time - first.time))
    return rates


def longest_gap(beats: list[Beat], since: float, until: float) -> float:
    """Longest silence that lies in this time at least in part."""
    times = [beat.time for beat in beats]
    gaps = [b - a for a, b in zip(times, times[1:])
            if b >= since and a <= until]
    return max(gaps, default=until - since)


def look_before(scene: Scene, plan: Plan, sample: Sample) -> None:
    """The rate of writes with no migration."""
    now = time.time()
    time.sleep(plan.settings.before_seconds)
    beats = scene.guest.beats(now)
    rates = rates_between(beats, now, time.time())
    sample.rate_before = statistics.median(rates) if rates else 0.0
    sample.longest_gap_before = longest_gap(beats, now, time.time())


def look_at_beats(scene: Scene, sample: Sample, start: float, stop: float,
                  resume: float, end: float) -> None:
    # At the moment of the switchover the two hosts' frames may cross
    beats = sorted(scene.guest.beats(start - 1), key=lambda beat: beat.time)
    sample.gap = longest_gap(beats, stop, resume)
    sample.longest_gap = longest_gap(beats, start, end)
    sample.rates = (rates_between(beats, start, stop)
                    + rates_between(beats, resume, end))
    sample.rates_after = rates_between(beats, resume, resume + SETTLE_SECONDS)
    sample.worst_write = max((beat.worst_write_us for beat in beats
                              if start <= beat.time <= end), default=0) / 1e6


# Ways to move

@dataclass
class Stage:
    """The two sides while they are there."""
    scene: Scene
    source: Vm
    destination: Vm
    plan: Plan


def run_wsm(stage: Stage, sample: Sample) -> tuple[float, float]:
    """Returns when it was begun and when all was synchronised."""
    start = time.time()
    begin(stage.source, stage.scene.uri(stage.destination))
    end = wait_event(stage.source, 'MIGRATION', start, status='completed')
    wait_event(stage.destination, 'MIGRATION', start, status='completed')
    # Names of temporary files are of no use in the results
    sample.wsm = {key: value for key, value in query(stage.source).items()
                  if key != 'images'}
    return start, end


def run_shared(stage: Stage, _sample: Sample) -> tuple[float, float]:
    start = time.time()
    stage.source.qmp.cmd('migrate',
                         uri=stage.scene.uri(stage.destination))
    wait_event(stage.source, 'MIGRATION', start, status='completed')
    wait_event(stage.destination, 'MIGRATION', start, status='completed')
    return start, wait_event(stage.destination, 'RESUME', start)


def run_mirror(stage: Stage, _sample: Sample) -> tuple[float, float]:
    """What a management tool does with stock QEMU."""
    source, destination = stage.source, stage.destination
    host = stage.scene.link.b.address if stage.scene.link else '127.0.0.1'
    port = 10809
    start = time.time()
    destination.qmp.cmd('nbd-server-start', addr={
        'type': 'inet', 'data': {'host': host, 'port': str(port)}})
    destination.qmp.cmd('block-export-add', {
        'type': 'nbd', 'id': 'export', 'node-name': 'node-vd0',
        'name': 'vd0', 'writable': True})
    source.qmp.cmd('blockdev-add', {
        'driver': 'nbd', 'node-name': 'target', 'export': 'vd0',
        'server': {'type': 'inet', 'host': host, 'port': str(port)}})
    source.qmp.cmd('blockdev-mirror', job_id='mirror', device='node-vd0',
                   target='target', sync='full')
    wait_event(source, 'BLOCK_JOB_READY', start)
    source.set_caps('pause-before-switchover')
    source.qmp.cmd('migrate', uri=stage.scene.uri(destination))
    wait_event(source, 'MIGRATION', start, status='pre-switchover')
    source.qmp.cmd('block-job-cancel', device='mirror')
    wait_event(source, 'BLOCK_JOB_COMPLETED', start)
    source.qmp.cmd('blockdev-del', node_name='target')
    source.qmp.cmd('migrate-continue', state='pre-switchover')
    wait_event(source, 'MIGRATION', start, status='completed')
    wait_event(destination, 'MIGRATION', start, status='completed')
    destination.qmp.cmd('nbd-server-stop')
    destination.qmp.cmd('cont')
    return start, wait_event(destination, 'RESUME', start)


RUN = {WSM: run_wsm, SHARED: run_shared, MIRROR: run_mirror}


# One measurement

def open_destination(scene: Scene, source: Vm, way: str,
                     config: MachineConfig) -> Vm:
    if way == WSM:
        return scene.destination()
    if way == SHARED:
        return scene.destination(wsm=False, images=source.images)
    return scene.destination(wsm=False,
                             config=replace(config, extra=('-S',)))


def prepare(scene: Scene, plan: Plan) -> Vm:
    source = scene.source()
    for offset, length in plan.data:
        scene.guest.region(0, offset, length)
        scene.guest.fill(0, offset, length)
    scene.guest.command('flush')
    if plan.load:
        offset, length = plan.data[0]
        scene.guest.region(0, offset, length)
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
        for offset, length in places:
            scene.guest.region(0, offset, length)
            scene.guest.verify()
    except TestFailure as err:
        sample.failure = str(err)
    sample.wrong = scene.guest.last_beat().errors


def allocated(images: list[Image]) -> int:
    return sum(image.allocated() for image in images)


def sent_bytes(vm: Vm) -> int:
    return vm.host.sent_bytes() if vm.host else 0


def move_once(stage: Stage, sample: Sample) -> None:
    source, destination = stage.source, stage.destination
    source.set_params(max_bandwidth=NO_LIMIT)
    source.set_caps('events')
    look_before(stage.scene, stage.plan, sample)
    sample.du_before = allocated(source.images)
    sample.load_average = os.getloadavg()[0]
    sent = sent_bytes(source)
    start, end = RUN[sample.way](stage, sample)
    stop = wait_event(source, 'STOP', start)
    resume = wait_event(destination, 'RESUME', start)
    sample.link_bytes = sent_bytes(source) - sent
    time.sleep(SETTLE_SECONDS)

    sample.running = resume - start
    sample.synchronised = max(end, resume) - start
    sample.stopped = resume - stop
    sample.disk_bytes = 0 if sample.way == SHARED else sample.du_before
    sample.ram_bytes = int(source.migration()['ram']['transferred'])
    sample.t0 = ((sample.disk_bytes + sample.ram_bytes)
                 / stage.plan.settings.link_bytes)
    look_at_beats(stage.scene, sample, start, stop, resume,
                  start + sample.synchronised)


def measure(plan: Plan, way: str) -> Sample:
    """A fresh guest, moved once."""
    sample = Sample(way, plan.load.name if plan.load else 'idle')
    scene = Scene(plan.config)
    try:
        scene.make_link(f'{plan.settings.link_mbit}mbit' if plan.limited
                        else None)
        source = prepare(scene, plan)
        destination = open_destination(scene, source, way, plan.config)
        stage = Stage(scene, source, destination, plan)
        if plan.meter:
            with plan.meter(source) as here, plan.meter(destination) as there:
                move_once(stage, sample)
            sample.memory = {'source': here.growth,
                             'destination': there.growth}
        else:
            move_once(stage, sample)
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
