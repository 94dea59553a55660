# SPDX-License-Identifier: GPL-2.0-or-later
"""The ways to move a guest that are compared.

Those of stock QEMU do what a management tool does without whole-system
migration: libvirt's --copy-storage-all is MIRROR, with
--copy-storage-synchronous-writes it is SYNC; its mirror's granularity is
QEMU's default.  SHARED moves no disk at all, as with shared storage, which
bounds the downtime.  COPY stops the guest, copies, and lets it go on.
"""

import os
import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Callable, Optional

from dev.common import BUILD
from dev.rig.basics import QEMU, TestFailure, run, tool
from dev.rig.qmp import Json
from dev.rig.scene import Scene, begin, query
from dev.rig.vm import MachineConfig, Vm

WSM, SHARED, MIRROR = 'wsm', 'shared', 'mirror'
SYNC, COPY = 'mirror-sync', 'copy'
STOCK_QEMU = Path(os.environ.get('WSM_STOCK_QEMU',
                                 BUILD / 'stock' / 'qemu-system-x86_64'))

POLL_SECONDS = 0.05
FINAL = ('completed', 'failed', 'cancelled', 'postcopy-paused')
NBD_PORT = 10809


@dataclass
class Stage:
    """The two sides while a guest is moved."""
    scene: Scene
    source: Vm
    destination: Vm
    give_up: float                  # seconds to wait for any one event
    options: Json = field(default_factory=dict)     # of wsm-set-options
    # Called when a move by WSM has begun
    look: Optional[Callable[['Stage'], None]] = None
    start: float = 0.0              # set as the move begins; wall clock

    def begin(self) -> float:
        self.start = time.time()
        return self.start

    def wait(self, vm: Vm, name: str, **wanted: str) -> float:
        return wait_event(vm, name, self.start, self.give_up, **wanted)

    def wait_both(self) -> float:
        """Until both have completed; returns when the source had."""
        end = self.wait(self.source, 'MIGRATION', status='completed')
        self.wait(self.destination, 'MIGRATION', status='completed')
        return end

    def uri(self) -> str:
        return self.scene.uri(self.destination)

    def export_address(self) -> Json:
        """Where the destination exports its disks while it waits."""
        return {'type': 'inet', 'host': self.destination.address(),
                'port': str(NBD_PORT)}


# Events

def stamp(message: Json) -> float:
    when = message['timestamp']
    return float(when['seconds'] + when['microseconds'] / 1e6)


def find_event(vm: Vm, name: str, since: float,
               **wanted: str) -> Optional[Json]:
    for message in vm.qmp.events:
        data = message.get('data', {})
        if (message['event'] == name and stamp(message) >= since
                and all(data.get(key) == value
                        for key, value in wanted.items())):
            return message
    return None


