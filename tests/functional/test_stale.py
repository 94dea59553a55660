# SPDX-License-Identifier: GPL-2.0-or-later
"""Stale copies: not run by mistake, and never trusted when changed."""

import os
from pathlib import Path

from dev.rig.basics import require, run, tool
from dev.rig.image import MIB
from dev.rig.scene import Scene, begin, disk_total, query, wait_phase
from dev.rig.vm import DiskConfig, MachineConfig, Vm
from dev.rig.wire import Type
from tests.functional.lib.back import (BOTH, DATA, SYNC_POINTS,
                                       all_there_untold, away, back,
                                       expect_kinds, expect_refused,
                                       expect_sent, onto, points, qemu_io,
                                       record, refuse_then_adopt, save, states)
from tests.functional.lib.closed import without_attributes
from tests.functional.lib.moves import (DISCARD_LOAD, end, fill_half,
                                        loaded_source, move)
from tests.functional.lib.registry import test

STALE = ('handed over', 'stale', 'wsm-adopt')
QCOW2 = MachineConfig((DiskConfig(fmt='qcow2'),))


def reopened_stale(scene: Scene, left: Vm, name: str) -> Vm:
    """A QEMU that would boot the copy of @left, had it not been told."""
    vm = scene.reopen(name, left.images, scene.other_guest())
    require('The guest was not started' in vm.stderr() and
            'stale' in vm.stderr(), f'it says: {vm.stderr()}')
    expect_refused(vm, *STALE)
    require(states(vm) == ['handed-over'] * len(left.images),
            f'{states(vm)}')
    return vm


@test(BOTH)
def stale_copy_refused(scene: Scene) -> None:
    """The old copy is not run, until its owner says that it is current."""
    here, there = scene.source(), scene.destination()
    fill_half(scene)
    move(scene, here, there)        # of an idle guest
    here.qmp.expect_error('cont')
    state = save(there)
    here.quit()
    stale = reopened_stale(scene, here, 'stale')
    scene.guest.wait_progress(beats=10)
    stale.quit()
    there.kill()

    # The guest is lost there; it was idle since the handover
    again = scene.reopen('again', here.images, state=state)
    expect_refused(again, *STALE)
    again.qmp.cmd('wsm-adopt', disks=['vd0'])
    expect_refused(again, *STALE, 'vd1')
    again.qmp.cmd('wsm-adopt')
    again.qmp.cmd('cont')
    require(states(again) == ['current'] * 2, f'{states(again)}')
    scene.guest.wait_progress(beats=10)
    scene.guest.verify()
    again.qmp.expect_error('wsm-adopt', 'not running')
    require(not record(here.images[0]).exists(), 'there is still a record')
    last = onto(scene, again, there.images, 'destination-2')
    expect_kinds(again, ['content'] * 2, "destination's image has no",
                 'changed or replaced', 'no sync point')
    end(again, last)


@test(BOTH)
def stale_copy_booted(scene: Scene) -> None:
    """Another guest has written to the stale copy; that is undone."""
    here, there = away(scene)
    here.quit()
    stale = reopened_stale(scene, here, 'stale')
    stale.qmp.cmd('wsm-adopt')
    stale.qmp.cmd('cont')
    other = stale.guest
    other.wait_ready()
    for disk in range(2):
        other.region(disk, 16 * MIB, 2 * MIB)
        other.fill(disk, 16 * MIB, 2 * MIB)
    other.start(**DISCARD_LOAD)
    other.wait_progress(writes=500)
    other.stop()
    qemu_io(stale, 0, 'write -P 0xa5 40M 1M')
    scene.guest.fill(0, 0, MIB)
    stale.quit()
    last = onto(scene, there, here.images, 'destination-2', load={})
    expect_kinds(there, SYNC_POINTS)
    expect_sent(there, 2 * DATA, least=4 * MIB)
    end(there, last)


@test(BOTH)
def stale_copy_written_unseen(scene: Scene) -> None:
    """Written by the monitor of a QEMU in which no guest ran."""
    here, there = away(scene)
    here.quit()
    stale = scene.reopen('stale', here.images, scene.other_guest(),
                         paused=True)
    for disk in range(2):
        qemu_io(stale, disk, 'write -P 0xa5 4M 1M')
    stale.quit()
    last = onto(scene, there, here.images, 'destination-2')
    expect_kinds(there, ['content', 'sync-point'], 'changed or replaced',
                 'both sides know')
    end(there, last)


def overwrite(path: Path) -> None:
    with open(path, 'r+b') as image:
        image.seek(4 * MIB)
        image.write(b'\xa5' * MIB)


def put_back_times(path: Path, before: os.stat_result) -> None:
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    after = path.stat()
    require(after.st_mtime_ns == before.st_mtime_ns and
            after.st_size == before.st_size, 'the times differ')


@test()
def stale_copy_with_old_mtime(scene: Scene) -> None:
    """Who lets others put mtime back says so, and all is compared."""
    here, there = away(scene)
    here.quit()
    path = here.images[0].path
    before = path.stat()
    overwrite(path)
    put_back_times(path, before)
    last = onto(scene, there, here.images, 'destination-2', load={},
                basis=[{'disk': 'vd0', 'kind': 'content'}])
    expect_kinds(there, ['content'], "option 'basis'")
    end(there, last)


@test(BOTH)
def stale_copy_with_other_owner(scene: Scene) -> None:
    """What libvirt does when it stops and starts a guest: no write."""
    here, there = away(scene)
    here.quit()
    for path in (image.path for image in here.images):
        before = path.stat()
        if os.geteuid() == 0:
            os.chown(path, 65534, 65534)
        os.chown(path, before.st_uid, before.st_gid)
        path.chmod(0o600)
        path.chmod(before.st_mode & 0o777)
        os.link(path, scene.folder / 'link')
        (scene.folder / 'link').unlink()
        require(path.stat().st_ctime_ns != before.st_ctime_ns,
                'ctime is what it was')
    stale = scene.reopen('stale', here.images, scene.other_guest())
    expect_refused(stale, *STALE)
    stale.quit()
    last = onto(scene, there, here.images, 'destination-2')
    expect_kinds(there, SYNC_POINTS)
    end(there, last)


