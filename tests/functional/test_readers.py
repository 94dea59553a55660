# SPDX-License-Identifier: GPL-2.0-or-later
"""Who else reads or writes a disk that moves, or is on its way."""

import json
from dataclasses import replace
from pathlib import Path

from dev.rig.basics import TestFailure, require, run, tool
from dev.rig.image import MIB, Image
from dev.rig.scene import (WSM, Scene, begin, disk_total, enable, finish,
                           query, wait_phase)
from dev.rig.vm import DiskConfig, MachineConfig, Vm
from tests.functional.lib.back import BOTH, expect_refused
from tests.functional.lib.moves import (SLOW_DISK, end, expect_moved,
                                        expect_unharmed, loaded_source, move,
                                        second_try)
from tests.functional.lib.registry import test

# Says why, and when it will work
WAIT = ('not arrived', 'query-wsm')


def enter_postcopy(scene: Scene, source: Vm, destination: Vm) -> None:
    """Blocks are missing there, and stay so until leave_postcopy()."""
    begin(source, scene.uri(destination), x_push_delay=2000, max_residue=30000)
    wait_phase(destination, 'postcopy')
    scene.guest.stop()
    require(disk_total(destination, 'missing') > 0, 'nothing is missing')


def leave_postcopy(scene: Scene, source: Vm, destination: Vm) -> None:
    require(disk_total(destination, 'missing') > 0, 'it ended too early')
    source.qmp.cmd('wsm-set-options', x_push_delay=0)
    finish(source, destination)
    expect_moved(scene, source, destination)


def busy_source(scene: Scene) -> Vm:
    """It leaves a lot behind for post-copy."""
    return loaded_source(scene, writers=4, full=1, big=1)


# Readers

def add_target(scene: Scene, vm: Vm, name: str = 'target') -> Path:
    """A blank image as one more node, for backups of the first disk."""
    image = Image(scene.folder / f'{vm.name}-{name}', 'raw',
                  scene.config.disks[0].size).create()
    vm.qmp.cmd('blockdev-add', {
        'driver': 'raw', 'node-name': name,
        'file': {'driver': 'file', 'filename': str(image.path)}})
    return image.path


def start_nbd(scene: Scene, vm: Vm) -> None:
    vm.qmp.cmd('nbd-server-start', addr={
        'type': 'unix', 'data': {'path': str(scene.folder / 'nbd')}})


def export(vm: Vm, node: str, name: str, writable: bool = False) -> None:
    vm.qmp.cmd('block-export-add', {'type': 'nbd', 'id': name, 'name': name,
                                    'node-name': node, 'writable': writable})


def copy_out(scene: Scene, name: str) -> bytes:
    """What is read at the export of this name."""
    path = scene.folder / f'{name}.copy'
    run(tool('qemu-img'), 'convert', '-f', 'raw', '-O', 'raw',
        f'nbd+unix:///{name}?socket={scene.folder / "nbd"}', str(path))
    return path.read_bytes()


def refuse_jobs(vm: Vm, node: str) -> None:
    """What reads a node, or puts another one in its place."""
    refuse = vm.qmp.expect_error
    refuse('blockdev-backup', *WAIT, node, job_id='job', device=node,
           target='target', sync='full')
    refuse('drive-backup', *WAIT, node, job_id='job', device=node,
           target=f'{vm.folder}/backup', sync='full', format='raw')
    refuse('blockdev-snapshot-sync', *WAIT, node, node_name=node,
           snapshot_file=f'{vm.folder}/overlay', format='qcow2',
           snapshot_node_name='overlay')
    refuse('block_resize', *WAIT, node, node_name=node, size=MIB)


def complaint(*command: str) -> str:
    """What a program says that fails; '' if it does not."""
    try:
        run(*command)
    except TestFailure as err:
        return str(err)
    return ''


def copy_forced(scene: Scene, image: Image) -> str:
    """What qemu-img -U says when it reads an image in use; '' if it can."""
    return complaint(tool('qemu-img'), 'convert', '-U', '-f', image.fmt,
                     '-O', 'raw', str(image.path),
                     str(scene.folder / 'forced'))


