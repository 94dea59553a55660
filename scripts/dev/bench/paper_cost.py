# SPDX-License-Identifier: GPL-2.0-or-later
"""What tracking costs a guest, as the paper measures it: with Bonnie++.

After a move a disk with sync points has a dirty bitmap that every write is
noted in.  Here it is added and removed between runs of Bonnie++ in one guest
that never moves, so that nothing else differs.
"""

import os
from contextlib import closing

from dev.bench.apps import PROBLEMS
from dev.bench.debian_guest import PAPER_RECIPE, DebianScene, debian_config
from dev.bench.methods import WSM
from dev.bench.moving import cpu_seconds
from dev.bench.sample import Sample, Samples
from dev.bench.settings import Settings
from dev.demo.client import Heartbeat, run_job
from dev.demo.network import Network, make_network
from dev.rig.basics import require, wait_until
from dev.rig.qmp import Json
from dev.rig.vm import Vm

OFF, ON = 'off', 'on'
TURNS = ((OFF, ON), (ON, OFF))      # each is first as often as the other
BITMAP, GRANULARITY = 'bench', 4096
# Fields of Bonnie++'s line, KiB per second
TESTS = {'putc': 9, 'block write': 11, 'rewrite': 13}
RUN_SECONDS = 600.0


def speeds(line: str) -> dict[str, float]:
    """Bytes per second of the tests that take long enough to tell."""
    fields = line.split(',')
    require(len(fields) > max(TESTS.values()),
            f'not a line of Bonnie++: {line}')
    return {name: int(fields[place]) * 1024.0 for name, place in TESTS.items()
            if fields[place].isdigit()}


def bonnie(network: Network, settings: Settings) -> dict[str, float]:
    result = run_job(network, 'bonnie', settings.paper_cost_mib,
                     settings.paper_cost_chars, seconds=RUN_SECONDS)
    require(result.code == 0 and result.lines,
            f'Bonnie++ failed: {" / ".join(result.lines[-3:])}')
    return speeds(result.lines[0])


def set_tracking(vm: Vm, way: str) -> None:
    """As a sync point does it: a bitmap of the node that the guest has."""
    where: Json = {'node': f'node-{vm.config.disks[0].id}', 'name': BITMAP}
    if way == ON:
        vm.qmp.cmd('block-dirty-bitmap-add',
                   where | {'granularity': GRANULARITY})
    else:
        vm.qmp.cmd('block-dirty-bitmap-remove', where)


def measure_turns(vm: Vm, network: Network, settings: Settings) -> Samples:
    with closing(Heartbeat(network)) as heartbeat:
        wait_until(heartbeat.last, 'the guest answers')
    bonnie(network, settings)       # QEMU translates the code
    for number in range(settings.paper_pairs * settings.few_rounds):
        for way in TURNS[number % len(TURNS)]:
            require(run_job(network, 'sync').code == 0, 'sync failed')
            if way == ON:
                set_tracking(vm, ON)
            sample = Sample(WSM, 'bonnie', load_average=os.getloadavg()[0])
            before = cpu_seconds(vm)
            sample.numbers |= bonnie(network, settings)
            sample.numbers['cpu'] = cpu_seconds(vm) - before
            if way == ON:
                set_tracking(vm, OFF)
            yield way, sample


def section_paper_cost(settings: Settings) -> Samples:
    """Runs in turns, with a bitmap and without."""
    config = debian_config(settings.app_memory, PAPER_RECIPE)
    try:
        with make_network('1gbit') as network:
            scene = DebianScene(config, network)
            try:
                yield from measure_turns(scene.source(), network, settings)
            finally:
                scene.close()
    except PROBLEMS as err:
        yield ON, Sample(WSM, '', failure=f'{type(err).__name__}: {err}')
