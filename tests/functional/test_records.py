# SPDX-License-Identifier: GPL-2.0-or-later
"""Records and sync points: found, held, and not believed without reason."""

import ctypes
import os
import subprocess
import time
from dataclasses import replace
from pathlib import Path
from typing import Any, Optional

from lib.back import (BOTH, SYNC_POINTS, away, back, expect_kinds,
                      expect_refused, onto, points, record, states)
from lib.common import TIMEOUT, require, run
from lib.image import MIB, Image
from lib.moves import LOAD, end, fill_half, loaded_source, move
from lib.qmp import Json
from lib.registry import test
from lib.scene import Scene, query
from lib.vm import DiskConfig, MachineConfig, Vm

RAW = MachineConfig((DiskConfig('vd0'),))
NO_RECORD = 'no record is kept'
PR_SET_CHILD_SUBREAPER = 36


# Images that QEMU was given by other names

class Daemon:
    """A process that is no child of ours at first; like a Popen."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.returncode: Optional[int] = None

    def poll(self) -> Optional[int]:
        if self.returncode is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
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
        return Daemon(int(pidfile.read_text()))


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


def no_record_of(vm: Vm) -> list[Optional[str]]:
    """Why there is no record, image by image."""
    return [image.get('no-record') for image in query(vm)['images']]


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
