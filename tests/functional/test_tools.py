# SPDX-License-Identifier: GPL-2.0-or-later
"""What others see of a migration: management tools, firewalls."""

from functools import partial

from dev.rig.basics import require, run, wait_until
from dev.rig.qmp import Json
from dev.rig.scene import Scene, finish
from dev.rig.vm import Vm
from tests.functional.lib.moves import (SLOW_PUSH, end, expect_moved,
                                        loaded_source, running_migration,
                                        start_and_wait, to_the_end)
from tests.functional.lib.registry import test


def seen(vm: Vm, part: str, name: str) -> float:
    """A number of query-migrate."""
    value: float = vm.migration().get(part, {}).get(name, 0)
    return value


def has_throughput(vm: Vm, part: str) -> bool:
    """Whether query-migrate has a number of Mbit/s for it."""
    return seen(vm, part, 'mbps') > 0


@test()
def progress_in_query_migrate(scene: Scene) -> None:
    """query-migrate and "info migrate" tell of disks that are being sent."""
    source, destination, _ = running_migration(scene)
    before = seen(source, 'disk', 'transferred')
    require(before > 0, f'query-migrate shows no disk: {source.migration()}')
    wait_until(lambda: seen(source, 'disk', 'transferred') > before,
               'more is transferred')
    size = sum(image.size for image in source.images)
    require(seen(source, 'disk', 'total') == size, 'total is not the size')
    require(0 < seen(source, 'disk', 'remaining') < size, 'what remains')
    for part in ('ram', 'disk'):
        wait_until(partial(has_throughput, source, part),
                   f'{part} has a throughput')
    text = source.qmp.hmp('info migrate')
    require('transferred disk:' in text and 'transferred disk: 0 ' not in text,
            f'info migrate shows no disk: {text}')
    to_the_end(scene, source, destination)


def disk_of(info: Json) -> Json:
    """What libvirt reads of disks: all of it, or it gives up."""
    disk: Json = info['disk']
    for name in ('transferred', 'remaining', 'total'):
        require(isinstance(disk.get(name), int), f'no {name}: {disk}')
    return disk


@test()
def progress_after_the_handover(scene: Scene) -> None:
    """So that `virsh domjobinfo` goes on until nothing is left."""
    source = loaded_source(scene)
    destination = scene.destination()
    start_and_wait(source, scene.uri(destination), 'postcopy',
                   max_residue=30000, **SLOW_PUSH)
    info = source.migration()
    disk = disk_of(info)
    require(info['status'] == 'postcopy-active' and disk['remaining'] > 0,
            f'{info}')
    left = float(disk['remaining'])
    wait_until(lambda: 0 < seen(source, 'disk', 'remaining') < left,
               'less remains')
    wait_until(partial(has_throughput, source, 'disk'), 'disks get there')
    source.qmp.cmd('wsm-set-options', x_push_delay=0)
    finish(source, destination)
    last = disk_of(source.migration())
    require(last['remaining'] == 0 and
            last['transferred'] > disk['transferred'] and
            last['total'] == disk['total'], f'{last}')
    expect_moved(scene, source, destination)
    end(source, destination)


@test()
def keepalive(scene: Scene) -> None:
    """Connections that carry nothing are kept alive from both ends."""
    source, destination, _ = running_migration(scene)
    port = destination.listen_port()

    def kept() -> int:
        """Ends of connections that are idle and do not stay so."""
        text = run('ss', '-tnoH', 'state', 'established',
                   f'( sport = :{port} or dport = :{port} )')
        return text.count('timer:(keepalive,')

    # Both ends of the main stream and of channel 0
    wait_until(lambda: kept() >= 4, 'four ends with a timer')
    to_the_end(scene, source, destination)
