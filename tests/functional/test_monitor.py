# SPDX-License-Identifier: GPL-2.0-or-later
"""What people see: versions, progress, commands of the human monitor."""

from dataclasses import replace
from typing import Any

from dev.rig.basics import QEMU, require, run, wait_until
from dev.rig.image import MIB
from dev.rig.qmp import Json
from dev.rig.scene import (Scene, begin, disk_total, finish, query, wait_phase,
                           wait_total)
from dev.rig.vm import MachineConfig, Vm
from dev.rig.wire import VERSION
from tests.functional.lib.moves import (SLOW_PUSH, end, expect_moved,
                                        fill_half, hold_ram_phase,
                                        loaded_source, release_ram_phase)
from tests.functional.lib.registry import test

SLOW = 8 * MIB
GLOBAL = MachineConfig(extra=('-global', 'migration.whole-system=on'))


@test()
def version_is_told(scene: Scene) -> None:
    """--version and query-version say which qemu-wsm this is."""
    source = scene.source()
    wanted = f'qemu-wsm 0.{VERSION}, '
    package = source.qmp.cmd('query-version')['package']
    require(package.startswith(wanted), f'package is "{package}"')
    text = run(str(QEMU), '--version')
    require(f'({wanted}' in text, text)
    source.quit()


def guessed(vm: Vm, phase: str) -> Json:
    """query-wsm as soon as it says how long all will take, in this phase."""
    def answer() -> Json | None:
        info = query(vm)
        require(info['phase'] == phase, f'{vm.name}: {info["phase"]} began '
                f'before anything was guessed in {phase}')
        return info if 'expected-seconds' in info else None

    return wait_until(answer, f'{vm.name}: a guess in {phase}')


