# SPDX-License-Identifier: GPL-2.0-or-later
"""A destination that is killed in post-copy goes on: wsm-rejoin."""

from typing import Any

from dev.rig.basics import require
from dev.rig.image import MIB
from dev.rig.scene import Scene, disk_total, wait_phase
from dev.rig.vm import DiskConfig, MachineConfig
from tests.functional.lib.back import BOTH, states
from tests.functional.lib.registry import add, test
from tests.functional.lib.rejoin import (destination_killed, expect_whole,
                                         rejoin, served)
from tests.functional.lib.rescue import wait_missing
from tests.functional.lib.setups import Setup, caps, nothing

RAW = MachineConfig((DiskConfig('vd0'),))
QCOW2 = MachineConfig((DiskConfig('vd0', fmt='qcow2'),))
IOTHREAD = MachineConfig((DiskConfig('vd0', iothread='io0'),
                          DiskConfig('vd1', fmt='qcow2', iothread='io0')),
                         iothreads=('io0',))
FILLED = 4 * MIB


def killed_and_rejoined(setup: Setup = nothing, **options: Any) -> Any:
    def function(scene: Scene) -> None:
        crashed = destination_killed(scene, setup, **options)
        vm = rejoin(scene, crashed)
        missing = disk_total(vm, 'missing')
        require(missing > 0, 'nothing is missing')
        with served(crashed) as serving:
            serving.wait(0)
        expect_whole(vm, crashed, missing)
    return function


def add_rejoined(name: str, config: MachineConfig, setup: Setup = nothing,
                 **options: Any) -> None:
    function = killed_and_rejoined(setup, **options)
    function.__doc__ = f'The destination is killed and goes on: {name}.'
    add(f'rejoined-{name}', function, config)


def source_lives(setup: Setup = nothing, new_port: bool = False) -> Any:
    def function(scene: Scene) -> None:
        crashed = destination_killed(scene, setup)
        source = crashed.source
        source.wait_migration('postcopy-paused')
        uri = 'tcp:127.0.0.1:4456' if new_port else crashed.uri
        vm = rejoin(scene, crashed, uri=uri)
        require(disk_total(vm, 'missing') > 0, 'nothing is missing')
        source.qmp.cmd('wsm-set-options', x_push_delay=0)
        if new_port:
            source.qmp.cmd('migrate', uri=uri, resume=True)
        source.wait_migration('completed')
        require(set(states(source)) == {'handed-over'}, f'{states(source)}')
        expect_whole(vm, crashed)
    return function


def add_living(name: str, config: MachineConfig, setup: Setup = nothing,
               new_port: bool = False) -> None:
    function = source_lives(setup, new_port)
    function.__doc__ = f'The source lives, and comes by itself: {name}.'
    add(f'source-comes-back-{name}', function, config)


add_living('raw', RAW)
add_living('two-disks', BOTH)
add_living('postcopy-ram', RAW, caps('postcopy-ram'))
add_living('elsewhere', RAW, new_port=True)
add_rejoined('raw', RAW)
add_rejoined('qcow2', QCOW2)
add_rejoined('two-disks', BOTH)
add_rejoined('iothread', IOTHREAD)
add_rejoined('coarse', BOTH, granularity=1 << 20, channels=16,
             x_push_delay=2000)


@test(BOTH)
def rejoined_and_killed(scene: Scene) -> None:
    """It is killed again, each time with more of it there."""
    crashed = destination_killed(scene)
    for number in (2, 3):
        vm = rejoin(scene, crashed, f'destination-{number}')
        missing = disk_total(vm, 'missing')
        with served(crashed):
            wait_missing(vm, missing)
            vm.kill()
    vm = rejoin(scene, crashed, 'destination-4')
    with served(crashed) as serving:
        serving.wait(0)
    expect_whole(vm, crashed)


@test(RAW)
def rejoined_guest_runs(scene: Scene) -> None:
    """The guest boots while blocks are missing, and its writes stay."""
    crashed = destination_killed(scene)
    vm = rejoin(scene, crashed)
    vm.qmp.cmd('cont')
    scene.guest.wait_ready()
    scene.guest.fill(0, 0, FILLED)
    require(disk_total(vm, 'missing') > 0, 'nothing is missing')
    with served(crashed) as serving:
        serving.wait(0)
    wait_phase(vm, 'completed')
    scene.guest.command(f'check 0 0 {FILLED // 512}')
    scene.guest.command('flush')
    vm.quit()
    expected = crashed.expected[0].path.read_bytes()
    found = crashed.images[0].path.read_bytes()
    require(expected[FILLED:] == found[FILLED:], 'the rest of the disk')
