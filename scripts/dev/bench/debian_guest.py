# SPDX-License-Identifier: GPL-2.0-or-later
"""The demo's Debian guest with applications, as a scene of ours.

The guest is that of scripts/demo with more packages, in the demo's network:
two hosts with a slow link, and a LAN with clients outside the guest.  It is
booted once; the state and the disk that it has then are kept, and each move
begins with a copy of them.
"""

import fcntl
import shutil
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Callable, Optional, cast

from dev import debian
from dev.bench.workloads import UNLIMITED_SECONDS
from dev.common import BUILD
from dev.demo.client import Heartbeat, Job, run_job
from dev.demo.guest_disk import DISK_BYTES, PACKAGES, Guest, Recipe, make_guest
from dev.demo.network import (GUEST_ADDRESS, PREFIX_LENGTH, Network,
                              make_network)
from dev.demo.process import guest_options
from dev.rig.basics import GUEST_BUILD, QEMU, require, run, wait_until
from dev.rig.image import Image
from dev.rig.scene import Scene, load_state
from dev.rig.vm import DiskConfig, MachineConfig, Vm

CACHE = BUILD / 'demo'
HOST_PACKAGES = ['e2fsprogs', 'iproute2', 'libpq5', 'mmdebstrap']
RECIPE = Recipe('apps', (*PACKAGES, 'fio', 'nginx', 'python3'), 2,
                ('agent.py', 'build.py'), ('setup.sh', 'apps.sh'),
                ('usr/lib/postgresql/*/bin/pgbench',))
PAPER_RECIPE = Recipe(
    'paper', (*RECIPE.packages, 'php-fpm', 'php-pgsql', 'bonnie++'), 2,
    (*RECIPE.files, 'bank.php', 'bonnie.py', 'video.py'),
    (*RECIPE.scripts, 'paper.sh'), ('srv/video/film',))
# Both hosts have the one disk of the machine, where a flush at one of them
# would delay the guest at the other
IN_MEMORY = Path('/dev/shm')
BOOT_SECONDS = 600.0
WARM_SECONDS = 10.0             # each application that is started later


@dataclass(frozen=True)
class Role:
    """What a guest has done when its state is kept."""
    name: str
    work: Callable[[Network], None]
    base: str = ''                  # the role it goes on from; none: boot


@dataclass(frozen=True)
class DebianConfig(MachineConfig):
    """The machine; it has one disk."""
    files: Optional[Guest] = None
    role: str = 'booted'

    @property
    def home(self) -> Path:
        """The folder of all files that were made for this guest."""
        assert self.files
        return self.files.disk.parent

    @property
    def state(self) -> Path:
        """The saved state; its disk is beside it."""
        return self.home / f'{self.role}-{self.memory}'


def debian_config(memory: int, recipe: Recipe = RECIPE,
                  role: Optional[Role] = None) -> DebianConfig:
    """With a guest that is made now, and booted, unless the cache has it."""
    role = role or WARM
    debian.install(HOST_PACKAGES)
    CACHE.mkdir(parents=True, exist_ok=True)
    with open(CACHE / 'lock', 'w', encoding='utf-8') as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        files = make_guest(CACHE, f'{GUEST_ADDRESS}/{PREFIX_LENGTH}', False,
                           recipe)
        config = DebianConfig((DiskConfig('vd0', size=DISK_BYTES),),
                              memory=memory, files=files, role=role.name)
        if not config.state.exists():
            make_state(config, role)
    return config


class DebianVm(Vm):
    """A QEMU for this guest."""

    def _arguments(self) -> list[str]:
        # pylint: disable=no-member
        config = cast(DebianConfig, self.config)
        assert config.files
        result = [
            str(self.binary), '-L', str(GUEST_BUILD / 'firmware'),
            '-name', f'{self.name},debug-threads=on',
            *guest_options(config.files, config.memory, config.smp),
            '-serial', f'file:{self.folder / "serial.log"}',
            '-chardev', f'socket,id=qmp,path={self.folder / "qmp"}',
            '-mon', 'chardev=qmp,mode=control',
            *self._disk_arguments(), *config.extra]
        if self.incoming is not None:
            result += ['-incoming', self.incoming]
        return result


class DebianScene(Scene):
    """Both hosts; the clients are at @network."""
    vm_type = DebianVm

    def __init__(self, config: DebianConfig, network: Network,
                 binary: Path = QEMU, folder: Path = IN_MEMORY) -> None:
        require(shutil.disk_usage(folder).free > 2 * DISK_BYTES,
                f'{folder} has no room for two disks of the guest')
        super().__init__(config, binary, folder)
        self.files = config
        self.network = network
        self.link = network.link

    def source(self, boot: bool = False, paused: bool = False) -> Vm:
        """The guest as it is after booting, on a disk of its own."""
        origin = self.files.files
        assert origin
        image = self.copy_image('source', origin.disk if boot
                                else disk_of(self.files.state))
        vm = self._new_vm('source', self.config, [image],
                          None if boot else 'defer')
        vm.start()
        if not boot:
            load_state(vm, self.files.state, paused)
        return vm

    def copy_image(self, where: str, disk: Path) -> Image:
        image = self.new_images(where)[0]
        copy_disk(disk, image.path)
        return image


def disk_of(state: Path) -> Path:
    return state.with_suffix('.raw')


def copy_disk(source: Path, target: Path) -> None:
    run('cp', '--sparse=always', '--reflink=auto', str(source), str(target))


def make_state(config: DebianConfig, role: Role) -> None:
    """Boot the guest, let it work, and keep what it is then."""
    partial = config.state.with_suffix('.new')
    with make_network('1gbit') as network:
        start = replace(config, role=role.base or config.role)
        scene = DebianScene(start, network)
        try:
            vm = scene.source(boot=not role.base)
            wait_booted(network, vm)
            role.work(network)
            require(run_job(network, 'sync').code == 0,
                    'job sync failed in the guest')
            vm.qmp.cmd('stop')
            vm.qmp.cmd('migrate', uri=f'file:{partial}')
            vm.wait_migration('completed')
            vm.quit()
            copy_disk(vm.images[0].path, disk_of(config.state))
            partial.rename(config.state)
        finally:
            scene.close()


def wait_booted(network: Network, vm: Vm) -> None:
    """Until the database answers."""
    heartbeat = Heartbeat(network)
    try:
        wait_until(lambda: heartbeat.last() or not vm.alive(),
                   'the guest boots', BOOT_SECONDS)
    finally:
        heartbeat.close()
    wait_until(lambda: database_ready(network), 'PostgreSQL starts',
               BOOT_SECONDS)


def warm_all(network: Network) -> None:
    """Let each application run for a while."""
    for request in (('pgbench', 2, UNLIMITED_SECONDS), ('fio', 10),
                    ('build', 10)):
        run_for(network, WARM_SECONDS, *request)
    require(run_job(network, 'balances').code == 0,
            'job balances failed in the guest')


def run_for(network: Network, seconds: float, *request: object) -> None:
    job = Job(network, *request)
    time.sleep(seconds)
    job.stop()
    job.wait(BOOT_SECONDS)


WARM = Role('booted', warm_all)


def database_ready(network: Network) -> bool:
    try:
        return Job(network, 'ready').wait(30).code == 0
    except OSError:
        time.sleep(0.5)     # the agent is not there yet
        return False
