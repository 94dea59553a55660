# SPDX-License-Identifier: GPL-2.0-or-later
"""One QEMU process."""

import json
import os
import signal
import socket
import subprocess
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Optional

from dev.rig.basics import GUEST_BUILD, QEMU, TIMEOUT, TestFailure, wait_until
from dev.rig.guest import Guest, remove_socket
from dev.rig.host import Host
from dev.rig.image import MIB, Image
from dev.rig.qmp import Json, Qmp, QmpClosed

KERNEL_LINE = ('console=ttyS0 quiet panic=-1 mitigations=off nokaslr '
               'no_timer_check')
ACCEL = os.environ.get('WSM_ACCEL', 'tcg,thread=multi')


@dataclass(frozen=True)
class DiskConfig:
    """A disk of the guest, the same at the source and the destination."""
    id: str = 'vd0'
    fmt: str = 'raw'
    size: int = 64 * MIB
    cache: str = 'writeback'            # or 'none', 'unsafe'
    write_cache: str = 'on'             # of virtio-blk; 'off': writethrough
    discard: str = 'unmap'
    device: str = 'virtio-blk-pci'
    iothread: str = ''                  # id of an IOThread
    iothread_mapping: tuple[str, ...] = ()
    read_only: bool = False
    anonymous: bool = False             # the device has no id
    extra: tuple[tuple[str, Any], ...] = ()     # device properties
    layer: tuple[tuple[str, Any], ...] = ()     # properties of the file node


@dataclass(frozen=True)
class MachineConfig:
    disks: tuple[DiskConfig, ...] = (DiskConfig(),)
    iothreads: tuple[str, ...] = ()
    controllers: tuple[str, ...] = ()   # -device, before the disks
    memory: int = 256                   # MiB
    smp: int = 1
    machine: str = 'pc'
    accel: str = ACCEL
    cpu: str = 'qemu64'
    kernel_line: str = ''               # behind KERNEL_LINE
    extra: tuple[str, ...] = ()         # options of QEMU
    environment: tuple[tuple[str, str], ...] = ()


