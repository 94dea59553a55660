# SPDX-License-Identifier: GPL-2.0-or-later
"""A QEMU whose guest does nothing: the test itself writes to its disks."""

import os
import signal
import socket
import subprocess
import tty
from pathlib import Path
from typing import Any, Optional, cast

from dev.rig.basics import GUEST_BUILD, require, wait_until
from dev.rig.guest import Guest
from dev.rig.image import Image
from dev.rig.qmp import Qmp, QmpClosed, QmpError
from dev.rig.scene import query
from dev.rig.vm import DiskConfig, MachineConfig, Vm

PRECOPY = ('disk-precopy', 'ram-precopy')
FIRMWARE = os.environ.get('WSM_FIRMWARE', str(GUEST_BUILD / 'firmware'))


class Machine(Vm):
    """A QEMU with two disks and no guest software but its firmware."""

    def __init__(self, name: str, folder: Path, images: list[Image],
                 incoming: bool) -> None:
        disks = tuple(DiskConfig(f'vd{number}', image.fmt, image.size)
                      for number, image in enumerate(images))
        super().__init__(name, folder, MachineConfig(disks), images,
                         cast(Guest, None),
                         incoming='defer' if incoming else None)
        self._output = -1
        self.session = ''

    def _arguments(self) -> list[str]:
        return ([str(self.binary), '-L', FIRMWARE, '-name', self.name,
                 '-nodefaults', '-display', 'none', '-machine', 'pc',
                 '-accel', 'tcg', '-m', '16', '-boot', 'strict=on',
                 '-chardev', f'socket,id=qmp,path={self.folder / "qmp"}',
                 '-mon', 'chardev=qmp,mode=control']
                + self._disk_arguments()
                + (['-incoming', 'defer'] if self.incoming else ['-S']))

    def start(self) -> 'Machine':
        """As Vm.start(); what qemu-io prints goes to a terminal of ours."""
        self.folder.mkdir(parents=True)
        argv = self._arguments()
        (self.folder / 'command').write_text(' '.join(argv) + '\n')
        self._output, theirs = os.openpty()
        tty.setraw(theirs)
        os.set_blocking(self._output, False)
        with socket.socket(socket.AF_UNIX) as listener, \
                open(self.folder / 'stderr', 'wb') as stderr:
            listener.bind(str(self.folder / 'qmp'))
            listener.listen(1)
            # pylint: disable-next=consider-using-with
            self.process = subprocess.Popen(argv, stdin=subprocess.DEVNULL,
                                            stdout=theirs, stderr=stderr)
            os.close(theirs)
            self._qmp = Qmp(self._accept(listener))
        return self

    def close(self) -> None:
        self.kill()
        if self._qmp is not None:
            self._qmp.close()
            self._qmp = None
        if self._output >= 0:
            os.close(self._output)
            self._output = -1

    def condition(self) -> str:
        """For a report: does it live, and what has it printed?"""
        status = self.process and self.process.poll()
        how = 'lives' if status is None else f'ended with status {status}'
        return f'{how} {self.stderr().strip()}'

    # The guest's disks

    def io(self, disk: str, line: str) -> None:
        """What the guest would do to its disk, as a qemu-io command."""
        device = f'/machine/peripheral/{disk}/virtio-backend'
        text = self.qmp.hmp(f'qemu-io -d {device} "{line}"')
        try:
            text += os.read(self._output, 4096).decode()
        except BlockingIOError:
            pass
        require(not text, f'{self.name}: {disk}: {line}: {text.strip()}')

    def flush(self) -> None:
        for disk in self.config.disks:
            self.io(disk.id, 'flush')

    def refused(self) -> str:
        """Try to let the guest run; returns why that was not done, or ''."""
        try:
            self.qmp.cmd('cont')
        except QmpError as err:
            return str(err)
        return ''

    def run(self) -> None:
        text = self.refused()
        require(not text, f'{self.name}: cont was refused: {text}')

    # Migration

    def prepare(self, **options: Any) -> None:
        self.set_caps('whole-system', 'events')
        self.qmp.cmd('wsm-set-options', None, **options)

    def listen(self) -> int:
        self.qmp.cmd('migrate-incoming', uri='tcp:127.0.0.1:0')
        return self.listen_port()

    def phases(self) -> list[str]:
        """The phases it has told of; works also when it has ended."""
        try:
            self.qmp.cmd('query-version')
        except QmpClosed:
            self._read_rest()
        events = [event['data'] for event in self.qmp.events
                  if event['event'] == 'WSM_PHASE'
                  and event['data'].get('session', '') == self.session]
        return [event['phase'] for event in events]

    def _read_rest(self) -> None:
        """Events that came before the monitor was closed."""
        try:
            self.qmp.event('no such event')
        except QmpClosed:
            pass

    def learn_session(self, session: Optional[str] = None) -> str:
        self.session = session or str(query(self).get('session', ''))
        return self.session

    def in_precopy(self) -> bool:
        return (query(self)['phase'] in PRECOPY
                and self.migration_status() == 'active')

    def ended(self) -> str:
        """How the outgoing migration ended, 'lost': waits for good, or ''."""
        status = self.migration_status()
        if status == 'postcopy-paused':
            return 'lost'
        return status if status in ('completed', 'failed',
                                    'cancelled') else ''

    def is_incoming_over(self) -> str:
        """'failed', 'completed', 'lost' (paused for good), or ''."""
        try:
            info = self.migration()
            if info.get('status') == 'postcopy-paused':
                return 'lost'
            status = str(info.get('status', ''))
            return status if status in ('failed', 'completed') else ''
        except QmpClosed:
            self.wait_exit()
            return 'failed'

    def has_guest(self) -> bool:
        """At the destination: was it handed over?"""
        try:
            return str(query(self)['phase']) in ('postcopy', 'completed')
        except QmpClosed:
            return False

    def wait_ended(self) -> str:
        return wait_until(self.ended, f'{self.name}: migration ends')

    def died(self) -> None:
        """After a kill of ours: did it crash before that?"""
        require(not self.crashed(), f'{self.name} crashed')

    def end_as_failed(self) -> None:
        """A destination whose migration broke off ends by itself."""
        over = wait_until(self.is_incoming_over,
                          f'{self.name}: gives up')
        require(over == 'failed', f'{self.name}: is {over}, not failed')
        if self.process and self.process.poll() is None:
            try:
                self.wait_exit()
            except QmpClosed:
                pass
        self.died()

    def stop_process(self, stopped: bool) -> None:
        os.kill(self.pid, signal.SIGSTOP if stopped else signal.SIGCONT)
