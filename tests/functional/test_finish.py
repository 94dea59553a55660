# SPDX-License-Identifier: GPL-2.0-or-later
"""A destination that is killed in post-copy, and wsm-finish for its images."""

import signal
import socket
from dataclasses import replace
from typing import Any, Optional

from dev.rig.basics import require, wait_until
from dev.rig.image import MIB, Image
from dev.rig.relay import Relay
from dev.rig.scene import Scene
from dev.rig.vm import DiskConfig, MachineConfig
from tests.functional.lib.back import BOTH, record
from tests.functional.lib.mapfile import map_path, read_map
from tests.functional.lib.registry import add, test
from tests.functional.lib.rejoin import (Crashed, Finishing,
                                         destination_killed, expect_no_rest,
                                         expect_same, reopen, served)
from tests.functional.lib.setups import Setup, nothing, with_tls

RAW = MachineConfig((DiskConfig('vd0'),))
QCOW2 = MachineConfig((DiskConfig('vd0', fmt='qcow2'),))


def expect_finished(crashed: Crashed, *options: str) -> str:
    """It fetches all, while the source's images are served."""
    with Finishing(crashed, *options) as finishing, \
            served(crashed) as serving:
        said = str(finishing.wait(0))
        serving.wait(0)
    require('nothing is missing any more' in said, said)
    expect_no_rest(crashed)
    expect_same(crashed)
    return said


def killed_and_finished(setup: Setup = nothing, **options: Any) -> Any:
    def function(scene: Scene) -> None:
        crashed = destination_killed(scene, setup, **options)
        expect_finished(crashed)
        # And again: there is nothing to do
        expect_refused(crashed, 'nothing is missing')
        scene.reopen('destination-2', crashed.images, paused=True).qmp.cmd(
            'cont')
    return function


def add_finished(name: str, config: MachineConfig, setup: Setup = nothing,
                 **options: Any) -> None:
    function = killed_and_finished(setup, **options)
    function.__doc__ = f'The destination is killed, then no guest: {name}.'
    add(f'finished-{name}', function, config)


add_finished('raw', RAW)
add_finished('qcow2', QCOW2)
add_finished('two-disks', BOTH)
add_finished('coarse', BOTH, granularity=1 << 20, channels=16,
             x_push_delay=2000)
add_finished('tls', BOTH, with_tls(nothing))


def missing_blocks(crashed: Crashed) -> int:
    """How many of the first disk, by its map."""
    return len(read_map(map_path(crashed.images[0])).missing)


def broken_off(how: int, status: int) -> Any:
    def function(scene: Scene) -> None:
        crashed = destination_killed(scene)
        first = missing_blocks(crashed)
        relay = Relay(int(crashed.uri.rpartition(':')[2]))
        scene.relays.append(relay)
        with Finishing(crashed) as finishing, \
                served(crashed, uri=relay.uri):
            wait_until(lambda: sum(each.forwarded for each in
                                   relay.connections) > first * 1024, 'data')
            for each in relay.connections:
                each.stall()
            wait_until(lambda: missing_blocks(crashed) < first, 'a mark')
            finishing.process.send_signal(how)
            said = finishing.wait(status)
            require(status < 0 or 'run it again' in said, said)
        wait_until(lambda: not crashed.images[0].is_locked(),
                   'the QEMU that it had started ends')
        require(0 < missing_blocks(crashed) < first, 'the map')
        expect_finished(crashed)
    function.__doc__ = f'Ended by signal {how}, and started again.'
    return function


add('finished-after-interrupt', broken_off(signal.SIGINT, 1), RAW)
add('finished-after-sigterm', broken_off(signal.SIGTERM, 1), RAW)
add('finished-after-kill', broken_off(signal.SIGKILL, -signal.SIGKILL), QCOW2)


# Refused

def expect_refused(crashed: Crashed, *words: str,
                   options: tuple[str, ...] = (), uri: str = '',
                   images: Optional[list[Image]] = None) -> None:
    """It says why, at once."""
    with Finishing(crashed, *options, uri=uri, images=images) as finishing:
        said = finishing.wait(1)
    for word in words:
        require(word in said, f'"{word}" is not in: {said}')
    require('Traceback' not in said, said)


@test(BOTH)
def finish_refused(scene: Scene) -> None:
    """Each reason not to fetch is said, and nothing is harmed."""
    crashed = destination_killed(scene)
    raw, qcow2 = crashed.images
    expect_refused(crashed, 'had 2 disks', 'start QEMU with all',
                   images=[raw])
    gone = replace(qcow2, path=scene.folder / 'none')
    expect_refused(crashed, 'No such file', images=[raw, gone])
    other = Image(scene.folder / 'other.raw', 'raw', MIB).create()
    expect_refused(crashed, 'it has no record', images=[raw, other])
    expect_refused(crashed, 'a QEMU has it open',
                   images=crashed.source.images)
    crashed.source.kill()
    expect_refused(crashed, 'wsm-serve', images=crashed.source.images)
    expect_refused(crashed, 'is no address', uri='exec:true')
    expect_refused(crashed, 'there is no program',
                   options=('--qemu', '/none'))
    expect_refused(crashed, 'ca-cert.pem',
                   options=('--tls-creds', str(scene.folder)))
    expect_refused(crashed, 'nobody has sent anything',
                   options=('--timeout', '0.5'))
    with socket.create_server(('127.0.0.1', 0)) as taken:
        expect_refused(crashed, 'Address already in use',
                       uri=f'tcp:127.0.0.1:{taken.getsockname()[1]}')
    expect_refused(crashed, options=('--format', 'qcow2'))
    expect_finished(crashed)


@test(RAW)
def finish_in_use(scene: Scene) -> None:
    """A QEMU has the image: the guest may run there."""
    crashed = destination_killed(scene)
    crashed.source.kill()
    vm = reopen(scene, crashed)
    expect_refused(crashed, 'a QEMU has it open', 'wsm-rejoin')
    vm.quit()
    with Finishing(crashed) as finishing:
        wait_until(crashed.images[0].is_locked, 'it has the image')
        expect_refused(crashed, 'a QEMU has it open',
                       uri='tcp:127.0.0.1:0')
        finishing.process.send_signal(signal.SIGTERM)
        finishing.wait(1)
    expect_finished(crashed)


@test(RAW)
def finish_without_map(scene: Scene) -> None:
    """The map is gone, or damaged, or the record is."""
    crashed = destination_killed(scene)
    image, = crashed.images
    data = map_path(image).read_bytes()
    map_path(image).unlink()
    expect_refused(crashed, 'there is no map')
    map_path(image).write_bytes(bytes(8192) + data[8192:])
    expect_refused(crashed, 'is not known')
    map_path(image).write_bytes(data)
    text = record(image).read_bytes()
    record(image).write_bytes(text[:-3])
    expect_refused(crashed, 'torn')
    record(image).write_bytes(text)
    expect_finished(crashed)


@test(RAW)
def finish_looks_like_qcow2(scene: Scene) -> None:
    """A guest may write anything to its disk: nothing is guessed from that."""
    crashed = destination_killed(scene)
    for image in crashed.images + crashed.expected:
        with open(image.path, 'rb+') as file:
            file.write(b'QFI\xfb')
    expect_refused(crashed, '--format')
    # Not the first block, which the source may send
    require(0 not in read_map(map_path(crashed.images[0])).missing,
            'the first block is missing')
    expect_finished(crashed, '--format', 'raw')
