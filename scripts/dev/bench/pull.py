# SPDX-License-Identifier: GPL-2.0-or-later
"""How long the guest waits for a block that is not there yet.

The destination writes down, with time stamps, when its guest's read came, that
it asked for a block, and when the read was answered.
"""

import re
import statistics
import subprocess
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Iterable, Optional

from dev import debian
from dev.bench.methods import WSM, Stage, final_query
from dev.bench.moving import NO_LIMIT, Plan, attempt, prepare, verify
from dev.bench.sample import Sample, Samples, percentiles
from dev.bench.settings import Settings, machine
from dev.rig.basics import require, wait_until
from dev.rig.scene import Scene, begin, disk_total, query
from dev.rig.vm import MachineConfig

# One reader of single blocks; or several, of up to 32 KiB
IDLE, PUSHING, SEVERAL = 'idle', 'pushing', 'several'
READ, ASK, DONE = ('virtio_blk_handle_read', 'pull_on_demand_ask',
                   'virtio_blk_req_complete')
LINE = re.compile(rf'@(\d+\.\d+):({READ}|{ASK}|{DONE}) (.*)')
WRITERS = {'writers': 4, 'big': 1}      # leave nothing as it was
READERS = {IDLE: {'readers': 1, 'rrate': 50, 'rblocks': 1},
           PUSHING: {'readers': 1, 'rrate': 100, 'rblocks': 1},
           SEVERAL: {'readers': 4, 'rrate': 100}}
SLOW_PUSH_MS = 2000             # next to nothing is pushed
ALL_AT_ONCE_MS = 10 ** 6        # the guest moves after a single pass
LEFT = {PUSHING: 0.5, SEVERAL: 0.1}     # of the data, at the end
PING_SECONDS = 0.05             # between two


@dataclass
class Read:
    """A read of the guest that is under way."""
    time: float
    start: int                      # in bytes
    end: int
    asked: bool = False             # for a missing block in it


# Traces

def traced(config: MachineConfig, path: Path) -> MachineConfig:
    words = ['-D', str(path), '-msg', 'timestamp=on']
    for event in (READ, ASK, DONE):
        words += ['-trace', event]
    return replace(config, extra=(*config.extra, *words))


def field(text: str, name: str) -> str:
    found = re.search(rf'\b{name} (\S+)', text)
    require(found, f'no "{name}" in trace: {text}')
    return found[1] if found else ''


def waits(lines: Iterable[str]) -> list[tuple[float, float]]:
    """(when, seconds) of each read that a block was asked for."""
    reads: dict[str, Read] = {}
    result = []
    for line in lines:
        found = LINE.search(line)
        if not found:
            continue
        now, event, text = float(found[1]), found[2], found[3]
        if event == READ:
            start = int(field(text, 'sector')) * 512
            reads[field(text, 'req')] = Read(
                now, start, start + int(field(text, 'nsectors')) * 512)
        elif event == ASK:
            start = int(field(text, 'offset'))
            for read in reads.values():
                read.asked |= (start < read.end and read.start
                               < start + int(field(text, 'bytes')))
        else:
            done = reads.pop(field(text, 'req'), None)
            if done and done.asked:
                result.append((done.time, now - done.time))
    return result


# The link

class Ping:
    """From one host to the other, until stop()."""

    def __init__(self, stage: Stage) -> None:
        link = stage.scene.link
        assert link is not None
        # pylint: disable-next=consider-using-with
        self._ping = subprocess.Popen(
            [*link.b.prefix(), 'ping', '-n', '-i', str(PING_SECONDS),
             link.a.address], text=True, stdout=subprocess.PIPE)

    def stop(self) -> list[float]:
        """Returns all round trips, in seconds."""
        self._ping.terminate()
        text = self._ping.communicate()[0]
        return [float(found) / 1000
                for found in re.findall(r'time=([\d.]+) ms', text)]


# Measuring

@dataclass
class Period:
    """A time of pulls, and the link's round trips in it."""
    begin: float
    end: float
    sent: int                       # disk data, bytes
    pings: list[float]


