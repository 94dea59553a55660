# SPDX-License-Identifier: GPL-2.0-or-later
"""Records and sync points: found, held, and not believed without reason."""

import ctypes
import os
import subprocess
import time
from dataclasses import replace
from pathlib import Path
from typing import Any, Callable, Optional

from dev.rig.basics import TIMEOUT, require, run, tool
from dev.rig.image import MIB, Image
from dev.rig.qmp import Json
from dev.rig.scene import Scene, begin, finish, query, wait_total
from dev.rig.vm import DiskConfig, MachineConfig, Vm
from tests.functional.lib.back import (BOTH, SYNC_POINTS, away, back,
                                       expect_kinds, expect_refused,
                                       expect_sent, no_record_of, onto, points,
                                       record, save, states, wake)
from tests.functional.lib.moves import (LOAD, end, expect_unharmed, fill_half,
                                        loaded_source, move)
from tests.functional.lib.registry import add, test

RAW = MachineConfig((DiskConfig('vd0'),))
QCOW2 = MachineConfig((DiskConfig('vd0', fmt='qcow2'),))
NO_RECORD = 'no record is kept'
Tamper = Callable[[Scene, Image], None]
PR_SET_CHILD_SUBREAPER = 36


# Images that QEMU was given by other names

class Daemon:
    """A process that is no child of ours at first; like a Popen."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.returncode: Optional[int] = None

    def poll(self) -> Optional[int]:
        if self.returncode is not None:
            return self.returncode
        try:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
        except ChildProcessError:
            # Its parent, which QEMU forked in between, has not ended yet
            return None
        if pid:
            self.returncode = os.waitstatus_to_exitcode(status)
        return self.returncode

    def wait(self, timeout: float = TIMEOUT) -> int:
        end_of_patience = time.monotonic() + timeout
        while self.poll() is None:
            if time.monotonic() > end_of_patience:
                raise subprocess.TimeoutExpired('qemu', timeout)
            time.sleep(0.01)
        assert self.returncode is not None
        return self.returncode

    def kill(self) -> None:
        if self.poll() is None:
            os.kill(self.pid, 9)


class DaemonVm(Vm):
    """Starts where its images are, and changes its folder then."""

    def _protocol(self, image: Image) -> Json:
        return {'driver': 'file', 'filename': image.path.name}

    def _popen(self, argv: list[str], stderr: Any) -> Any:
        ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
        pidfile = self.folder / 'pid'
        subprocess.run(argv + ['-daemonize', '-pidfile', str(pidfile)],
                       check=True, stdin=subprocess.DEVNULL, stdout=stderr,
                       stderr=stderr, cwd=self.images[0].path.parent)
        return Daemon(int(pidfile.read_text('utf-8')))


class DescriptorVm(Vm):
    """Gets its images as file descriptors, as from libvirt."""

    def _protocol(self, image: Image) -> Json:
        number = self.images.index(image)
        return {'driver': 'file', 'filename': f'/dev/fdset/{number}'}

    def _popen(self, argv: list[str], stderr: Any) -> Any:
        opened = []
        for number, image in enumerate(self.images):
            for mode in (os.O_RDONLY, os.O_RDWR):
                opened.append(os.open(image.path, mode))
                argv += ['-add-fd', f'fd={opened[-1]},set={number}']
        try:
            # pylint: disable-next=consider-using-with
            return subprocess.Popen(argv, stdin=subprocess.DEVNULL,
                                    stdout=stderr, stderr=stderr,
                                    pass_fds=opened)
        finally:
            for descriptor in opened:
                os.close(descriptor)


def away_and_back(scene: Scene) -> None:
    """The stale copy is refused, the current one runs, back is quick."""
    here, there = away(scene)
    for image in here.images:
        require(record(image).exists(), f'no record beside {image.path}')
    require(not list(Path('/').glob('*.wsm')), 'a record in the root folder')
    here.quit()
    stale = scene.reopen('stale', here.images, scene.other_guest())
    expect_refused(stale, 'stale')
    stale.quit()
    last = onto(scene, there, here.images, 'destination-2')
    expect_kinds(there, SYNC_POINTS)
    end(there, last)
    again = scene.reopen('again', last.images, scene.other_guest())
    again.wait_running()
    require(states(again) == ['current'] * 2, f'{states(again)}')
    require([len(ids) for ids in points(again)] == [2, 2], f'{points(again)}')
    again.quit()
    stale = scene.reopen('stale-2', there.images, scene.other_guest())
    expect_refused(stale, 'stale')


@test(BOTH)
def daemon_with_relative_names(scene: Scene) -> None:
    """-daemonize, and names that mean nothing afterwards."""
    scene.vm_type = DaemonVm
    away_and_back(scene)


@test(BOTH)
def images_by_descriptor(scene: Scene) -> None:
    """/dev/fdset/N instead of names."""
    scene.vm_type = DescriptorVm
    away_and_back(scene)


@test(BOTH)
def images_behind_links(scene: Scene) -> None:
    """The record lies beside the file, not beside a symbolic link."""
    here = loaded_source(scene)
    there = scene.destination(images=[linked(scene, image)
                                      for image in scene.new_images('real')])
    move(scene, here, there)
    here.quit()
    begin_back = scene.destination(images=here.images, name='destination-2')
    scene.guest.start(**LOAD)
    move(scene, there, begin_back)
    real = [replace(image, path=image.path.resolve())
            for image in there.images]
    for image in real:
        require(record(image).exists(), f'no record beside {image.path}')
    end(there, begin_back)
    stale = scene.reopen('stale', real, scene.other_guest())
    expect_refused(stale, 'stale')


def linked(scene: Scene, image: Image) -> Image:
    folder = scene.folder / 'links'
    folder.mkdir(exist_ok=True)
    link = folder / image.path.name
    link.symlink_to(image.path)
    return replace(image, path=link)


# Files that change their names while QEMU has them open

@test(RAW)
def image_renamed_in_use(scene: Scene) -> None:
    """The record goes where the image is by then."""
    here = loaded_source(scene)
    moved = replace(here.images[0], path=scene.folder / 'renamed.raw')
    here.images[0].path.rename(moved.path)
    there = scene.destination()
    move(scene, here, there)
    require(not record(here.images[0]).exists() and record(moved).exists(),
            'the record is not beside the renamed image')
    here.images[:] = [moved]
    last = back(scene, there, here, 'destination-2')
    expect_kinds(there, ['sync-point'])
    end(there, last)


def expect_told(vm: Vm, reason: str, times: int = 1) -> None:
    require(all(reason in str(why) for why in no_record_of(vm)),
            f'{vm.name}: {no_record_of(vm)}')
    require(vm.stderr().count(NO_RECORD) == times and
            (not times or reason in vm.stderr()),
            f'{vm.name}: not {times} x "{NO_RECORD}": {vm.stderr()}')


@test(RAW)
def image_replaced_in_use(scene: Scene) -> None:
    """Another file has the name by now: it gets no record."""
    here = loaded_source(scene)
    there = scene.destination()
    for vm in (here, there):
        expect_told(vm, '', times=0)
        require(no_record_of(vm) == [None], f'{no_record_of(vm)}')
        other = scene.folder / 'other'
        other.write_bytes(bytes(MIB))
        other.rename(vm.images[0].path)
    move(scene, here, there)
    for vm in (here, there):
        expect_told(vm, 'removed or replaced')
        require(not record(vm.images[0]).exists(), 'a record of the other')
    here.kill()
    there.kill()


class DeviceVm(Vm):
    """Has block devices as disks."""

    def _protocol(self, image: Image) -> Json:
        return {'driver': 'host_device', 'filename': str(image.path)}


@test(RAW)
def block_devices_have_no_record(scene: Scene) -> None:
    """Said on both sides, once, and only if it matters."""
    files = scene.new_images('file') + scene.new_images('other-file')
    devices: list[Image] = []
    try:
        for image in files:
            name = run('losetup', '--find', '--show', str(image.path)).strip()
            devices.append(replace(image, path=Path(name)))
        scene.vm_type = DeviceVm
        here = scene.reopen('here', devices[:1])
        scene.guest.wait_ready()
        fill_half(scene)
        here.qmp.cmd('stop')
        here.qmp.cmd('cont')
        expect_told(here, 'is no regular file', times=0)
        there = scene.destination(images=devices[1:])
        here.set_params(downtime_limit=2000)
        move(scene, here, there)
        for vm in (here, there):
            expect_told(vm, 'is no regular file')
            vm.quit()
    finally:
        for vm in scene.vms:
            vm.close()
        for image in devices:
            run('losetup', '--detach', str(image.path))


# Sync points that are touched

def newest(vm: Vm, disk: str) -> Json:
    """How QMP calls the bitmap that knows of the guest's writes now."""
    node = f'node-{disk}'
    names = [bitmap['name'] for info in vm.qmp.cmd('query-named-block-nodes')
             if info['node-name'] == node
             for bitmap in info.get('dirty-bitmaps', [])
             if bitmap['recording']]
    require(len(names) == 1 and names[0].startswith('wsm-'), f'{names}')
    return {'node': node, 'name': names[0]}