@dataclass
class Vm:
    """A QEMU with its own working folder; use start() and close()."""
    name: str
    folder: Path
    config: MachineConfig
    images: list[Image]
    guest: Guest
    host: Optional[Host] = None
    incoming: Optional[str] = None      # URI; None: boot
    binary: Path = QEMU
    process: Optional['subprocess.Popen[bytes]'] = None
    baseline: dict[str, Any] = field(default_factory=dict)
    _qmp: Optional[Qmp] = None

    # Command line

    def _protocol(self, image: Image) -> Json:
        """How QEMU gets at an image."""
        return {'driver': 'file', 'filename': str(image.path)}

    def _disk_arguments(self) -> list[str]:
        result = []
        for disk, image in zip(self.config.disks, self.images):
            node = f'node-{disk.id}'
            result += ['-blockdev', json.dumps({
                'driver': disk.fmt, 'node-name': node,
                'discard': disk.discard, 'read-only': disk.read_only,
                'file': {
                    **self._protocol(image),
                    'node-name': f'{node}-file', 'discard': disk.discard,
                    'read-only': disk.read_only, **dict(disk.layer)},
                'cache': {'direct': disk.cache == 'none',
                          'no-flush': disk.cache == 'unsafe'}})]
            device: Json = {'driver': disk.device, 'drive': node}
            if not disk.anonymous:
                device['id'] = disk.id
            if disk.device.startswith('virtio-blk'):
                device['write-cache'] = disk.write_cache
            if disk.iothread:
                device['iothread'] = disk.iothread
            if disk.iothread_mapping:
                device['iothread-vq-mapping'] = [
                    {'iothread': name} for name in disk.iothread_mapping]
            device.update(disk.extra)
            result += ['-device', json.dumps(device)]
        return result

    def _arguments(self) -> list[str]:
        config = self.config
        result = [
            str(self.binary), '-L', str(GUEST_BUILD / 'firmware'),
            '-name', f'{self.name},debug-threads=on',
            '-nodefaults', '-display', 'none',
            '-machine', config.machine, '-cpu', config.cpu,
            '-accel', config.accel,
            '-m', str(config.memory), '-smp', str(config.smp),
            '-kernel', str(GUEST_BUILD / 'vmlinuz'),
            '-initrd', str(GUEST_BUILD / 'initrd.img'),
            '-append', f'{KERNEL_LINE} {config.kernel_line}'.strip(),
            '-no-reboot',
            '-serial', f'file:{self.folder / "serial.log"}',
            '-chardev', f'socket,id=qmp,path={self.folder / "qmp"}',
            '-mon', 'chardev=qmp,mode=control',
            '-netdev', f'dgram,id=net,local.type=unix,local.path={self.card},'
                       f'remote.type=unix,remote.path={self.guest.path}',
            '-device', 'virtio-net-pci,netdev=net,romfile=,id=net0',
        ]
        for name in config.iothreads:
            result += ['-object', f'iothread,id={name}']
        for controller in config.controllers:
            result += ['-device', controller]
        result += self._disk_arguments()
        result += config.extra
        if self.incoming is not None:
            result += ['-incoming', self.incoming]
        return result

    @property
    def card(self) -> Path:
        """The socket of the guest's network card."""
        return self.folder / 'card'

    # Life

    def start(self) -> 'Vm':
        self.folder.mkdir(parents=True)
        prefix = self.host.prefix() if self.host else []
        argv = prefix + self._arguments()
        (self.folder / 'command').write_text(' '.join(argv) + '\n')
        with socket.socket(socket.AF_UNIX) as listener, \
                open(self.folder / 'stderr', 'wb') as stderr:
            listener.bind(str(self.folder / 'qmp'))
            listener.listen(1)
            self.process = self._popen(argv, stderr)
            self._qmp = Qmp(self._accept(listener))
        self.guest.attach(self.card)
        return self

    def _popen(self, argv: list[str],
               stderr: Any) -> 'subprocess.Popen[bytes]':
        # pylint: disable-next=consider-using-with
        return subprocess.Popen(
            argv, stdin=subprocess.DEVNULL, stdout=stderr, stderr=stderr,
            env={**os.environ, **dict(self.config.environment)})

    def _accept(self, listener: socket.socket) -> socket.socket:
        deadline = time.monotonic() + TIMEOUT
        listener.settimeout(0.2)
        while time.monotonic() < deadline:
            try:
                return listener.accept()[0]
            except socket.timeout:
                if not self.alive():
                    break
        raise TestFailure(f'{self.name} did not start: {self.stderr()}')

    @property
    def qmp(self) -> Qmp:
        assert self._qmp is not None, f'{self.name} was not started'
        return self._qmp

    @property
    def pid(self) -> int:
        assert self.process is not None
        return self.process.pid

    def alive(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def stderr(self) -> str:
        try:
            return (self.folder / 'stderr').read_text('utf-8', 'replace')
        except FileNotFoundError:
            return ''

    def kill(self) -> None:
        """As if the host lost power."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()

    def freeze(self, frozen: bool) -> None:
        """Stop the process itself, or let it go on."""
        os.kill(self.pid, signal.SIGSTOP if frozen else signal.SIGCONT)

    def wait_exit(self) -> int:
        assert self.process is not None
        try:
            return self.process.wait(TIMEOUT)
        except subprocess.TimeoutExpired as err:
            raise TestFailure(f'{self.name} does not end') from err

    def quit(self) -> None:
        """End QEMU in good order; anything else is a failure."""
        try:
            self.qmp.cmd('quit')
        except QmpClosed:
            pass
        status = self.wait_exit()
        if status:
            raise TestFailure(f'{self.name} ended with status {status}: '
                              f'{self.stderr()}')

    def crashed(self) -> bool:
        """Whether it died of a signal that nobody sent on purpose."""
        return (self.process is not None and self.process.poll() is not None
                and -self.process.returncode in (signal.SIGABRT,
                                                 signal.SIGSEGV,
                                                 signal.SIGBUS))

    def close(self) -> None:
        self.kill()
        if self._qmp is not None:
            self._qmp.close()
        remove_socket(self.card)

    # State

    def status(self) -> str:
        return str(self.qmp.cmd('query-status')['status'])

    def migration(self) -> Json:
        info: Json = self.qmp.cmd('query-migrate')
        return info

    def migration_status(self) -> str:
        return str(self.migration().get('status', 'none'))

    def gave_up(self) -> bool:
        """Whether an incoming migration failed; QEMU may end with it."""
        try:
            return self.migration_status() == 'failed'
        except QmpClosed:
            self.wait_exit()
            return True

    def wait_migration(self, *wanted: str) -> Json:
        """Wait for a status; any other final one is a failure."""
        final = {'completed', 'failed', 'cancelled'} - set(wanted)

        def reached() -> Optional[Json]:
            info = self.migration()
            status = info.get('status')
            if status in final:
                raise TestFailure(
                    f'{self.name}: migration {status} instead of '
                    f'{"/".join(wanted)}: {info.get("error-desc", "")}\n'
                    f'{self.stderr()}')
            return info if status in wanted else None

        return wait_until(reached, f'{self.name}: migration '
                          f'{"/".join(wanted)}')

    def wait_running(self) -> None:
        wait_until(lambda: self.status() == 'running',
                   f'{self.name}: guest running')

    def set_caps(self, *names: str, on: bool = True) -> None:
        self.qmp.cmd('migrate-set-capabilities', capabilities=[
            {'capability': name, 'state': on} for name in names])

    def set_params(self, **params: Any) -> None:
        self.qmp.cmd('migrate-set-parameters', None, **params)

    def address(self) -> str:
        """Where its host listens."""
        return self.host.address if self.host else '127.0.0.1'

    def listen_port(self) -> int:
        """The TCP port that "-incoming tcp:...:0" was given."""
        address = self.migration()['socket-address'][0]
        return int(address['port'])

    # What migration could leave behind

    def threads(self) -> list[str]:
        names = []
        for task in Path(f'/proc/{self.pid}/task').iterdir():
            try:
                names.append((task / 'comm').read_text().strip())
            except OSError:
                pass    # it just ended
        return sorted(names)

    def nodes(self) -> list[str]:
        return sorted(node['node-name'] for node in
                      self.qmp.cmd('query-named-block-nodes', flat=True))

    def all_bitmaps(self) -> list[Json]:
        return [bitmap for node in
                self.qmp.cmd('query-named-block-nodes')
                for bitmap in node.get('dirty-bitmaps', [])]

    def bitmaps(self) -> list[Json]:
        """Those that are no sync points, which are meant to stay."""
        return [bitmap for bitmap in self.all_bitmaps()
                if not bitmap.get('name', '').startswith('wsm-')]

    def sockets(self) -> int:
        count = 0
        for entry in Path(f'/proc/{self.pid}/fd').iterdir():
            try:
                count += os.readlink(entry).startswith('socket:')
            except OSError:
                pass    # it was just closed
        return count

    def resident_bytes(self) -> int:
        """Resident memory without the guest's RAM if that is a file."""
        status = Path(f'/proc/{self.pid}/status').read_text('utf-8')
        for line in status.split('\n'):
            if line.startswith('VmRSS:'):
                return int(line.split()[1]) * 1024
        raise TestFailure(f'{self.name}: no VmRSS')
