# SPDX-License-Identifier: GPL-2.0-or-later
"""A destination that is killed in post-copy goes on: wsm-rejoin."""

import socket
import uuid
from dataclasses import replace
from typing import Any

from dev.rig.basics import require
from dev.rig.image import MIB
from dev.rig.scene import Scene, disk_total, wait_phase
from dev.rig.vm import DiskConfig, MachineConfig, Vm
from tests.functional.lib.back import BOTH, record, states
from tests.functional.lib.mapfile import Map, map_path, read_map
from tests.functional.lib.registry import add, test
from tests.functional.lib.rejoin import (destination_killed, expect_whole,
                                         fetch_rest, rejoin, reopen, served)
from tests.functional.lib.rescue import wait_missing
from tests.functional.lib.setups import (Setup, caps, nothing,
                                         with_tls)
from tests.functional.lib.strangers import Stranger
from tests.functional.test_rescue import rewrite_record

RAW = MachineConfig((DiskConfig('vd0'),))
QCOW2 = MachineConfig((DiskConfig('vd0', fmt='qcow2'),))
IOTHREAD = MachineConfig((DiskConfig('vd0', iothread='io0'),
                          DiskConfig('vd1', fmt='qcow2', iothread='io0')),
                         iothreads=('io0',))
ANONYMOUS = MachineConfig((
    DiskConfig('vd0', anonymous=True, extra=(('addr', '0x5'),)),
    DiskConfig('vd1', anonymous=True, extra=(('addr', '0x6'),))))
TWO_SIZES = MachineConfig((DiskConfig('vd0'),
                           DiskConfig('vd1', size=80 * MIB)))
FILLED = 4 * MIB


def killed_and_rejoined(setup: Setup = nothing, **options: Any) -> Any:
    def function(scene: Scene) -> None:
        crashed = destination_killed(scene, setup, **options)
        vm = rejoin(scene, crashed)
        missing = disk_total(vm, 'missing')
        require(missing > 0, 'nothing is missing')
        fetch_rest(vm, crashed, missing)
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
add_rejoined('anonymous', ANONYMOUS)
add_rejoined('tls', BOTH, with_tls(nothing))
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
    fetch_rest(vm, crashed)


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


@test(RAW)
def rejoined_over_unix(scene: Scene) -> None:
    """At a UNIX socket."""
    crashed = destination_killed(scene)
    uri = f'unix:{scene.folder}/re join'
    vm = rejoin(scene, crashed, uri=uri)
    fetch_rest(vm, crashed, uri=uri)


@test(BOTH)
def rejoined_renamed(scene: Scene) -> None:
    """An image has another name, and so have its record and map."""
    crashed = destination_killed(scene)
    images = []
    for image in crashed.images:
        new = replace(image, path=image.path.with_name(f'new {image.fmt}'))
        for old in (image.path, record(image), map_path(image)):
            old.rename(str(old).replace(str(image.path), str(new.path)))
        images.append(new)
    crashed.images[:] = images
    vm = rejoin(scene, crashed)
    fetch_rest(vm, crashed)


def runs_of(found: Map) -> list[tuple[int, int]]:
    """What is missing, in bytes, as the list of lost blocks has it."""
    result: list[tuple[int, int]] = []
    for block in sorted(found.missing):
        offset, size = block * found.granularity, found.granularity
        if result and sum(result[-1]) == offset:
            offset, size = result[-1][0], result[-1][1] + size
            result.pop()
        result.append((offset, size))
    return result


@test(RAW)
def source_lost_for_good(scene: Scene) -> None:
    """The missing blocks become zeroes, and a list says which they are."""
    crashed = destination_killed(scene)
    image = crashed.images[0].path
    lost = runs_of(read_map(map_path(crashed.images[0])))
    content = bytearray(image.read_bytes())
    require(any(any(content[at:at + size]) for at, size in lost),
            'zeroes are missing')
    vm = scene.reopen('destination-2', crashed.images, paused=True)
    vm.qmp.expect_error('wsm-adopt', 'bytes of it are still there',
                        'wsm-serve there and wsm-rejoin here')
    require(set(states(vm)) == {'arriving'}, f'{states(vm)}')
    vm.qmp.cmd('wsm-adopt', missing='zero')
    require(set(states(vm)) == {'current'}, f'{states(vm)}')
    vm.quit()
    for offset, size in lost:
        content[offset:offset + size] = bytes(size)
    require(image.read_bytes() == content, 'the disk')
    lines = image.with_name(f'{image.name}.wsm.lost').read_text('utf-8')
    require([tuple(map(int, line.split())) for line in lines.splitlines()]
            == lost, 'the list')
    scene.reopen('destination-3', crashed.images).wait_running()


# Refused

def refuse(vm: Vm, uri: str, *words: str) -> None:
    vm.qmp.expect_error('wsm-rejoin', *words, uri=uri)


