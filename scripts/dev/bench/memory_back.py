# SPDX-License-Identifier: GPL-2.0-or-later
"""A guest that comes back soon to where it was, in each of the ways.

It moves, works on there, and moves back to the image that it left; only the
way back is measured.
"""

import time

from dev.bench.memory_guests import SIBLINGS, roles
from dev.bench.memory_move import move
from dev.bench.memory_refs import Stand, perform, road_of
from dev.bench.memory_ways import (BACK_WAYS, DISK_KIND, IMAGE_KIND,
                                   MEMORY_WAYS, Way)
from dev.bench.sample import Sample, Samples
from dev.bench.settings import Settings
from dev.demo.network import Network
from dev.rig.basics import require, wait_until
from dev.rig.scene import query
from dev.rig.vm import Vm


def leave(stand: Stand, settings: Settings) -> tuple[Vm, Vm]:
    """Move for the first time; returns who had the guest, and has it."""
    source = stand.scene.source()
    destination = stand.open_destination(source)
    options = dict(stand.way.options)
    keeps = IMAGE_KIND in stand.way.kinds
    if keeps:
        # Nothing is kept there before
        options |= {'keep_memory': True, 'memory_references': [DISK_KIND]}
    move(stand.stage(source, destination, settings), stand.network, options,
         Sample(stand.way.name, ''))
    if keeps:
        wait_kept(source)
    source.quit()
    return source, destination


def wait_kept(vm: Vm) -> None:
    def state() -> str:
        found = query(vm).get('kept-memory', {}).get('state', 'writing')
        return '' if found == 'writing' else str(found)

    found = wait_until(state, f'{vm.name}: memory is kept')
    require(found == 'kept', f'{vm.name}: memory is not kept, but {found}')


def work(network: Network, guest: str, settings: Settings) -> None:
    """What it does all day, for so long."""
    role = roles(settings.app_memory)[guest]
    end = time.monotonic() + settings.memory_away
    while time.monotonic() < end:
        role.work(network)


def there_and_back(stand: Stand, settings: Settings, sample: Sample) -> None:
    left, here = leave(stand, settings)
    work(stand.network, sample.load, settings)
    home = stand.scene.destination('defer', images=left.images, name='home')
    stand.listen(here, home)
    move(stand.stage(here, home, settings), stand.network,
         stand.way.options | {'memory_adaptive': False}, sample)
    sample.numbers['away'] = settings.memory_away
    here.quit()
    home.quit()


def measure_back(guest: str, way: Way, settings: Settings) -> Sample:
    return perform(
        guest, way, road_of(settings), settings,
        lambda stand, sample: there_and_back(stand, settings, sample))


def section_back(settings: Settings) -> Samples:
    """Each sibling there, and back some minutes later."""
    for _ in range(settings.few_rounds):
        for guest in SIBLINGS[:settings.memory_guests]:
            for name in BACK_WAYS:
                yield f'{guest} {name}', measure_back(
                    guest, MEMORY_WAYS[name], settings)


MEMORY_BACK_SECTIONS = {'memory-back': section_back}