@test(BOTH)
def sync_points_are_held(scene: Scene) -> None:
    """No command of the user's gets at them, and they stay right."""
    here, there = away(scene)
    scratch = scene.folder / 'scratch'
    run(tool('qemu-img'), 'create', '-q', '-f', 'raw', str(scratch), '64M')
    there.qmp.cmd('blockdev-add', {
        'driver': 'raw', 'node-name': 'scratch',
        'file': {'driver': 'file', 'filename': str(scratch)}})
    there.qmp.cmd('nbd-server-start', addr={
        'type': 'unix', 'data': {'path': str(scene.folder / 'nbd')}})
    scene.guest.fill(0, 4 * MIB, MIB)
    scene.guest.fill(1, 4 * MIB, MIB)
    for disk in ('vd0', 'vd1'):
        bitmap = newest(there, disk)
        for command in ('disable', 'clear', 'remove'):
            there.qmp.expect_error(f'block-dirty-bitmap-{command}', 'in use',
                                   arguments=bitmap)
        there.qmp.expect_error(
            'transaction', 'in use', actions=[
                {'type': 'block-dirty-bitmap-clear', 'data': bitmap}])
        there.qmp.expect_error('block-dirty-bitmap-merge', 'in use', arguments={
            'node': bitmap['node'], 'target': bitmap['name'],
            'bitmaps': [bitmap['name']]})
        there.qmp.expect_error('blockdev-backup', 'in use', arguments={
            'job-id': 'job0', 'device': bitmap['node'], 'target': 'scratch',
            'sync': 'bitmap', 'bitmap': bitmap['name'],
            'bitmap-mode': 'always'})
        there.qmp.expect_error('block-export-add', arguments={
            'type': 'nbd', 'id': disk, 'node-name': bitmap['node'],
            'bitmaps': [bitmap['name']]})
        require(newest(there, disk) == bitmap, 'it is another one now')
    scene.guest.fill(0, 8 * MIB, MIB)
    last = back(scene, there, here, 'destination-2', load={})
    expect_kinds(there, SYNC_POINTS)
    expect_sent(there, 8 * MIB, least=3 * MIB)
    there.quit()
    # Who wants to be rid of them says so
    last.qmp.cmd('wsm-set-options', sync_points=1)
    require([len(ids) for ids in points(last)] == [1, 1], f'{points(last)}')
    last.qmp.cmd('wsm-set-options', sync_points=0)
    require(not last.all_bitmaps(), f'{last.all_bitmaps()}')
    last.quit()
    require(not record(last.images[0]).exists(), 'there is a record')


