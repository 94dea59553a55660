# SPDX-License-Identifier: GPL-2.0-or-later
"""What a move costs in CPU time, on each side.

The guest is idle, and its virtual CPU does not count.  What QEMU uses for it
without a move, and what moving its memory takes, is measured too, so that the
part of the disk can be told from them: SHARED moves memory alone.
"""

import re
import signal
import subprocess
import time
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Optional

from dev import debian
from dev.bench.methods import METHODS, MIRROR, SHARED, WSM, Stage
from dev.bench.moving import (Plan, cpu_seconds, move_once, prepare,
                              used_seconds, verify)
from dev.bench.sample import Sample, Samples
from dev.bench.settings import Settings, machine
from dev.rig.basics import TestFailure
from dev.rig.qmp import QmpClosed, QmpError
from dev.rig.scene import Scene
from dev.rig.vm import Vm

WAYS = (WSM, MIRROR, SHARED)
LIMITED, UNLIMITED = 'limited', 'unlimited'
EVENTS = ('instructions:u', 'instructions:k')
PERF_START = 0.5                # seconds until perf counts
TRIES = 5                       # to start perf; see for_perf()
BEFORE = 0.5                    # seconds between that and the move


class Counter:
    """What all threads of a QEMU but its virtual CPUs take; a context.

    Instructions are less noisy than time, and do not know ticks.
    """

    def __init__(self, vm: Vm) -> None:
        self.vm = vm
        self.counts: dict[str, float] = {}
        self._before = self._began = 0.0
        self._perf: Optional['subprocess.Popen[bytes]'] = None

    def __enter__(self) -> 'Counter':
        for _ in range(TRIES):
            # pylint: disable-next=consider-using-with
            self._perf = subprocess.Popen(
                ['perf', 'stat', '-x,', '-e', ','.join(EVENTS),
                 '-o', str(self.vm.folder / 'perf'), *for_perf(self.vm)],
                stderr=subprocess.DEVNULL)
            time.sleep(PERF_START)
            if self._perf.poll() is None:
                break
        self._before, self._began = work_seconds(self.vm), time.monotonic()
        return self

    def __exit__(self, kind: Optional[type[BaseException]],
                 _value: Optional[BaseException],
                 _where: Optional[TracebackType]) -> None:
        assert self._perf is not None
        self._perf.send_signal(signal.SIGINT)
        self._perf.wait()
        if kind is None:
            self.counts = {'seconds': time.monotonic() - self._began,
                           'cpu': work_seconds(self.vm) - self._before,
                           **read_counts(self.vm.folder / 'perf')}


def tasks(vm: Vm) -> list[Path]:
    return list(Path(f'/proc/{vm.pid}/task').iterdir())


def is_virtual_cpu(task: Path) -> bool:
    try:
        return (task / 'comm').read_text('utf-8').startswith('CPU ')
    except OSError:
        return False    # it just ended


def for_perf(vm: Vm) -> tuple[str, ...]:
    """The threads that count; perf also follows what they start.

    One may end at this moment; then perf gives up: try again.
    """
    return '-t', ','.join(task.name for task in tasks(vm)
                          if not is_virtual_cpu(task))


def work_seconds(vm: Vm) -> float:
    """CPU time so far, also of threads that have ended."""
    return cpu_seconds(vm) - sum(used_seconds(task) for task in tasks(vm)
                                 if is_virtual_cpu(task))


def read_counts(path: Path) -> dict[str, float]:
    text = path.read_text('utf-8')
    found = {event: re.search(rf'^(\d+),.*,{event},', text, re.MULTILINE)
             for event in EVENTS}
    if not all(found.values()):
        raise TestFailure(f'perf counts no instructions here: {text}')
    return {event: float(match[1]) for event, match in found.items() if match}


def own_use(vm: Vm, seconds: float) -> dict[str, float]:
    """What an idle guest takes each second."""
    with Counter(vm) as counter:
        time.sleep(seconds)
    took = counter.counts.pop('seconds')
    return {f'own {name}': count / took
            for name, count in counter.counts.items()}


def move_counted(scene: Scene, plan: Plan, sample: Sample) -> None:
    method = METHODS[sample.way]
    source = prepare(scene, plan)
    destination = method.open_destination(scene, source, plan.config)
    stage = Stage(scene, source, destination, plan.settings.give_up)
    own = own_use(source, plan.settings.before_seconds)
    with Counter(source) as here, Counter(destination) as there:
        move_once(stage, replace(plan, settings=replace(
            plan.settings, before_seconds=BEFORE)), sample)
    sample.numbers = own
    for side, counter in (('source', here), ('destination', there)):
        for name, count in counter.counts.items():
            sample.numbers[f'{side} {name}'] = count
    verify(scene, plan, sample)
    source.quit()
    destination.quit()


def measure_counted(plan: Plan, way: str) -> Sample:
    sample = Sample(way, 'idle')
    scene = Scene(plan.config, METHODS[way].binary)
    try:
        scene.make_link(plan.rate)
        move_counted(scene, plan, sample)
    except (TestFailure, QmpError, QmpClosed) as err:
        sample.failure = f'{type(err).__name__}: {err}'
    finally:
        scene.close()
    return sample


def section_cpu(settings: Settings) -> Samples:
    """An idle guest, with and without a link limit."""
    debian.install(['linux-perf'])
    settings = replace(settings, verify_all=False)
    plan = Plan(machine(settings.cpu_data), settings,
                data=((0, settings.cpu_data),))
    for limited, name, rounds in (
            (False, UNLIMITED, settings.many_rounds),
            (True, LIMITED, settings.few_rounds)):
        for way in WAYS * rounds:
            yield (f'{name} {way}',
                   measure_counted(replace(plan, limited=limited), way))


CPU_SECTIONS = {'cpu': section_cpu}
