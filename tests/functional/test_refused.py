# SPDX-License-Identifier: GPL-2.0-or-later
"""What cannot work is refused with a clear error; the guest is unharmed."""

from dataclasses import replace

from dev.rig.basics import require, wait_until
from dev.rig.image import MIB
from dev.rig.qmp import Json, QmpError
from dev.rig.scene import WSM, Scene, begin, enable, query, wait_phase
from dev.rig.vm import DiskConfig, MachineConfig, Vm
from tests.functional.lib import setups
from tests.functional.lib.moves import (SLOW_DISK, end, expect_unharmed,
                                        fill_half, loaded_source, move,
                                        second_try)
from tests.functional.lib.registry import add, test

RAW = DiskConfig('vd0')
QCOW2 = DiskConfig('vd0', fmt='qcow2')
TWO = MachineConfig((RAW, replace(RAW, id='vd1')))


@test()
def refused_uris(scene: Scene) -> None:
    """exec:, fd: and file: are refused on both sides, and what to do said."""
    source = loaded_source(scene)
    enable(source)
    uris = ('exec:cat >/dev/null', f'file:{scene.folder / "state"}')
    for uri in uris:
        source.qmp.expect_error('migrate', WSM, 'tcp:', 'to a file',
                                'switch the capability off', uri=uri)
        require(source.migration_status() in ('none', 'failed', 'completed'),
                'a migration was started')
    require(not (scene.folder / 'state').exists(), 'a file was written')
    destination = scene.destination('defer')
    for uri in uris + ('fd:0',):
        destination.qmp.expect_error('migrate-incoming', WSM, 'tcp:',
                                     'switch the capability off', uri=uri)
    destination.close()
    expect_unharmed(scene, source)
    second_try(scene, source)


def can_set(vm: Vm, capability: str) -> bool:
    """Whether this build and this host know the capability."""
    try:
        vm.set_caps(capability)
    except QmpError:
        return False
    vm.set_caps(capability, on=False)
    return True


@test()
def refused_capabilities(scene: Scene) -> None:
    """Capabilities that contradict it, set before or after."""
    source = scene.source()
    for name in ('x-colo', 'background-snapshot'):
        if not can_set(source, name):
            continue
        for first, second in ((WSM, name), (name, WSM)):
            source.set_caps(first)
            source.qmp.expect_error(
                'migrate-set-capabilities', WSM,
                capabilities=[{'capability': second, 'state': True}])
            source.set_caps(first, on=False)
    second_try(scene, source)


@test(MachineConfig((QCOW2,)))
def refused_snapshot(scene: Scene) -> None:
    """savevm is refused while the capability is on."""
    source = loaded_source(scene)
    enable(source)
    text = source.qmp.hmp('savevm one')
    require(WSM in text, f'savevm says: {text}')
    source.set_caps(WSM, on=False)
    text = source.qmp.hmp('savevm one')
    require(text == '', f'savevm without the capability: {text}')
    source.qmp.hmp('delvm one')
    expect_unharmed(scene, source)
    second_try(scene, source)


@test(MachineConfig((QCOW2,)))
def refused_loadvm(scene: Scene) -> None:
    """loadvm is refused too, before it has changed disks and memory."""
    source = loaded_source(scene)
    require(source.qmp.hmp('savevm one') == '', 'savevm failed')
    scene.guest.wait_progress(writes=10)
    enable(source)
    text = source.qmp.hmp('loadvm one')
    require(WSM in text, f'loadvm says: {text}')
    source.set_caps(WSM, on=False)
    source.qmp.hmp('delvm one')
    expect_unharmed(scene, source)
    second_try(scene, source)


@test()
def refused_options(scene: Scene) -> None:
    """wsm-set-options checks every value, and the moment."""
    source = scene.source()
    for name, value in (('channels', 0), ('channels', 17),
                        ('granularity', 2048), ('granularity', 5000),
                        ('granularity', 2 * MIB), ('max-residue', -1),
                        ('x-push-delay', -1), ('switchover-timeout', -1),
                        ('bandwidth', -5), ('compare-bandwidth', -1),
                        ('granularity', -4096)):
        source.qmp.expect_error('wsm-set-options', name, f' {value},',
                                arguments={name: value})
    source.qmp.expect_error('wsm-set-options', 'nosuch', "'disks'",
                            disks=['vd0', 'nosuch'])
    source.qmp.expect_error('wsm-set-options', 'nosuch', "'basis'", basis=[
        {'disk': 'nosuch', 'kind': 'full'}])
    require(source.qmp.cmd('query-wsm-options')['disks'] == [],
            'an option that was refused is set')
    fill_half(scene)
    destination = scene.destination()
    begin(source, scene.uri(destination), **SLOW_DISK)
    wait_phase(source, 'disk-precopy')
    frozen: Json = {'channels': 4, 'granularity': 8192, 'disks': ['vd0']}
    for name, value in frozen.items():
        source.qmp.expect_error('wsm-set-options', name,
                                arguments={name: value})
    source.qmp.cmd('wsm-set-options', {'bandwidth': 0, 'x-push-delay': 0})
    source.wait_migration('completed')