@test()
def stale_copy_changed_by_dd(scene: Scene) -> None:
    """Changed behind QEMU's back, the size is what it was."""
    here, there = away(scene)
    here.quit()
    overwrite(here.images[0].path)
    last = onto(scene, there, here.images, 'destination-2', load={})
    expect_kinds(there, ['content'], 'mtime')
    # The guest has changed something, too, more of it on a slow host
    expect_sent(there, DATA // 4, least=MIB)
    require(disk_total(there, 'equal') >= DATA // 4 * 3,
            f'{query(there)["disks"]}')
    end(there, last)


@test(BOTH)
def stale_copy_changed_by_tools(scene: Scene) -> None:
    """Changed by qemu-io, which knows of bitmaps but not of records."""
    here, there = away(scene)
    here.quit()
    for image in here.images:
        run(tool('qemu-io'), '-f', image.fmt, '-c', 'write -P 0xa5 4M 1M',
            str(image.path))
    last = onto(scene, there, here.images, 'destination-2', load={})
    expect_kinds(there, ['content', 'sync-point'], 'changed or replaced',
                 'both sides know')
    expect_sent(there, 4 * MIB, least=2 * MIB)
    end(there, last)


@test(BOTH)
def torn_record(scene: Scene) -> None:
    """A record that is cut off: the image is not run, nor written to."""
    here, there = away(scene)
    here.quit()
    for image in here.images:
        path = record(image)
        os.truncate(path, path.stat().st_size - 20)
    stale = scene.reopen('stale', here.images, scene.other_guest())
    expect_refused(stale, 'not known', 'torn', 'wsm-adopt')
    require(states(stale) == ['leaving'] * 2, f'{states(stale)}')
    stale.quit()
    refuse_then_adopt(scene, there, here)
    last = onto(scene, there, here.images, 'destination-2')
    expect_kinds(there, ['content'] * 2, 'no sync point')
    require(disk_total(there, 'equal') > 0, f'{query(there)["disks"]}')
    end(there, last)


@test(QCOW2)
def inconsistent_bitmap(scene: Scene) -> None:
    """QEMU was killed while it had the bitmaps in use."""
    here, there = away(scene)
    here.quit()
    stale = scene.reopen('stale', here.images, scene.other_guest(),
                         paused=True)
    qemu_io(stale, 0, 'write -P 0xa5 4M 1M')
    qemu_io(stale, 0, 'flush')
    stale.kill()
    shown = run(tool('qemu-img'), 'info', '-f', 'qcow2',
                str(here.images[0].path))
    require('in-use' in shown, f'the bitmap is not inconsistent: {shown}')
    last = onto(scene, there, here.images, 'destination-2')
    expect_kinds(there, ['content'], 'no sync point')
    require(disk_total(there, 'equal') > 0, f'{query(there)["disks"]}')
    end(there, last)


@test(BOTH)
def source_killed_in_doubt(scene: Scene) -> None:
    """kill -9 of the source between its mark and the handover."""
    source = scene.source()
    fill_half(scene)
    scene.guest.command('flush')
    state = save(source)
    first = scene.destination()
    relay = scene.make_relay(first)
    relay.hold_at(Type.READY)
    begin(source, relay.uri, switchover_timeout=1000000)
    wait_phase(source, 'freeze')
    relay.wait_held()
    source.kill()
    relay.cut_all()
    first.close()
    doubt = scene.reopen('doubt', source.images, state=state)
    expect_refused(doubt, 'about to be handed over', 'wsm-adopt')
    require(states(doubt) == ['leaving'] * 2, f'{states(doubt)}')
    doubt.qmp.cmd('wsm-adopt')
    doubt.qmp.cmd('cont')
    scene.guest.wait_progress(beats=10)
    last = onto(scene, doubt, first.images, 'destination-2')
    expect_kinds(doubt, ['content'] * 2, 'no sync point')
    require(disk_total(doubt, 'equal') >= DATA, f'{query(doubt)["disks"]}')
    end(doubt, last)


@test(BOTH)
def no_record_possible(scene: Scene) -> None:
    """Records cannot be written: a warning, and the migration works."""
    scene.config = without_attributes(scene, scene.config)
    here = loaded_source(scene)
    there = scene.destination()
    for image in here.images + there.images:
        # What a folder that QEMU may not write to is for others than root
        Path(f'{record(image)}.new').mkdir()
    move(scene, here, there)
    for vm in (here, there):
        require('no record is kept' in vm.stderr(), f'{vm.stderr()}')
    last = back(scene, there, here, 'destination-2')
    expect_kinds(there, ['content', 'sync-point'], 'no sync point',
                 'both sides know')
    end(there, last)


@test(BOTH)
def last_word_lost(scene: Scene) -> None:
    """All blocks have come, but the source dies before it is told so."""
    here, there, relay = all_there_untold(scene)
    require(len(states(there)) == 2, f'{states(there)}')
    here.kill()
    relay.cut_all()
    there.wait_running()
    scene.guest.wait_progress(beats=10)
    scene.guest.stop()
    scene.guest.verify()
    there.quit()
    again = scene.reopen('again', there.images, guest=scene.other_guest())
    again.wait_running()
    require(states(again) == ['current'] * 2, f'{states(again)}')
    require([len(ids) for ids in points(again)] == [1, 1], f'{points(again)}')
    again.quit()
