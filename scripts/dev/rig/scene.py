# SPDX-License-Identifier: GPL-2.0-or-later
"""The stage of one test: a source, destinations, the guest, the wire."""

import hashlib
import os
import shutil
import tempfile
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any, Optional

from dev.rig.basics import GUEST_BUILD, QEMU, TestFailure, require, wait_until
from dev.rig.guest import Guest
from dev.rig.host import Link
from dev.rig.image import Image
from dev.rig.qmp import Json, QmpClosed, QmpError
from dev.rig.relay import Relay
from dev.rig.vm import MachineConfig, Vm

WSM = 'whole-system'
TEMPLATES = GUEST_BUILD / 'templates'
TRANSIENT_THREADS = ('worker', 'iou-', 'CPU ')


class Scene:
    """Everything a test makes; close() removes it, also after a failure."""

    vm_type = Vm

    def __init__(self, config: Optional[MachineConfig] = None,
                 binary: Path = QEMU, where: Optional[Path] = None) -> None:
        self.binary = binary
        self.folder = Path(tempfile.mkdtemp(prefix='wsm-test-', dir=where))
        self.image_folder = self.folder     # of new images
        self.config = config or MachineConfig()
        self.guest = Guest(self.folder / 'guest')
        self.others: list[Guest] = []
        self.vms: list[Vm] = []
        self.relays: list[Relay] = []
        self.link: Optional[Link] = None

    def close(self, keep: bool = False) -> None:
        for vm in self.vms:
            vm.close()
        for relay in self.relays:
            relay.close()
        for guest in [self.guest, *self.others]:
            guest.close()
        if self.link:
            self.link.close()
        if not keep:
            shutil.rmtree(self.folder)

    def report(self) -> str:
        """How each QEMU is and what it printed."""
        return '\n'.join(f'--- {vm.name}: {describe(vm)}\n'
                         f'{vm.stderr().strip()}' for vm in self.vms)

    # Setting up

    def make_link(self, rate: Optional[str] = None) -> Link:
        """Run source and destinations in namespaces of their own."""
        self.link = Link(rate)
        return self.link

    def make_relay(self, destination: Vm) -> Relay:
        relay = Relay(destination.listen_port())
        self.relays.append(relay)
        return relay

    def new_images(self, where: str,
                   config: Optional[MachineConfig] = None) -> list[Image]:
        return [Image(self.image_folder / f'{where}-{disk.id}.{disk.fmt}',
                      disk.fmt, disk.size).create()
                for disk in (config or self.config).disks]

    def other_guest(self) -> Guest:
        """One more guest, which runs beside the guest of the test."""
        self.others.append(Guest(self.folder / f'guest-{len(self.others)}'))
        return self.others[-1]

    def _new_vm(self, name: str, config: MachineConfig, images: list[Image],
                incoming: Optional[str], guest: Optional[Guest] = None) -> Vm:
        vm = self.vm_type(name, self.folder / name, config, images,
                          guest or self.guest, incoming=incoming,
                          binary=self.binary)
        if self.link:
            at_b = name.startswith('destination')
            vm.host = self.link.b if at_b else self.link.a
        self.vms.append(vm)
        return vm

    def source(self, boot: bool = False) -> Vm:
        """A VM with blank disks in which the guest's workload runs.

        Unless @boot, it starts from the saved state of a guest that was
        booted once with the same devices.
        """
        state = None if boot else template(self.config)
        vm = self._new_vm('source', self.config, self.new_images('source'),
                          None if boot else 'defer')
        vm.start()
        if state:
            load_state(vm, state)
        self.guest.wait_ready()
        # On a busy host memory may never fit into the default of 300 ms
        vm.set_params(downtime_limit=2000)
        vm.baseline = footprint(vm)
        return vm

    def destination(self, uri: Optional[str] = None, wsm: bool = True,
                    config: Optional[MachineConfig] = None,
                    images: Optional[list[Image]] = None,
                    name: str = 'destination', incoming: str = 'defer',
                    **options: Any) -> Vm:
        """A VM that waits for a migration, on a port of its own choice.

        @incoming is the option of its command line; if that has a URI there
        is no command, and with uri='defer' there is none yet.
        With a link it is on its other side if @name begins with
        "destination", else on that of the source.  @options go to
        wsm-set-options.
        """
        config = config or self.config
        vm = self._new_vm(name, config,
                          images or self.new_images(name, config), incoming)
        vm.start()
        if wsm:
            enable(vm, **options)
        vm.set_caps('events')
        if 'defer' == incoming != uri:
            vm.qmp.cmd('migrate-incoming',
                       uri=uri or f'tcp:{vm.address()}:0')
        return vm

    def reopen(self, name: str, images: list[Image],
               guest: Optional[Guest] = None, paused: bool = False,
               state: Optional[Path] = None) -> Vm:
        """A new QEMU on images that are there.

        It boots @guest, unless the images or @paused do not let it, or loads
        the saved @state of this test's guest and leaves that paused.
        """
        config = self.config
        if paused:
            config = replace(config, extra=config.extra + ('-S',))
        vm = self._new_vm(name, config, images, 'defer' if state else None,
                          guest)
        vm.start()
        if state:
            vm.qmp.cmd('migrate-incoming', uri=f'file:{state}')
            vm.wait_migration('completed')
        return vm

    def uri(self, destination: Vm) -> str:
        return f'tcp:{destination.address()}:{destination.listen_port()}'


# Templates: booting costs seconds, loading a booted guest does not