def period(stage: Stage, kind: str, seconds: float,
           left: Optional[int] = None) -> Period:
    """Read at random for so long, or until no more than that is missing."""
    guest = stage.scene.guest
    ping = Ping(stage)
    begun, sent = time.time(), disk_total(stage.source, 'sent')
    guest.start(**READERS[kind])
    while time.time() < begun + seconds:
        if left and disk_total(stage.destination, 'missing') <= left:
            break
        time.sleep(0.1)
    ended = time.time()
    sent = disk_total(stage.source, 'sent') - sent
    pings = ping.stop()
    guest.stop()
    return Period(begun, ended, sent, pings)


def hand_over(stage: Stage, settings: Settings) -> None:
    """Until the guest runs there, with nearly everything missing."""
    stage.begin()
    begin(stage.source, stage.uri(), x_push_delay=SLOW_PUSH_MS,
          max_residue=ALL_AT_ONCE_MS,
          bandwidth=settings.pull_data // settings.pull_precopy)
    stage.wait(stage.destination, 'RESUME')
    stage.scene.guest.stop()


def pulls(stage: Stage, settings: Settings) -> dict[str, Period]:
    guest, data = stage.scene.guest, settings.pull_data
    # What is pushed first waits for the slow push: read elsewhere
    guest.region(0, data // 4, data - data // 4)
    result = {IDLE: period(stage, IDLE, settings.pull_seconds)}
    stage.source.qmp.cmd('wsm-set-options', x_push_delay=0, bandwidth=0)
    pushed = disk_total(stage.source, 'pushed')
    wait_until(lambda: disk_total(stage.source, 'pushed') > pushed + data // 32
               or query(stage.source)['phase'] != 'postcopy', 'pushing')
    for kind, left in LEFT.items():
        result[kind] = period(stage, kind, stage.give_up, round(left * data))
    return result


def evaluate(sample: Sample, path: Path, periods: dict[str, Period]) -> None:
    """All numbers in milliseconds, but the counts."""
    with open(path, encoding='utf-8', errors='replace') as lines:
        found = waits(lines)
    for kind, when in periods.items():
        values = [seconds * 1000 for begun, seconds in found
                  if when.begin <= begun <= when.end]
        sample.numbers[f'{kind} count'] = len(values)
        sample.numbers[f'{kind} seconds'] = when.end - when.begin
        sample.numbers[f'{kind} bytes'] = when.sent
        for name, value in percentiles(values).items():
            sample.numbers[f'{kind} {name}'] = value
        if when.pings:
            sample.numbers[f'{kind} ping'] = (
                statistics.median(when.pings) * 1000)
            sample.numbers[f'{kind} ping max'] = max(when.pings) * 1000


def one_round(settings: Settings) -> Samples:
    plan = Plan(machine(settings.pull_data), settings,
                data=((0, settings.pull_data),))
    sample = Sample(WSM, '')
    scene = Scene(plan.config)
    path = scene.folder / 'trace'
    try:
        scene.make_link(plan.rate)
        source = prepare(scene, plan)
        source.set_params(max_bandwidth=NO_LIMIT)
        source.set_caps('events')
        scene.guest.region(0, 0, settings.pull_data)
        scene.guest.start(**WRITERS)
        destination = scene.destination(config=traced(plan.config, path))
        stage = Stage(scene, source, destination, settings.give_up)
        hand_over(stage, settings)
        sample.numbers['missing'] = disk_total(destination, 'missing')
        periods = pulls(stage, settings)
        sample.synchronised = stage.wait_both() - stage.start
        sample.wsm = final_query(source)
        verify(scene, plan, sample)
        evaluate(sample, path, periods)
        source.quit()
        destination.quit()
    finally:
        scene.close()
    yield 'pull', sample


def section_pull(settings: Settings) -> Samples:
    """Reads of missing blocks in post-copy."""
    debian.install(['iputils-ping'])
    for _ in range(settings.many_rounds):
        yield from attempt('pull', lambda: one_round(settings))


PULL_SECTIONS = {'pull': section_pull}