def expect_guess(info: Json, least: int) -> None:
    """The numbers fit together, and at least so many bytes are left."""
    require(info['remaining'] >= least, f'too little remains: {info}')
    require(0 <= info['percent'] < 100 and info['speed'] > 0 and
            info['total'] > info['remaining'], f'{info}')
    # Both are rounded up
    require(info['expected-seconds'] * info['speed'] >=
            info['remaining'] // 2, f'too short a guess: {info}')


@test()
def one_estimate(scene: Scene) -> None:
    """Time, percent and bytes left are of disks and memory together."""
    source = scene.source()
    fill_half(scene)
    destination = scene.destination()
    source.set_params(max_bandwidth=SLOW)
    begin(source, scene.uri(destination), **SLOW_PUSH)
    wait_phase(source, 'disk-precopy')
    info = guessed(source, 'disk-precopy')
    # The initramfs alone is in memory twice
    expect_guess(info, 16 * MIB)
    require(info['ram-remaining'] >= 128 * MIB and
            info['expected-handover-seconds'] <= info['expected-seconds'],
            f'{info}')
    require(info['expected-handover-seconds'] * info['speed'] >=
            info['remaining'] - disk_total(source, 'dirty'), f'{info}')
    wait_phase(source, 'ram-precopy')
    info = guessed(source, 'ram-precopy')
    expect_guess(info, 1)
    require('expected-handover-seconds' in info, f'{info}')
    release_ram_phase(source)
    finish(source, destination)
    expect_completed(source)
    expect_completed(destination)
    expect_moved(scene, source, destination)
    end(source, destination)


def expect_completed(vm: Vm) -> None:
    info = query(vm)
    require(info['percent'] == 100 and info['remaining'] == 0 and
            'expected-seconds' not in info, f'{vm.name}: {info}')


@test()
def estimate_in_postcopy(scene: Scene) -> None:
    """Both sides say how much is missing and how long it will take."""
    source = loaded_source(scene)
    destination = scene.destination()
    hold_ram_phase(source)
    begin(source, scene.uri(destination), max_residue=30000, x_push_delay=500)
    wait_phase(source, 'ram-precopy')
    scene.guest.stop()
    scene.guest.fill(0, 0, 8 * MIB)
    release_ram_phase(source)
    for vm in (source, destination):
        wait_phase(vm, 'postcopy')
        info = guessed(vm, 'postcopy')
        expect_guess(info, 1)
        require('expected-handover-seconds' not in info, f'{info}')
    text = destination.qmp.hmp('info wsm')
    require('all is at the destination in about' in text and
            'the guest runs' not in text, text)
    source.qmp.cmd('wsm-set-options', x_push_delay=0)
    finish(source, destination)
    expect_moved(scene, source, destination)
    end(source, destination)


def expect_text(vm: Vm, line: str, *words: str) -> None:
    text = vm.qmp.hmp(line).replace('\r', '')
    for word in words:
        require(word in text, f'{vm.name}: {line} lacks "{word}":\n{text}')


@test()
def hmp_commands(scene: Scene) -> None:
    """info wsm, wsm_set_options and wsm_adopt."""
    source = loaded_source(scene)
    destination = scene.destination()
    expect_text(source, 'info wsm', 'role: none, phase: none',
                'image vd0: current, 0 sync points')
    expect_text(source, 'wsm_set_options channels=4,bandwidth=8M,disks.0=vd0')
    expect_text(source, 'wsm_set_options', 'channels=4,', 'bandwidth=8388608,',
                'disks.0=vd0\n')
    shown = source.qmp.hmp('wsm_set_options').strip()
    require(not source.qmp.hmp(f'wsm_set_options {shown}'), shown)
    # Lists that are empty are shown, and can be typed
    for line in ('memory-references.0=disk,memory-references.1=template',
                 'disks=', shown):
        require(not source.qmp.hmp(f'wsm_set_options {line}'), line)
        now = source.qmp.hmp('wsm_set_options').strip()
        require(line in now, now)
    require(now == shown, now)
    expect_text(source, 'wsm_set_options disks=vd0', 'Error:', 'array')
    expect_text(source, 'wsm_set_options disks=,disks.0=vd0', 'Error:',
                'disks')
    expect_text(source, 'wsm_set_options channels=99', 'Error:', 'from 1 to')
    expect_text(source, 'wsm_set_options chanels=4', 'Error:', 'chanels')
    expect_text(source, 'wsm_adopt', 'Error:', 'running')
    begin(source, scene.uri(destination))
    wait_total(source, 'sent', 4 * MIB)
    guessed(source, 'disk-precopy')
    expect_text(source, 'info wsm', 'role: source, phase: disk-precopy',
                'progress: ', ' left, ', 'memory left', '/s, ',
                'the guest runs at the destination in about ',
                'all is at the destination in about ', 'disk vd0: 64 MiB',
                '  basis full: ', 'channels: 0 up, ')
    source.qmp.cmd('wsm-set-options', bandwidth=0)
    finish(source, destination)
    expect_text(destination, 'info wsm', 'phase: completed',
                'progress: 100 %', 'downtime: ', 'postcopy ',
                '1 sync points')
    expect_text(source, 'info wsm', 'image vd0: handed-over')
    expect_text(source, 'wsm_adopt', 'Error:', 'handed its guest over')
    expect_moved(scene, source, destination)
    destination.qmp.cmd('stop')
    expect_text(destination, 'wsm_adopt vd9', 'Error:', 'vd9')
    destination.qmp.cmd('cont')
    end(source, destination)


def by_global(scene: Scene, **others: Any) -> None:
    """A move for which nobody sets a capability; see Scene.destination()."""
    source = scene.source(boot=True)
    scene.guest.fill(0, 0, 4 * MIB)
    destination = scene.destination(wsm=False, **others)
    source.qmp.cmd('migrate', uri=scene.uri(destination))
    source.wait_migration('completed')
    destination.wait_migration('completed')
    require(disk_total(source, 'sent') >= 4 * MIB, f'{query(source)}')
    expect_moved(scene, source, destination)
    end(source, destination)


@test(GLOBAL)
def global_defer(scene: Scene) -> None:
    """-global migration.whole-system=on, -incoming defer: no more is needed."""
    by_global(scene, incoming='defer')


@test(GLOBAL)
def global_tcp(scene: Scene) -> None:
    """-global migration.whole-system=on, -incoming tcp:...: no command."""
    by_global(scene, incoming='tcp:127.0.0.1:0')


@test()
def forgotten_on_both_sides(scene: Scene) -> None:
    """Without the capability QEMU moves no disk; what the guide says helps."""
    source = scene.source()
    scene.guest.fill(0, 0, 4 * MIB)
    destination = scene.destination(wsm=False)
    source.qmp.cmd('migrate', uri=scene.uri(destination))
    source.wait_migration('completed')
    destination.wait_running()
    require(destination.images[0].allocated() < MIB, 'the disk has data')
    destination.qmp.cmd('quit')
    destination.wait_exit()
    source.qmp.cmd('cont')
    source.wait_running()
    scene.guest.wait_progress(beats=10)
    scene.guest.region(0, 0, 4 * MIB)
    scene.guest.verify()
    source.quit()


@test(GLOBAL)
def global_at_source_only(scene: Scene) -> None:
    """The destination was started without: it follows the source."""
    by_global(scene, config=replace(GLOBAL, extra=()))