@test(BOTH)
def rejoin_refused(scene: Scene) -> None:
    """Each reason is said, and then it goes on."""
    crashed = destination_killed(scene)
    crashed.source.kill()
    vm = reopen(scene, crashed)
    vm.qmp.expect_error('cont', 'bytes of it are still', 'wsm-serve',
                        'wsm-rejoin')
    refuse(vm, 'fd:7', 'fd')
    refuse(vm, 'exec:true', 'exec')
    refuse(vm, 'nonsense', 'nonsense')
    refuse(vm, 'unix:/nowhere/at all', '/nowhere/at all')
    with socket.create_server(('127.0.0.1', 0)) as taken:
        refuse(vm, f'tcp:127.0.0.1:{taken.getsockname()[1]}', 'in use')
    require(set(states(vm)) == {'arriving'}, f'{states(vm)}')
    vm.qmp.cmd('wsm-rejoin', uri=crashed.uri)
    refuse(vm, 'tcp:127.0.0.1:0', 'has not ended yet')
    vm.qmp.expect_error('migrate', 'still missing', uri='tcp:127.0.0.1:9')
    vm.qmp.cmd('blockdev-add', {'driver': 'null-co', 'node-name': 'target',
                                'size': crashed.images[0].size})
    for node in ('node-vd0', 'node-vd1'):
        vm.qmp.expect_error('blockdev-backup', 'not arrived', job_id='job',
                            device=node, target='target', sync='full')
        vm.qmp.expect_error('block_resize', node_name=node, size=1 << 27)
    require('missing' in vm.qmp.hmp('savevm one'), 'savevm')
    vm.qmp.expect_error('wsm-adopt')
    fetch_rest(vm, crashed)


@test(BOTH)
def rejoin_strangers(scene: Scene) -> None:
    """Whoever else comes to the port is sent away."""
    crashed = destination_killed(scene)
    crashed.source.kill()
    vm = rejoin(scene, crashed)
    port = int(crashed.uri.rpartition(':')[2])
    for data in (b'QEVM\0\0\0\3', b'\x16\3\1\0', b'GET / HTTP/1.0\r\n\r\n'):
        stranger = Stranger(port, data)
        require(stranger.receive_all() == b'', 'an answer')
        stranger.close()
    waiting = Stranger(port, b'')
    text = [record(image).read_bytes() for image in crashed.source.images]
    other = str(uuid.uuid4())
    for image in crashed.source.images:
        rewrite_record(image, session=other)
    with served(crashed) as serving:
        require('session' in serving.wait(1), serving.said)
    for image, data in zip(crashed.source.images, text):
        record(image).write_bytes(data)
    with served(crashed) as serving:
        serving.wait(0)
    waiting.close()
    expect_whole(vm, crashed)


@test(TWO_SIZES)
def rejoin_wrong_maps(scene: Scene) -> None:
    """Maps that are exchanged, damaged, deleted, or of a disk alone."""
    crashed = destination_killed(scene)
    maps = [map_path(image) for image in crashed.images]
    data = [each.read_bytes() for each in maps]
    wrong = {
        'exchanged': [data[1], data[0]],
        'damaged': [b'?' * 8192 + data[0][8192:], data[1]],
        'deleted': [b'', data[1]],
    }
    for name, contents in wrong.items():
        for path, content in zip(maps, contents):
            path.write_bytes(content)
            if not content:
                path.unlink()
        vm = scene.reopen(name, crashed.images, paused=True)
        vm.qmp.expect_error('cont', 'disk')
        refuse(vm, 'tcp:127.0.0.1:0', "disk 'vd0'")
        vm.quit()
    for path, content in zip(maps, data):
        path.write_bytes(content)
    config = scene.config
    # Alone, one that lacks nothing is a good disk
    lacks = next(i for i, path in enumerate(maps) if read_map(path).missing)
    scene.config = replace(config, disks=config.disks[lacks:lacks + 1])
    vm = scene.reopen('one', crashed.images[lacks:lacks + 1], paused=True)
    refuse(vm, 'tcp:127.0.0.1:0', 'had 2 disks')
    vm.quit()
    scene.config = replace(config, extra=('-incoming', 'defer'))
    vm = scene.reopen('incoming', crashed.images, paused=True)
    refuse(vm, 'tcp:127.0.0.1:0', 'without -incoming')
    vm.kill()
    scene.config = config
    vm = rejoin(scene, crashed)
    fetch_rest(vm, crashed)


@test(RAW)
def rejoin_of_running_guest(scene: Scene) -> None:
    """A guest that runs, or whose disks are whole, has nothing to rejoin."""
    vm = scene.source()
    refuse(vm, 'tcp:127.0.0.1:0', 'is for a guest that is paused')
    vm.qmp.cmd('stop')
    refuse(vm, 'tcp:127.0.0.1:0', 'there is nothing to rejoin')
    vm.qmp.cmd('cont')


@test(MachineConfig((DiskConfig('vd0'), DiskConfig('vd1'))))
def rejoin_exchanged_maps(scene: Scene) -> None:
    """The maps of two disks of one size are exchanged: no block is believed."""
    crashed = destination_killed(scene)
    maps = [map_path(image) for image in crashed.images]
    aside = maps[0].with_suffix('.aside')
    maps[0].rename(aside)
    maps[1].rename(maps[0])
    aside.rename(maps[1])
    vm = scene.reopen('destination-2', crashed.images, paused=True)
    vm.qmp.expect_error('wsm-rejoin', 'it is of disk 1, and the image of disk',
                        uri=crashed.uri)
    vm.qmp.expect_error('cont', 'is not known')
    require(set(states(vm)) == {'arriving'}, f'{states(vm)}')
    vm.quit()
    maps[0].rename(aside)
    maps[1].rename(maps[0])
    aside.rename(maps[1])
    vm = rejoin(scene, crashed, 'destination-3')
    fetch_rest(vm, crashed)
