# SPDX-License-Identifier: GPL-2.0-or-later
"""How cost grows: with the disk, disks, channels, RAM and the way between.

In each section only one thing differs; see report_scale.py.
"""

import statistics
import time
from dataclasses import replace
from pathlib import Path
from typing import Iterator

from dev.bench.far_link import DelayedLink, probe
from dev.bench.methods import MIRROR, SHARED, WSM, Stage
from dev.bench.moving import Plan, evenly, measure
from dev.bench.sample import Sample, Samples
from dev.bench.settings import BUSY, CALM, Load, Settings, machine
from dev.rig.host import Link
from dev.rig.image import GIB, MIB
from dev.rig.meter import Meter, preallocated
from dev.rig.scene import query
from dev.rig.vm import DiskConfig, MachineConfig, Vm

PIECES = 64                     # places of the data on a big disk
ASKED = 20                      # times each query
ASK_SECONDS = 0.05
THREAD_SECONDS = 0.01           # how often each thread's time is read
TRIES = 100                     # that it may begin late
BEFORE_RAM = ('none', 'setup', 'disk-precopy')
QUERIES = ('query-version', 'query-wsm', 'query-block')
OPEN, FAR, LOSSY = 'open', 'far', 'lossy'


def briefly(settings: Settings) -> Settings:
    """Rates of guest writes are not what these sections are about."""
    return replace(settings, before_seconds=min(2.0, settings.before_seconds))


class Look:
    """Asks the source in disk pre-copy; times round trips."""

    def __init__(self) -> None:
        self._times: dict[str, list[float]] = {name: [] for name in QUERIES}
        self._counts: dict[str, float] = {}

    def __call__(self, stage: Stage) -> None:
        vm = stage.source
        for _ in range(TRIES):
            if self._enough() or self._ask(vm) not in BEFORE_RAM:
                break
            time.sleep(ASK_SECONDS)
        for side, one in (('source', vm), ('destination', stage.destination)):
            folder = Path(f'/proc/{one.pid}')
            for what in ('task', 'fd'):
                self._counts[f'{side} {what}'] = len(
                    list((folder / what).iterdir()))

    def _enough(self) -> bool:
        return len(self._times[QUERIES[0]]) >= ASKED

    def _ask(self, vm: Vm) -> str:
        """Returns the phase; what is asked outside pre-copy is left out."""
        phase, seconds = '', {}
        for name in QUERIES:
            start = time.monotonic()
            answer = vm.qmp.cmd(name)
            seconds[name] = time.monotonic() - start
            phase = answer['phase'] if name == 'query-wsm' else phase
        if phase == 'disk-precopy':
            for name, value in seconds.items():
                self._times[name].append(value)
        return phase

    def numbers(self) -> dict[str, float]:
        """Times in milliseconds, and counts."""
        found = dict(self._counts)
        for name, values in self._times.items():
            if values:
                found[name] = statistics.median(values) * 1000
                found[f'{name} max'] = max(values) * 1000
        return found


def thread_kind(vm: Vm, task: Path) -> str:
    if int(task.name) == vm.pid:
        return 'main thread'
    name = (task / 'comm').read_text().strip()
    if name.startswith('IO wsm-'):
        return 'IOThread'
    return {'worker': 'pool'}.get(name, name)


class Threads:
    """Adds up what each kind of thread uses in disk pre-copy."""

    def __init__(self) -> None:
        self._used: dict[tuple[str, str], tuple[int, int]] = {}
        self._names: dict[tuple[str, str], str] = {}
        self._sent = 0
        self._seconds = 0.0

    def __call__(self, stage: Stage) -> None:
        start = time.monotonic()
        for _ in range(round(stage.give_up / THREAD_SECONDS)):
            self._take('source', stage.source)
            self._take('destination', stage.destination)
            info = query(stage.source)
            if info['phase'] not in BEFORE_RAM:
                break
            self._sent = sum(disk['sent'] for disk in info['disks'])
            self._seconds = time.monotonic() - start
            time.sleep(THREAD_SECONDS)

    def _take(self, side: str, vm: Vm) -> None:
        """Nanoseconds on a CPU: at first sight, and now."""
        for task in Path(f'/proc/{vm.pid}/task').iterdir():
            try:
                used = int((task / 'schedstat').read_text().split()[0])
                name = thread_kind(vm, task)
            except OSError:
                continue        # it just ended
            key = side, task.name
            first = self._used.get(key, (used, used))[0]
            self._used[key] = first, used
            self._names[key] = name

    def numbers(self) -> dict[str, float]:
        """Seconds of CPU for each GiB that was sent, by side and kind."""
        found = {'speed': self._sent / self._seconds} if self._seconds else {}
        for key, (first, last) in self._used.items():
            name = f'{key[0]} {self._names[key]}'
            if self._sent:
                found[name] = (found.get(name, 0.0)
                               + (last - first) / 1e9 * GIB / self._sent)
        return {name: value for name, value in found.items() if value}