@test(BOTH)
def readers_below_refused(scene: Scene) -> None:
    """Nobody reads a disk by its node's name while blocks are missing."""
    source = busy_source(scene)
    destination = scene.destination()
    start_nbd(scene, destination)
    enter_postcopy(scene, source, destination)
    target = add_target(scene, destination)
    refuse = destination.qmp.expect_error
    for node in ('node-vd0', 'node-vd0-file', 'node-vd1', 'node-vd1-file'):
        refuse_jobs(destination, node)
        refuse('block-export-add', node, 'consistent read', type='nbd',
               id='below', node_name=node)
    refuse('device_add', 'node-vd0', 'consistent read', id='second',
           driver='virtio-blk-pci', drive='node-vd0', share_rw=True)
    for image in destination.images:
        text = copy_forced(scene, image)
        require('consistent read' in text, f'{image.path} was read: {text}')
    leave_postcopy(scene, source, destination)
    destination.qmp.cmd('blockdev-backup', job_id='job', device='node-vd0',
                        target='target', sync='full')
    destination.qmp.event('BLOCK_JOB_COMPLETED')
    end(source, destination)
    require(target.read_bytes() == destination.images[0].path.read_bytes(),
            'the backup differs')


@test()
def readers_above_read_right(scene: Scene) -> None:
    """Exports of before the migration, and of the filter, pull blocks."""
    source = busy_source(scene)
    destination = scene.destination()
    start_nbd(scene, destination)
    export(destination, 'node-vd0', 'before')
    enter_postcopy(scene, source, destination)
    add_target(scene, destination)
    name = next(node['node-name'] for node in
                destination.qmp.cmd('query-named-block-nodes', flat=True)
                if node['drv'] == 'pull-on-demand')
    for command in ('blockdev-backup', 'blockdev-mirror'):
        destination.qmp.expect_error(command, *WAIT, job_id='job', device=name,
                                     target='target', sync='full')
    export(destination, name, 'filter')
    copies = [copy_out(scene, 'before')]
    require(disk_total(destination, 'pulled') > 0, 'nothing was pulled')
    copies.append(copy_out(scene, 'filter'))
    source.qmp.cmd('wsm-set-options', x_push_delay=0)
    source.wait_migration('completed')
    destination.wait_migration('completed')
    copies.append(copy_out(scene, 'filter'))
    for export_id in ('before', 'filter'):
        destination.qmp.cmd('block-export-del', id=export_id)
        destination.qmp.event('BLOCK_EXPORT_DELETED')
    destination.qmp.cmd('nbd-server-stop')
    finish(source, destination)
    expect_moved(scene, source, destination)
    end(source, destination)
    right = destination.images[0].path.read_bytes()
    require(all(copy == right for copy in copies), 'a copy is wrong')


@test(MachineConfig((DiskConfig(fmt='qcow2'),)))
def snapshots_refused_throughout(scene: Scene) -> None:
    """savevm, loadvm and capabilities: not before the migration ends."""
    source = busy_source(scene)
    destination = scene.destination()
    enter_postcopy(scene, source, destination)
    for vm in (source, destination):
        for name in (WSM, 'postcopy-ram'):
            vm.qmp.expect_error('migrate-set-capabilities', 'migration',
                                capabilities=[{'capability': name,
                                               'state': name != WSM}])
        for line in ('savevm one', 'loadvm one'):
            text = vm.qmp.hmp(line)
            require('not ended' in text, f'{vm.name}: {line}: {text}')
    destination.set_caps(WSM)       # what it is already
    leave_postcopy(scene, source, destination)
    destination.set_caps(WSM, on=False)
    end(source, destination)


def overlay_on(scene: Scene, base: Image) -> list[Image]:
    """An empty image that is based on one that was left behind."""
    image = Image(scene.folder / f'{base.path.stem}-overlay', 'qcow2',
                  base.size)
    run(tool('qemu-img'), 'create', '-q', '-f', 'qcow2', '-F', base.fmt,
        '-b', str(base.path), str(image.path))
    return [image]


@test(MachineConfig((DiskConfig(fmt='qcow2'),)))
def overlay_on_incomplete(scene: Scene) -> None:
    """An overlay is no way round the record of the image below it."""
    source = busy_source(scene)
    destination = scene.destination()
    enter_postcopy(scene, source, destination)
    destination.kill()
    source.kill()
    for left, words in ((destination, ('based on', 'did not end')),
                        (source, ('based on', 'stale copy', 'wsm-adopt'))):
        vm = scene.reopen(f'on-{left.name}',
                          overlay_on(scene, left.images[0]),
                          scene.other_guest())
        require('The guest was not started' in vm.stderr(),
                f'it says: {vm.stderr()}')
        expect_refused(vm, *words)
    vm.qmp.cmd('wsm-adopt')
    vm.qmp.cmd('cont')
    vm.guest.wait_ready()
    vm.quit()