def bitmaps_in(image: Image) -> list[str]:
    """Sync points that are stored in an image, the newest last."""
    shown = run(tool('qemu-img'), 'info', '-f', 'qcow2', str(image.path))
    return sorted(line.split()[-1] for line in shown.split('\n')
                  if 'name: wsm-0' in line)


def by_qemu_img(action: str) -> Tamper:
    """With qemu-img, while nobody has the image."""
    def function(scene: Scene, image: Image) -> None:
        del scene
        run(tool('qemu-img'), 'bitmap', f'--{action}', '-f', 'qcow2',
            str(image.path), bitmaps_in(image)[-1])
    return function


def by_qmp(action: str) -> Tamper:
    """In a QEMU whose guest has not run."""
    def function(scene: Scene, image: Image) -> None:
        name = bitmaps_in(image)[-1]
        vm = scene.reopen('tool', [image], scene.other_guest(), paused=True)
        vm.qmp.cmd(f'block-dirty-bitmap-{action}',
                   {'node': 'node-vd0', 'name': name})
        vm.quit()
    return function


def tampered(change: Tamper) -> Callable[[Scene], None]:
    """What the current image knows of its writes is touched at rest."""
    def function(scene: Scene) -> None:
        here, there = away(scene)
        here.quit()
        third = onto(scene, there, scene.new_images('third'),
                     'destination-2', load={})
        require(len(points(third)[0]) == 2, f'{points(third)}')
        there.quit()
        scene.guest.fill(0, 4 * MIB, MIB)
        state = save(third)
        third.qmp.cmd('stop')
        third.quit()
        change(scene, third.images[0])
        again = wake(scene, third.images, state, 'again')
        scene.guest.fill(0, 8 * MIB, MIB)
        problem = str(query(again)['images'][0].get('problem'))
        last = onto(scene, again, here.images, 'destination-3', load={})
        expect_kinds(again, ['content'], 'no sync point')
        require('removed' in problem, f'problem: {problem}')
        end(again, last)
    function.__doc__ = tampered.__doc__
    return function