@test()
def unknown_disk(scene: Scene) -> None:
    """Option "disks" names a disk that is not there."""
    source = loaded_source(scene)
    destination = scene.destination()
    enable(source)
    try:
        source.qmp.cmd('wsm-set-options', disks=['nosuch'])
        source.qmp.cmd('migrate', uri=scene.uri(destination))
        source.wait_migration('failed')
        text = error_of(source)
    except QmpError as err:
        text = str(err)
    require('nosuch' in text, f'the error names no disk: {text}')
    expect_unharmed(scene, source)
    destination.close()
    second_try(scene, source, disks=[])


def error_of(source: Vm) -> str:
    return (f'{source.migration().get("error-desc", "")} '
            f'{query(source).get("error", "")}')


def bad_destination(name: str, summary: str, config: MachineConfig,
                    bad: MachineConfig, *words: str) -> None:
    """Add a test with a destination that does not fit."""
    def function(scene: Scene) -> None:
        source = loaded_source(scene)
        destination = scene.destination(config=bad)
        begin(source, scene.uri(destination))
        source.wait_migration('failed')
        text = error_of(source)
        for word in words:
            require(word in text, f'the error lacks "{word}": {text}')
        expect_unharmed(scene, source)
        destination.close()
        second_try(scene, source)

    function.__doc__ = summary
    add(name, function, config)


bad_destination('wrong-size', 'The destination\'s disk is smaller.',
                MachineConfig(), MachineConfig((replace(RAW, size=MIB),)),
                'vd0', str(MIB), str(RAW.size))
bad_destination('too-large', 'The destination\'s disk is larger.',
                MachineConfig(),
                MachineConfig((replace(RAW, size=RAW.size + 512),)),
                'vd0', str(RAW.size + 512), str(RAW.size))
bad_destination('missing-disk', 'The destination lacks a disk.',
                TWO, MachineConfig((RAW,)), 'vd1')
bad_destination('read-only-destination', 'The destination cannot write.',
                MachineConfig(), MachineConfig((replace(RAW,
                                                        read_only=True),)),
                'vd0', 'read-only')


def only_at_destination(name: str, summary: str,
                        setup: setups.Setup = setups.nothing) -> None:
    """Add a test: the source lacks the capability, and both sides say so."""
    def function(scene: Scene) -> None:
        source = loaded_source(scene)
        destination = scene.destination('defer')
        setup(scene, source, destination)
        destination.qmp.cmd('migrate-incoming', uri='tcp:127.0.0.1:0')
        source.qmp.cmd('migrate', uri=scene.uri(destination))
        source.wait_migration('failed')
        wait_until(destination.gave_up, 'the destination gives up')
        for text in (source.migration()['error-desc'], destination.stderr()):
            require(f"'{WSM}'" in text and 'switch it on at the source' in text,
                    f'no clear error: {text}')
        expect_unharmed(scene, source)
        destination.close()

    function.__doc__ = summary
    add(name, function)


RETURN_PATH = setups.caps('return-path')
only_at_destination('only-at-destination', 'The source lacks the capability.')
only_at_destination('only-at-destination-return-path',
                    'The same with a return path.', RETURN_PATH)
only_at_destination('only-at-destination-multifd',
                    'The same with multifd, and a return path.',
                    setups.caps('multifd', 'return-path'))
only_at_destination('only-at-destination-tls',
                    'The same with TLS, and a return path.',
                    setups.with_tls(RETURN_PATH))


@test()
def no_one_listens(scene: Scene) -> None:
    """There is no destination at all."""
    source = loaded_source(scene)
    destination = scene.destination()
    uri = scene.uri(destination)
    destination.close()
    begin(source, uri)
    source.wait_migration('failed')
    expect_unharmed(scene, source)
    second_try(scene, source)


@test(MachineConfig((replace(RAW, read_only=True),)))
def only_read_only_disks(scene: Scene) -> None:
    """All disks are left out: memory moves, and that is all."""
    source = scene.source()
    destination = scene.destination()
    begin(source, scene.uri(destination))
    source.wait_migration('completed')
    destination.wait_migration('completed')
    destination.wait_running()
    scene.guest.verify()
    require(query(source)['disks'] == [], 'a read-only disk was migrated')
    end(source, destination)


@test()
def second_migrate(scene: Scene) -> None:
    """A second migrate while the first runs is refused."""
    source = loaded_source(scene)
    destination = scene.destination()
    begin(source, scene.uri(destination), **SLOW_DISK)
    wait_phase(source, 'disk-precopy')
    source.qmp.expect_error('migrate', uri=scene.uri(destination))
    source.qmp.cmd('migrate_cancel')
    source.wait_migration('cancelled')
    destination.close()
    move_again = scene.destination(name='destination-2')
    move(scene, source, move_again, bandwidth=0)
    end(source, move_again)