def wait_event(vm: Vm, name: str, since: float, seconds: float,
               **wanted: str) -> float:
    """Wait for it without taking it; returns when it was sent."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        vm.qmp.cmd('query-version')     # reads what is waiting
        message = find_event(vm, name, since, **wanted)
        if message:
            return stamp(message)
        for status in FINAL[1:]:
            if find_event(vm, 'MIGRATION', since, status=status):
                raise TestFailure(
                    f'{vm.name}: migration {status}: '
                    f'{vm.migration().get("error-desc", "")}')
        time.sleep(POLL_SECONDS)
    what = ' '.join([name, *wanted.values()])
    raise TestFailure(f'given up after {seconds:.0f} s waiting for {what} '
                      f'of the {vm.name}')


# Ways to move: each returns when all was synchronised, in wall clock time

def run_wsm(stage: Stage) -> float:
    stage.begin()
    begin(stage.source, stage.uri(), **stage.options)
    if stage.look:
        stage.look(stage)
    return stage.wait_both()


def run_shared(stage: Stage) -> float:
    stage.begin()
    stage.source.qmp.cmd('migrate', uri=stage.uri())
    stage.wait_both()
    return stage.wait(stage.destination, 'RESUME')


def export_disks(stage: Stage) -> None:
    destination = stage.destination
    address = stage.export_address()
    destination.qmp.cmd('nbd-server-start', addr={
        'type': 'inet', 'data': {'host': address['host'],
                                 'port': address['port']}})
    for disk in stage.scene.config.disks:
        destination.qmp.cmd('block-export-add', {
            'type': 'nbd', 'id': f'export-{disk.id}', 'name': disk.id,
            'node-name': f'node-{disk.id}', 'writable': True})


def start_mirrors(stage: Stage, **options: Any) -> list[str]:
    """Returns the names of the jobs."""
    jobs = []
    for disk in stage.scene.config.disks:
        stage.source.qmp.cmd('blockdev-add', {
            'driver': 'nbd', 'node-name': f'target-{disk.id}',
            'export': disk.id, 'server': stage.export_address()})
        stage.source.qmp.cmd(
            'blockdev-mirror', job_id=f'mirror-{disk.id}',
            device=f'node-{disk.id}', target=f'target-{disk.id}',
            sync='full', **options)
        jobs.append(f'mirror-{disk.id}')
    return jobs


def run_mirror(stage: Stage, **options: Any) -> float:
    source, destination = stage.source, stage.destination
    stage.begin()
    export_disks(stage)
    jobs = start_mirrors(stage, **options)
    for job in jobs:
        stage.wait(source, 'BLOCK_JOB_READY', device=job)
    source.set_caps('pause-before-switchover')
    source.qmp.cmd('migrate', uri=stage.uri())
    stage.wait(source, 'MIGRATION', status='pre-switchover')
    for job in jobs:
        source.qmp.cmd('block-job-cancel', device=job)
    for job in jobs:
        stage.wait(source, 'BLOCK_JOB_COMPLETED', device=job)
    for disk in stage.scene.config.disks:
        source.qmp.cmd('blockdev-del', node_name=f'target-{disk.id}')
    source.qmp.cmd('migrate-continue', state='pre-switchover')
    stage.wait_both()
    destination.qmp.cmd('nbd-server-stop')
    destination.qmp.cmd('cont')
    return stage.wait(destination, 'RESUME')


def run_sync_mirror(stage: Stage) -> float:
    return run_mirror(stage, copy_mode='write-blocking')


def run_copy(stage: Stage) -> float:
    source, destination = stage.source, stage.destination
    stage.begin()
    export_disks(stage)
    source.qmp.cmd('stop')
    prefix = source.host.prefix() if source.host else []
    for disk, image in zip(stage.scene.config.disks, source.images):
        run(*prefix, tool('qemu-img'), 'convert', '-n', '-U',
            '--target-is-zero', '-f', disk.fmt, '-O', 'raw', str(image.path),
            f'nbd://{destination.address()}:{NBD_PORT}/{disk.id}')
    source.qmp.cmd('migrate', uri=stage.uri())
    stage.wait_both()
    destination.qmp.cmd('nbd-server-stop')
    destination.qmp.cmd('cont')
    return stage.wait(destination, 'RESUME')


@dataclass(frozen=True)
class Method:
    name: str
    title: str
    run: Callable[[Stage], float]
    own_disk: bool = True           # at the destination, blank
    paused: bool = True             # there, until it is told to go on

    @property
    def binary(self) -> Path:
        return QEMU if self.name == WSM else STOCK_QEMU

    def waiting(self, config: MachineConfig) -> MachineConfig:
        """How a destination is started."""
        if self.paused:
            return replace(config, extra=(*config.extra, '-S'))
        return config

    def open_destination(self, scene: Scene, source: Vm,
                         config: MachineConfig) -> Vm:
        return scene.destination(
            wsm=self.name == WSM, config=self.waiting(config),
            images=None if self.own_disk else source.images)


METHODS = {method.name: method for method in (
    Method(WSM, 'qemu-wsm', run_wsm, paused=False),
    Method(MIRROR, 'mirror, background', run_mirror),
    Method(SYNC, 'mirror, write-blocking', run_sync_mirror),
    Method(SHARED, 'shared storage', run_shared, own_disk=False,
           paused=False),
    Method(COPY, 'stop, copy, start', run_copy),
)}


# What a move was made of

STEPS: tuple[tuple[str, str, dict[str, str]], ...] = (
    ('ready', 'BLOCK_JOB_READY', {}),
    ('ram', 'MIGRATION', {'status': 'active'}))


def phases(stage: Stage, name: str) -> dict[str, float]:
    """When each step began, in seconds after the begin."""
    found: dict[str, float] = {}
    source = stage.source
    if name == WSM:
        for message in source.qmp.events:
            if (message['event'] == 'WSM_PHASE'
                    and stamp(message) >= stage.start):
                found[message['data']['phase']] = stamp(message)
    else:
        for step, event, status in STEPS:
            seen = find_event(source, event, stage.start, **status)
            if seen:
                found[step] = stamp(seen)
    seen = find_event(source, 'STOP', stage.start)
    if seen:
        found['freeze'] = stamp(seen)
    seen = find_event(stage.destination, 'RESUME', stage.start)
    if seen:
        found['runs there'] = stamp(seen)
    return {step: round(when - stage.start, 3)
            for step, when in found.items()}


def final_query(source: Vm) -> Json:
    """query-wsm, without names of temporary files."""
    return {key: value for key, value in query(source).items()
            if key != 'images'}