@test()
def adopt_spares_good_records(scene: Scene) -> None:
    """wsm-adopt of an overlay keeps the sync points of a good image below."""
    source = busy_source(scene)
    destination = scene.destination()
    begin(source, scene.uri(destination))
    finish(source, destination)
    end(source, destination)
    base = destination.images[0]
    record = Path(f'{base.path}.wsm')
    before = record.read_bytes()
    scene.config = replace(scene.config, disks=(DiskConfig(fmt='qcow2'),))
    vm = scene.reopen('overlay', overlay_on(scene, base), paused=True)
    vm.qmp.cmd('wsm-adopt')
    require(record.exists() and record.read_bytes() == before,
            f'the record of {base.path} is gone')
    vm.quit()


# Writers

def write_to(image: Image) -> str:
    """What qemu-io says when it writes to an image; '' if it can."""
    return complaint(tool('qemu-io'), '-f', image.fmt, '-c',
                     'write -P 0xa5 0 512', str(image.path))


@test(BOTH)
def source_stays_locked(scene: Scene) -> None:
    """Nobody writes to the source's images while blocks are missing."""
    source = busy_source(scene)
    destination = scene.destination()
    start_nbd(scene, source)
    enter_postcopy(scene, source, destination)
    for image in source.images:
        text = write_to(image)
        require('lock' in text, f'{image.path} was written: {text}')
    for node in ('node-vd0', 'node-vd1', 'node-vd0-file', 'node-vd1-file'):
        source.qmp.expect_error('block-export-add', 'handed over', type='nbd',
                                id='late', node_name=node, writable=True)
        source.qmp.expect_error('blockdev-set-active', 'handed over',
                                node_name=node, active=True)
    require(source.qmp.cmd('query-block-exports') == [], 'there is an export')
    source.qmp.cmd('nbd-server-stop')
    leave_postcopy(scene, source, destination)
    for image in source.images:
        text = write_to(image)
        require(text == '', f'still locked: {text}')
    end(source, destination)


def with_direct_disk(scene: Scene, where: str) -> Image:
    """One more disk, whose device uses the file's node, without a format."""
    image = Image(scene.folder / f'direct-{where}', 'raw', 16 * MIB).create()
    node = {'driver': 'file', 'node-name': 'direct',
            'filename': str(image.path)}
    scene.config = replace(scene.config, extra=(
        '-blockdev', json.dumps(node),
        '-device', 'virtio-blk-pci,drive=direct,id=direct'))
    return image


@test(MachineConfig((DiskConfig('vd0', iothread='io0'),), iothreads=('io0',)))
def source_stays_locked_directly(scene: Scene) -> None:
    """The same with an IOThread, and without a format node."""
    image = with_direct_disk(scene, 'source')
    source = scene.source(boot=True)
    for disk in range(2):
        scene.guest.fill(disk, 0, 8 * MIB)
    scene.guest.start(writers=4, full=1, big=1)
    with_direct_disk(scene, 'destination')
    destination = scene.destination()
    enter_postcopy(scene, source, destination)
    for left in (image, source.images[0]):
        text = write_to(left)
        require('lock' in text, f'{left.path} was written: {text}')
    leave_postcopy(scene, source, destination)
    for left in (image, source.images[0]):
        text = write_to(left)
        require(text == '', f'still locked: {text}')
    end(source, destination)


# Who would make the freeze fail

def start_backup(vm: Vm, node: str) -> None:
    """A backup that does not end by itself."""
    vm.qmp.cmd('blockdev-backup', job_id='slow', device=node, target='target',
               sync='full', speed=1)


def end_backup(vm: Vm) -> None:
    vm.qmp.cmd('block-job-cancel', device='slow', force=True)
    vm.qmp.event('BLOCK_JOB_CANCELLED')


def expect_not_begun(source: Vm) -> None:
    require(not [data for data in source.qmp.seen('WSM_PHASE')
                 if data['phase'] == 'disk-precopy'], 'it was begun')


@test(BOTH)
def busy_job_named(scene: Scene) -> None:
    """A job or a writable export: said at once, of a disk that stays, too."""
    source = loaded_source(scene)
    add_target(scene, source)
    destination = scene.destination()
    enable(source)
    source.set_caps('events')
    source.qmp.cmd('wsm-set-options', disks=['vd0'])
    uri = scene.uri(destination)
    for node in ('node-vd0', 'node-vd1'):
        start_backup(source, node)
        source.qmp.expect_error('migrate', "'slow'", 'backup', 'target',
                                uri=uri)
        expect_not_begun(source)
        end_backup(source)
    start_nbd(scene, source)
    export(source, 'target', 'open', writable=True)
    source.qmp.expect_error('migrate', "'open'", "'target'", uri=uri)
    expect_not_begun(source)
    source.qmp.cmd('block-export-del', id='open')
    source.qmp.event('BLOCK_EXPORT_DELETED')
    source.qmp.cmd('nbd-server-stop')
    source.qmp.cmd('blockdev-del', node_name='target')
    source.qmp.cmd('wsm-set-options', disks=[])
    expect_unharmed(scene, source)
    move(scene, source, destination)
    end(source, destination)


