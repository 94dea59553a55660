# SPDX-License-Identifier: GPL-2.0-or-later
"""The measurements of single steps: hashing, and a write with sync points."""

import re
import tempfile
import time
from pathlib import Path

from dev import debian
from dev.bench.methods import WSM
from dev.bench.moving import Plan, attempt, prepare
from dev.bench.sample import Sample, Samples
from dev.bench.settings import UNLIMITED, Settings, machine
from dev.common import ROOT
from dev.rig.basics import TestFailure, run
from dev.rig.image import MIB, Image
from dev.rig.scene import Scene
from dev.rig.vm import Vm

BLOCK = 4096
BENCH = 'tests/unit/wsm/bench-wsm-writes'
HASH_TEST = 'tests/unit/wsm/test-wsm-compare'
POINTS = (0, 1, 8)
FEW, MANY = 2000, 10000         # writes whose instructions are counted


def built(target: str) -> Path:
    """A program that scripts/build does not build unasked."""
    done = run(str(ROOT / 'scripts/build'), '--target', target)
    return Path(done.splitlines()[-1])


def hash_speed(settings: Settings) -> Samples:
    program = str(built(HASH_TEST))
    for _ in range(settings.few_rounds):
        text = run(program, '-m', 'perf', '-p', '/wsm/compare/speed')
        speed = re.search(rf'data in blocks of {BLOCK}: (\d+) MB/s', text)
        sample = Sample(WSM, '')
        if speed:
            sample.numbers['speed'] = float(speed[1]) * 1e6
        else:
            sample.failure = f'no speed in: {text}'
        yield 'hashing', sample


def section_hashing(settings: Settings) -> Samples:
    """Blocks of 4 KiB with data, on one core."""
    return attempt('hashing', lambda: hash_speed(settings))


# The block layer

def callgrind(argv: list[str]) -> int:
    """How many instructions a whole run takes."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / 'callgrind'
        run('valgrind', '--tool=callgrind', f'--callgrind-out-file={out}',
            *argv)
        for line in out.read_text('utf-8').splitlines():
            if line.startswith('totals:'):
                return int(line.split()[1])
    raise TestFailure('callgrind wrote no totals')


def per_write(program: Path, points: int, image: list[str]) -> float:
    few, many = (callgrind([str(program), str(points), str(writes), *image])
                 for writes in (FEW, MANY))
    return (many - few) / (MANY - FEW)


def result(count: float) -> Sample:
    sample = Sample(WSM, '')
    sample.numbers['instructions'] = round(count, 1)
    return sample


def block_layer(settings: Settings) -> Samples:
    program = built(BENCH)
    with tempfile.TemporaryDirectory() as folder:
        image = Image(Path(folder) / 'disk.raw', 'raw', 512 * MIB).create()
        for _ in range(settings.few_rounds):
            for points in POINTS:
                yield str(points), result(per_write(program, points, []))
            yield 'raw', result(per_write(program, 0, [str(image.path)]))


# All of QEMU

def count_in_guest(scene: Scene, vm: Vm, seconds: float,
                   whom: tuple[str, ...] = ()) -> float:
    """Instructions that this QEMU takes for one write.

    All its threads, or those that @whom says to perf.
    """
    before, since = scene.guest.last_beat().writes, time.monotonic()
    text = run('perf', 'stat', '-x,', '-e', 'instructions:u', '-o',
               '/dev/stdout', *(whom or ('-p', str(vm.pid))),
               'sleep', str(seconds))
    perf = time.monotonic() - since
    after = scene.guest.last_beat().writes
    found = re.search(r'^(\d+),', text, re.MULTILINE)
    if not found:
        raise TestFailure(f'perf counts no instructions here: {text}')
    # The heartbeats' time has perf's own start and end in it
    return int(found[1]) / ((after - before) * seconds / perf)


def whole_qemu(settings: Settings) -> Samples:
    plan = Plan(machine(settings.disk), settings, UNLIMITED,
                data=((0, settings.data),))
    scene = Scene(plan.config)
    try:
        vm = prepare(scene, plan)
        for _ in range(settings.few_rounds):
            yield 'guest', result(count_in_guest(scene, vm, settings.count))
        vm.quit()
    finally:
        scene.close()


def section_tracking(settings: Settings) -> Samples:
    """Instructions of one write, with and without sync points."""
    debian.install(['valgrind', 'linux-perf'])
    yield from attempt('0', lambda: block_layer(settings))
    yield from attempt('guest', lambda: whole_qemu(settings))


COST_SECTIONS = {
    'hashing': section_hashing,
    'tracking': section_tracking,
}
