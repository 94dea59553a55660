# SPDX-License-Identifier: GPL-2.0-or-later
"""What must cost nothing: a QEMU that does not use whole-system migration.

Either because the capability is off, against stock QEMU; or because a
migration is over, against the same guest before.
"""

import functools
import json
import operator
import time
from collections import Counter as Bag
from pathlib import Path

from dev import debian
from dev.bench.cost import FEW, MANY, callgrind, count_in_guest
from dev.bench.cpu import TRIES, for_perf
from dev.bench.methods import STOCK_QEMU, WSM
from dev.bench.moving import Plan, attempt, prepare
from dev.bench.sample import Sample, Samples
from dev.bench.settings import UNLIMITED, Settings, machine
from dev.rig.basics import QEMU, TestFailure
from dev.rig.qmp import Json
from dev.rig.scene import (Scene, begin, expect_clean, finish, lasting_threads,
                           template)
from dev.rig.vm import Vm

STOCK, OFF, BEFORE, AFTER = 'stock', 'off', 'before', 'after'
BINARIES = {STOCK: STOCK_QEMU, OFF: QEMU}
BLOCK = 4096
RCU, NO_NAME = 'call_rcu', 'qemu-system-x86'
LOOKS, LOOK_SECONDS = 5, 0.2
STREAMS = 6                     # their lengths vary a little
NULL_DISK = 'json:' + json.dumps({'driver': 'null-co', 'size': 1 << 29})


def block_layer(binary: Path) -> float:
    """Instructions of a write to a disk that stores nothing."""
    few, many = (callgrind([str(binary.with_name('qemu-img')), 'bench', '-w',
                            '-c', str(writes), '-d', '1', '-s', str(BLOCK),
                            NULL_DISK]) for writes in (FEW, MANY))
    return (many - few) / (MANY - FEW)


def still_threads(vm: Vm) -> list[str]:
    """Those that are there all the time; new ones have no name at first.

    The thread of RCU never has one if it starts before QEMU gives names.
    """
    looks = []
    for _ in range(LOOKS):
        looks.append(Bag(name.replace(RCU, NO_NAME)
                         for name in lasting_threads(vm)))
        time.sleep(LOOK_SECONDS)
    return list(functools.reduce(operator.and_, looks).elements())


def parts(vm: Vm) -> dict[str, list[str]]:
    return {'threads': still_threads(vm), 'nodes': vm.nodes(),
            'bitmaps': [str(bitmap) for bitmap in vm.all_bitmaps()],
            'edges': edges(vm)}


def edges(vm: Vm) -> list[str]:
    """How the block nodes hang together, with their permissions."""
    graph: Json = vm.qmp.cmd('x-debug-query-block-graph')
    names = {node['id']: node['name'] for node in graph['nodes']}
    return [' '.join([names[edge['parent']], edge['name'],
                      names[edge['child']], *sorted(edge['perm']),
                      '/', *sorted(edge['shared-perm'])])
            for edge in graph['edges']]


def differences(one: dict[str, list[str]],
                other: dict[str, list[str]]) -> dict[str, float]:
    """How many of each kind only one of them has."""
    return {f'other {kind}': sum(((Bag(one[kind]) - Bag(other[kind]))
                                  + (Bag(other[kind]) - Bag(one[kind])))
                                 .values()) for kind in one}


# The capability is off

def stream(scene: Scene, name: str) -> int:
    """Bytes of the migration stream of a guest that never runs."""
    vm = scene.reopen(name, scene.new_images(name),
                      state=template(scene.config))
    path = scene.folder / 'stream'
    vm.qmp.cmd('migrate', uri=f'file:{path}')
    vm.wait_migration('completed')
    vm.quit()
    return path.stat().st_size


def in_guest(scene: Scene, vm: Vm, settings: Settings) -> float:
    """Instructions of a guest's write, without its virtual CPU."""
    for _ in range(TRIES - 1):
        try:
            return count_in_guest(scene, vm, settings.count, for_perf(vm))
        except TestFailure:
            pass        # see for_perf()
    return count_in_guest(scene, vm, settings.count, for_perf(vm))


def plan_for(settings: Settings) -> Plan:
    return Plan(machine(settings.disk), settings, UNLIMITED,
                data=((0, settings.data),))


def running(settings: Settings,
            binary: Path) -> tuple[dict[str, float], dict[str, list[str]]]:
    """Numbers and parts of a QEMU with a guest that writes."""
    plan = plan_for(settings)
    scene = Scene(plan.config, binary)
    try:
        vm = prepare(scene, plan)
        numbers = {'guest': in_guest(scene, vm, settings)}
        found = parts(vm)
        vm.quit()
    finally:
        scene.close()
    return numbers, found


def shortest_stream(settings: Settings, binary: Path) -> int:
    scene = Scene(plan_for(settings).config, binary)
    try:
        return min(stream(scene, f'still-{i}') for i in range(STREAMS))
    finally:
        scene.close()


def capability_off(settings: Settings) -> Samples:
    found = {}
    for way, binary in BINARIES.items():
        sample = Sample(way, '')
        numbers, found[way] = running(settings, binary)
        sample.numbers = {**numbers, 'block layer': block_layer(binary),
                          'stream': shortest_stream(settings, binary)}
        if way == OFF:
            sample.numbers |= differences(found[STOCK], found[OFF])
        yield way, sample


# A migration is over

def afterwards(settings: Settings) -> Samples:
    """The same guest and its QEMU, before and after; it keeps no point."""
    plan = plan_for(settings)
    scene = Scene(plan.config)
    try:
        source = prepare(scene, plan)
        before, after = Sample(WSM, ''), Sample(WSM, '')
        before.numbers['guest'] = in_guest(scene, source, settings)
        was = parts(source)
        destination = scene.destination(sync_points=0)
        begin(source, scene.uri(destination), sync_points=0)
        finish(source, destination)
        expect_clean(destination)
        after.numbers = differences(was, parts(destination))
        source.quit()
        after.numbers['guest'] = in_guest(scene, destination, settings)
        destination.quit()
    finally:
        scene.close()
    yield BEFORE, before
    yield AFTER, after


def section_off(settings: Settings) -> Samples:
    """Against stock QEMU, and after against before."""
    debian.install(['valgrind', 'linux-perf'])
    for _ in range(settings.rounds):
        yield from attempt(OFF, lambda: capability_off(settings))
        yield from attempt(AFTER, lambda: afterwards(settings))


OFF_SECTIONS = {'off': section_off}