def error_of(source: Vm) -> str:
    source.wait_migration('failed')
    return f'{source.migration()["error-desc"]} {query(source)["error"]}'


def expect_early(source: Vm, *words: str) -> None:
    """It failed long before the freeze, and says why."""
    text = error_of(source)
    for word in words:
        require(word in text, f'the error lacks "{word}": {text}')
    phases = [data['phase'] for data in source.qmp.seen('WSM_PHASE')]
    require('freeze' not in phases, f'phases: {phases}')


@test(BOTH)
def busy_later(scene: Scene) -> None:
    """During the migration: jobs are refused, an export ends it early."""
    source = loaded_source(scene)
    add_target(scene, source)
    destination = scene.destination()
    begin(source, scene.uri(destination), disks=['vd0'], **SLOW_DISK)
    wait_phase(source, 'disk-precopy')
    for node in ('node-vd0', 'node-vd1'):
        source.qmp.expect_error('blockdev-backup', 'busy', 'migrated',
                                job_id='slow', device=node, target='target',
                                sync='full')
    for node in ('node-vd0', 'node-vd0-file'):
        source.qmp.expect_error(
            'blockdev-snapshot-sync', 'busy', 'migrated', node_name=node,
            snapshot_file=f'{scene.folder}/overlay', format='qcow2',
            snapshot_node_name='overlay')
    start_nbd(scene, source)
    export(source, 'target', 'open', writable=True)
    expect_early(source, "'open'", "'target'")
    source.qmp.cmd('block-export-del', id='open')
    source.qmp.event('BLOCK_EXPORT_DELETED')
    source.qmp.cmd('nbd-server-stop')
    source.qmp.cmd('blockdev-del', node_name='target')
    expect_unharmed(scene, source)
    destination.close()
    second_try(scene, source, disks=[])


@test(MachineConfig(extra=('-device', 'floppy,id=fd0')))
def medium_inserted(scene: Scene) -> None:
    """A writable medium that comes during pre-copy would stay behind."""
    source = loaded_source(scene)
    destination = scene.destination()
    begin(source, scene.uri(destination), **SLOW_DISK)
    wait_phase(source, 'disk-precopy')
    image = Image(scene.folder / 'floppy', 'raw', 1440 << 10).create()
    source.qmp.cmd('blockdev-add', {
        'driver': 'raw', 'node-name': 'floppy',
        'file': {'driver': 'file', 'filename': str(image.path)}})
    source.qmp.cmd('blockdev-insert-medium', id='fd0', node_name='floppy')
    expect_early(source, "'fd0'", "'floppy'", 'inserted')
    expect_unharmed_with(scene, source)
    destination.close()

    # Not if it is to stay
    destination = scene.destination(name='destination-2')
    source.qmp.cmd('blockdev-remove-medium', id='fd0')
    begin(source, scene.uri(destination), disks=['vd0'], **SLOW_DISK)
    wait_phase(source, 'disk-precopy')
    source.qmp.cmd('blockdev-insert-medium', id='fd0', node_name='floppy')
    source.qmp.cmd('wsm-set-options', bandwidth=0)
    source.wait_migration('completed')
    require([disk['name'] for disk in query(source)['excluded']] == ['fd0'],
            f'{query(source)["excluded"]}')
    destination.wait_migration('completed')
    expect_moved(scene, source, destination)
    end(source, destination)


def expect_unharmed_with(scene: Scene, source: Vm) -> None:
    """As expect_unharmed(), but there are new nodes."""
    source.wait_running()
    source.baseline['nodes'] = source.nodes()
    expect_unharmed(scene, source)


@test()
def node_exchanged(scene: Scene) -> None:
    """Another node below the guest's device: the freeze is not tried."""
    source = scene.source()
    scene.guest.fill(0, 0, 32 * MIB)
    scene.guest.command('flush')
    destination = scene.destination()
    begin(source, scene.uri(destination), **SLOW_DISK)
    wait_phase(source, 'disk-precopy')
    add_target(scene, source)
    source.qmp.cmd('qom-set', path='/machine/peripheral/vd0',
                   property='drive', value='target')
    expect_early(source, "'vd0'")
    source.qmp.cmd('qom-set', path='/machine/peripheral/vd0',
                   property='drive', value='node-vd0')
    source.qmp.cmd('blockdev-del', node_name='target')
    expect_unharmed(scene, source)
    destination.close()
    second_try(scene, source)
