# SPDX-License-Identifier: GPL-2.0-or-later
"""Move a guest, and see what its memory takes of link, time and CPUs.

What counts begins with phase "ram-precopy": the disk is there then, and
nothing of it is under way.
"""

import bisect
import threading
import time
from types import TracebackType
from typing import Optional

from dev.bench.cpu import work_seconds
from dev.bench.methods import Stage, final_query, find_event, stamp
from dev.bench.moving import NO_LIMIT
from dev.bench.sample import Sample
from dev.demo.client import Heartbeat, run_job
from dev.demo.network import Network
from dev.rig.basics import require, wait_until
from dev.rig.qmp import Json
from dev.rig.scene import begin, disk_total
from dev.rig.vm import Vm

WATCH_SECONDS = 0.005           # between two looks at the link
PHASE = 'ram-precopy'


class Wire:
    """What a host's end of the link has carried, over time; a context.

    It is looked at all the time, so that it can be told afterwards what it
    was at an event, when that is known by QEMU's own time stamp.
    """

    def __init__(self, vm: Vm) -> None:
        assert vm.host
        self._name = f'{vm.host.device}:'
        self._path = f'/proc/{vm.pid}/net/dev'  # of its namespace
        self._times: list[float] = []
        self._bytes: list[tuple[int, int]] = []
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def _look(self, text: str) -> tuple[int, int]:
        for line in text.splitlines():
            words = line.split()
            if words and words[0] == self._name:
                return int(words[9]), int(words[1])
        raise ValueError(f'no {self._name} in {text}')

    def _watch(self) -> None:
        with open(self._path, encoding='utf-8') as counters:
            while not self._stopped.is_set():
                counters.seek(0)
                now = time.time()
                self._bytes.append(self._look(counters.read()))
                self._times.append(now)
                time.sleep(WATCH_SECONDS)

    def __enter__(self) -> 'Wire':
        self._thread.start()
        return self

    def __exit__(self, _kind: Optional[type[BaseException]],
                 _value: Optional[BaseException],
                 _where: Optional[TracebackType]) -> None:
        self._stopped.set()
        self._thread.join()

    def at(self, when: float) -> tuple[int, int]:
        """Bytes that were sent and received until then."""
        return carried(self._times, self._bytes, when)

    def end(self) -> tuple[int, int]:
        return self._bytes[-1]


def carried(times: list[float], counts: list[tuple[int, int]],
            when: float) -> tuple[int, int]:
    """As it was last looked at, not after this moment."""
    return counts[max(0, bisect.bisect_right(times, when) - 1)]


def passes(source: Vm, since: float) -> list[float]:
    """When each pass over the memory began after the first, wall clock."""
    return [stamp(message) for message in source.qmp.events
            if message['event'] == 'MIGRATION_PASS'
            and stamp(message) > since]


def both_sides(stage: Stage) -> dict[str, float]:
    return {'source': work_seconds(stage.source),
            'destination': work_seconds(stage.destination)}


def move(stage: Stage, network: Network, options: Json,
         sample: Sample) -> None:
    """Fill in the sample's numbers: bytes, seconds, milliseconds.

    @options: of wsm-set-options.
    """
    source, destination = stage.source, stage.destination
    source.set_params(max_bandwidth=NO_LIMIT)
    heartbeat = Heartbeat(network)
    try:
        with Wire(source) as wire:
            stage.begin()
            begin(source, stage.uri(), **options)
            begun = stage.wait(source, 'WSM_PHASE', phase=PHASE)
            cpu, disk = both_sides(stage), disk_total(source, 'sent')
            stage.wait_both()
            resume = stage.wait(destination, 'RESUME')
            used = both_sides(stage)
            time.sleep(10 * WATCH_SECONDS)
        found = find_event(source, 'STOP', stage.start)
        stop = stamp(found) if found else resume
        sample.numbers |= {
            'seconds': resume - begun, 'downtime': (resume - stop) * 1000,
            'disk': disk_total(source, 'sent') - disk,
            **{f'cpu {side}': seconds - cpu[side]
               for side, seconds in used.items()},
            **link_numbers(wire, stage.start, begun,
                           passes(source, begun))}
        sample.numbers['gap'] = 1000 * longest_gap(heartbeat, stop, resume)
    finally:
        heartbeat.close()
    sample.wsm = final_query(source)
    require(run_job(network, 'hello').code == 0,
            'the guest does not answer any more')


def longest_gap(heartbeat: Heartbeat, stop: float, resume: float) -> float:
    """Seconds, with the guest's first answer from there."""
    wall = time.time() - time.monotonic()
    wait_until(lambda: heartbeat.last() > resume - wall,
               'the guest answers from there')
    return max(gap.length for gap in heartbeat.gaps(stop - wall,
                                                    resume - wall))


def link_numbers(wire: Wire, start: float, begun: float,
                 later: list[float]) -> dict[str, float]:
    """Both directions together but for "sent" and "later", of the source."""
    first, last = wire.at(begun), wire.end()
    sent = last[0] - first[0]
    return {'bytes': sent + last[1] - first[1], 'sent': sent,
            'before': sum(first) - sum(wire.at(start)), 'passes': 1 + len(later),
            'later': last[0] - wire.at(later[0])[0] if later else 0}