def looked_at(plan: Plan) -> Sample:
    look = Look()
    sample = measure(replace(plan, look=look), WSM)
    sample.numbers.update(look.numbers())
    return sample


def sizes(settings: Settings) -> Iterator[tuple[str, int]]:
    for size in settings.scale_sizes:
        yield 'raw', size
    yield 'qcow2', max(settings.scale_sizes)


def section_size(settings: Settings) -> Samples:
    """Virtual size; the same data, all over the disk."""
    for _ in range(settings.few_rounds):
        for fmt, size in sizes(settings):
            plan = Plan(
                preallocated(DiskConfig('vd0', fmt=fmt, size=size)),
                briefly(settings), BUSY, meter=Meter,
                data=evenly(settings.scale_data, PIECES, size))
            yield f'{fmt} {size // MIB}', looked_at(plan)


def some_disks(count: int, size: int) -> MachineConfig:
    return replace(machine(size), disks=tuple(
        DiskConfig(f'vd{number}', size=size) for number in range(count)))


def section_disks(settings: Settings) -> Samples:
    """The same data on more disks."""
    for _ in range(settings.few_rounds):
        for count in settings.scale_disks:
            plan = Plan(some_disks(count, settings.disk // count),
                        briefly(settings), CALM)
            share = settings.scale_data // len(plan.data_disks)
            plan = replace(plan, data=((0, share),))
            yield f'{WSM} {count}', looked_at(plan)
            yield f'{SHARED} {count}', measure(plan, SHARED)


def far_link(settings: Settings, trip_ms: float,
             loss: float = 0.0) -> DelayedLink:
    return DelayedLink(f'{settings.link_mbit}mbit', trip_ms / 2000, loss)


def with_channels(settings: Settings, count: int, far: bool) -> Sample:
    def link() -> Link:
        return far_link(settings, settings.scale_trip_ms)

    threads = Threads()
    plan = Plan(machine(settings.disk), briefly(settings), CALM,
                limited=False, link=link if far else None,
                data=((0, settings.scale_data if far else settings.disk),),
                options={'channels': count}, look=threads)
    sample = measure(plan, WSM)
    sample.numbers.update(threads.numbers())
    return sample


def section_channels(settings: Settings) -> Samples:
    """Block channels, on a link without limit and on one that is far."""
    for _ in range(settings.few_rounds):
        for where in (OPEN, FAR):
            for count in settings.scale_channels:
                yield (f'{where} {count}',
                       with_channels(settings, count, where == FAR))


def section_memory_size(settings: Settings) -> Samples:
    """An idle guest with more RAM, half of it noise; no limit."""
    for _ in range(settings.few_rounds):
        for mib in settings.scale_memory:
            config = replace(machine(settings.disk), memory=mib)
            plan = Plan(config, briefly(settings), limited=False,
                        data=((0, settings.scale_data),), noise=mib // 2)
            for way in (WSM, SHARED):
                yield f'{way} {mib}', measure(plan, way)


def probed(settings: Settings, trip_ms: float, loss: float) -> Sample:
    sample = Sample(WSM, '')
    link = far_link(settings, trip_ms, loss)
    try:
        sample.numbers.update(probe(link))
    finally:
        link.close()
    return sample


def section_delay(settings: Settings) -> Samples:
    """The time that the wire takes; at last with losses."""
    points = [(str(trip), trip, 0.0) for trip in settings.delay_trips_ms]
    points.append((LOSSY, settings.scale_trip_ms, settings.delay_loss))
    for _ in range(settings.few_rounds):
        for name, trip, loss in points:
            yield f'link {name}', probed(settings, trip, loss)
            plan = delay_plan(settings, trip, loss, CALM)
            for way in (WSM, MIRROR, SHARED):
                sample = measure(plan, way)
                if way == MIRROR and 'given up' in sample.failure:
                    # That is what was to be found out
                    sample.failure = ''
                    sample.numbers['given up'] = plan.settings.give_up
                yield f'{way} {name}', sample


def delay_plan(settings: Settings, trip: int, loss: float,
               load: Load) -> Plan:
    patient = replace(settings, give_up=settings.delay_give_up)
    return Plan(machine(settings.disk), briefly(patient), load,
                data=((0, settings.delay_data),),
                link=lambda: far_link(settings, trip, loss))


SCALE_SECTIONS = {
    'scale-size': section_size,
    'scale-disks': section_disks,
    'scale-channels': section_channels,
    'scale-memory': section_memory_size,
    'delay': section_delay,
}