def template(config: MachineConfig) -> Path:
    """The saved state of a booted guest with these devices."""
    inputs = [repr((config.iothreads, config.controllers, config.memory,
                    config.smp, config.machine, config.accel, config.cpu,
                    config.kernel_line, config.extra))]
    inputs += [repr((disk.id, disk.anonymous, disk.size, disk.device,
                     disk.read_only, disk.extra)) for disk in config.disks]
    for name in ('vmlinuz', 'initrd.img'):
        stat = (GUEST_BUILD / name).stat()
        inputs.append(f'{stat.st_mtime_ns} {stat.st_size}')
    key = hashlib.sha256('\n'.join(inputs).encode()).hexdigest()[:16]
    path = TEMPLATES / key
    if not path.exists():
        TEMPLATES.mkdir(parents=True, exist_ok=True)
        drop_old_templates()
        make_template(config, path)
    return path


def drop_old_templates() -> None:
    """Remove those of a guest that has been built anew since."""
    built = (GUEST_BUILD / 'initrd.img').stat().st_mtime
    for path in TEMPLATES.iterdir():
        if path.stat().st_mtime < built:
            path.unlink(missing_ok=True)


def make_template(config: MachineConfig, path: Path) -> None:
    scene = Scene(config)
    try:
        vm = scene.source(boot=True)
        partial = path.with_suffix(f'.{os.getpid()}')
        vm.qmp.cmd('stop')
        vm.qmp.cmd('migrate', uri=f'file:{partial}')
        vm.wait_migration('completed')
        vm.quit()
        partial.rename(path)
    finally:
        scene.close()


def load_state(vm: Vm, state: Path, paused: bool = False) -> None:
    vm.qmp.cmd('migrate-incoming', uri=f'file:{state}')
    vm.wait_migration('completed')
    if not paused:
        vm.qmp.cmd('cont')


def describe(vm: Vm) -> str:
    """The state of a QEMU, for whoever reads about a failure."""
    if vm.process is None:
        return 'not started'
    if not vm.alive():
        return f'ended with status {vm.process.returncode}'
    answers = []
    for command in ('query-status', 'query-migrate', 'query-wsm'):
        try:
            answers.append(f'{command}: {vm.qmp.cmd(command)}')
        except (QmpError, QmpClosed, TestFailure) as err:
            answers.append(f'{command}: {err}')
    return '\n'.join(answers)


# Whole-system migration

def enable(vm: Vm, **options: Any) -> None:
    vm.set_caps(WSM)
    if options:
        vm.qmp.cmd('wsm-set-options', None, **options)


def has_wsm(vm: Vm) -> bool:
    return any(entry['capability'] == WSM
               for entry in vm.qmp.cmd('query-migrate-capabilities'))


def supports_wsm() -> bool:
    """Whether the tested QEMU knows the capability at all."""
    with open(QEMU, 'rb') as binary:
        return b'wsm-set-options' in binary.read()


def begin(source: Vm, uri: str, **options: Any) -> None:
    """Start the migration at the source; options go to wsm-set-options."""
    enable(source, **options)
    source.set_caps('events')
    source.qmp.cmd('migrate', uri=uri)


def wait_phase(vm: Vm, phase: str) -> None:
    vm.qmp.event('WSM_PHASE', lambda data: bool(data['phase'] == phase))


def query(vm: Vm) -> Json:
    info: Json = vm.qmp.cmd('query-wsm')
    return info


def disk_total(vm: Vm, *names: str) -> int:
    """Sum of these counters of query-wsm over all disks."""
    return sum(disk.get(name, 0) for disk in query(vm)['disks']
               for name in names)


def wait_total(vm: Vm, name: str, at_least: int = 1) -> int:
    return wait_until(lambda: (disk_total(vm, name) >= at_least
                               and disk_total(vm, name)),
                      f'{vm.name}: {name} >= {at_least}')


def finish(source: Vm, destination: Vm) -> None:
    """Wait until all is over, and nothing of it is left on either side."""
    source.wait_migration('completed')
    destination.wait_migration('completed')
    for vm in (source, destination):
        require(query(vm)['phase'] == 'completed',
                f'{vm.name}: phase is {query(vm)["phase"]}')
    expect_clean(source)
    expect_clean(destination)


def footprint(vm: Vm) -> Json:
    """What must be the same again after a migration that failed."""
    return {'threads': lasting_threads(vm), 'nodes': vm.nodes(),
            'bitmaps': vm.bitmaps(), 'sockets': vm.sockets()}


def lasting_threads(vm: Vm) -> list[str]:
    return [name for name in vm.threads()
            if not name.startswith(TRANSIENT_THREADS)]


def differs(key: str, before: Any, now: Any) -> bool:
    """
    Is something left behind, or gone?  A thread that is gone is none of ours:
    a transient one that had not given itself its name when it was counted.
    """
    if key == 'threads':
        return bool(Counter(now) - Counter(before))
    return bool(before != now)


def expect_clean(vm: Vm) -> None:
    """No bitmap, filter node, thread or socket of a migration is left."""
    def leftovers() -> list[str]:
        found = [f'bitmap {bitmap}' for bitmap in vm.bitmaps()]
        found += [f'thread {name}' for name in vm.threads()
                  if 'wsm' in name or name.startswith('mig/')]
        found += [f'node {node["node-name"]}' for node in
                  vm.qmp.cmd('query-named-block-nodes', flat=True)
                  if node['drv'] == 'pull-on-demand']
        if vm.baseline:
            now = footprint(vm)
            found += [f'{key}: {vm.baseline[key]} became {value}'
                      for key, value in now.items()
                      if differs(key, vm.baseline[key], value)]
        return found

    try:
        wait_until(lambda: not leftovers(), 'cleanup', timeout=10)
    except TestFailure as err:
        raise TestFailure(f'{vm.name}: left behind: {leftovers()}') from err