for WHAT in ('remove', 'disable', 'clear'):
    add(f'sync-point-at-rest-{WHAT}', tampered(by_qemu_img(WHAT)), QCOW2)
add('sync-point-before-cont-disable', tampered(by_qmp('disable')), QCOW2)


# Images that are not what they were

@test(QCOW2)
def data_file_written_by_others(scene: Scene) -> None:
    """A raw external data file, changed by who knows nothing of qcow2."""
    here = loaded_source(scene)
    image = Image(scene.folder / 'split.qcow2', 'qcow2', 64 * MIB)
    data = scene.folder / 'split.raw'
    run(tool('qemu-img'), 'create', '-q', '-f', 'qcow2', '-o',
        f'data_file={data},data_file_raw=on', str(image.path), '64M')
    there = scene.destination(images=[image])
    move(scene, here, there)
    here.quit()
    third = scene.destination(name='destination-2')
    move(scene, there, third)
    there.quit()
    with open(data, 'r+b') as out:
        out.seek(4 * MIB)
        out.write(b'\xa5' * MIB)
    last = onto(scene, third, there.images, 'destination-3', load={})
    expect_kinds(third, ['content'], 'no sync point')
    end(third, last)


class UnsafeVm(Vm):
    """Only the node of the file is told not to flush."""

    def _protocol(self, image: Image) -> Json:
        return {**super()._protocol(image), 'cache': {'no-flush': True}}


@test(BOTH)
def no_flush_below(scene: Scene) -> None:
    """What is never flushed is not believed after QEMU has ended."""
    here = loaded_source(scene)
    scene.vm_type = UnsafeVm
    there = scene.destination()
    move(scene, here, there)
    here.quit()
    third = scene.destination(name='destination-2')
    move(scene, there, third)
    there.quit()
    last = onto(scene, third, there.images, 'destination-3')
    expect_kinds(third, ['content'] * 2, 'no sync point')
    end(third, last)


# Where the guest is

@test(RAW)
def the_other_host_is_named(scene: Scene) -> None:
    """
    Without TLS too, on both sides, in records, errors and query-wsm.

    '127.1' stands for a name: no address is printed like that, and it can be
    looked up where not even localhost has a name.
    """
    here = loaded_source(scene)
    first = scene.destination()
    port = first.listen_port()
    begin(here, f'tcp:127.1:{port}', bandwidth=MIB)
    wait_total(here, 'sent', MIB)
    first.kill()
    broken = scene.reopen('broken', first.images, scene.other_guest())
    expect_refused(broken, 'from 127.0.0.1 began')
    broken.quit()
    expect_unharmed(scene, here)
    there = scene.destination(name='destination-2')
    port = there.listen_port()
    move(scene, here, there, f'tcp:127.1:{port}', bandwidth=0)
    peer = f'127.1:{port}'
    require(query(here)['images'][0]['peer'] == peer, f'{query(here)}')
    here.qmp.expect_error('migrate', 'previous migration', uri='tcp:192.0.2.1:1')
    here.qmp.expect_error('cont', f'handed over to {peer} ')
    here.quit()
    require(f'"{peer}"' in record(here.images[0]).read_text('utf-8'),
            'the record does not name it')
    stale = scene.reopen('stale', here.images, scene.other_guest())
    expect_refused(stale, f'handed over to {peer} at')


@test(RAW)
def adopted_too_early(scene: Scene) -> None:
    """Not by the QEMU that has just handed its guest over."""
    here, there = away(scene)
    here.qmp.expect_error('wsm-adopt', 'handed its guest over to 127.0.0.1:',
                          'another one')
    require(record(here.images[0]).exists(), 'the record is gone')
    here.qmp.expect_error('cont', 'handed over')
    end(here, there)


@test(MachineConfig(()))
def diskless_guest_is_not_doubled(scene: Scene) -> None:
    """It has moved as well, and does not run at the source again."""
    here = scene.source()
    there = scene.destination()
    begin(here, scene.uri(there))
    finish(here, there)
    there.wait_running()
    here.qmp.expect_error('cont', 'handed over')
    require(here.status() == 'postmigrate', f'it is {here.status()}')
    scene.guest.wait_progress(beats=10)
