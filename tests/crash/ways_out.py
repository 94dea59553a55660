# SPDX-License-Identifier: GPL-2.0-or-later
"""What a user does when somebody has died, as docs/failure-modes.md says it.

He looks at who is left, and at the images with wsm-info; so does this.  Then
the disks must have all that was flushed, and no stale copy may run.
"""

import contextlib
import socket
from typing import Iterator

from dev.rig.basics import require, wait_until
from dev.rig.image import Image
from dev.rig.qmp import QmpClosed
from dev.rig.scene import disk_total, query, wait_phase
from dev.rig.vm import Vm
from tests.crash.images import expect_flushed
from tests.crash.whose import DESTINATION, SOURCE, owner, words
from tests.crash.setting import Setting
from tests.functional.lib.back import record, states
from tests.functional.lib.mapfile import map_path, merged, read_map
from tests.functional.lib.rejoin import Crashed, Finishing
from tests.functional.lib.rescue import Serving, wait_missing
from tests.functional.lib.tls import use_x509

ROUNDS = 5              # that the guest shall do where it lives on


def quit_anyhow(vm: Vm) -> None:
    """Tell a QEMU to end."""
    try:
        vm.qmp.cmd('quit')
    except QmpClosed:
        pass
    vm.wait_exit()


class WayOut:
    """One case after the crash."""

    def __init__(self, setting: Setting) -> None:
        self.setting = setting
        self.scene = setting.scene
        self.source, self.destination = setting.source, setting.destination
        self.source_images = setting.source.images
        self.destination_images = setting.destination.images
        self.twice = False              # the next one dies, too
        self.taken: list[str] = []      # what was done, for the report

    # What must hold

    def judge(self, images: list[Image]) -> None:
        """All that was flushed is there."""
        expect_flushed(self.setting.plan, self.scene.guest.rounds(), images,
                       self.scene.folder)

    def check(self, image: Image) -> None:
        """An image is well formed."""
        image.check()

    def reopened(self, images: list[Image]) -> Vm:
        """A new QEMU whose guest stands still."""
        return self.scene.reopen(f'again-{len(self.scene.vms)}', images,
                                 self.scene.other_guest(), paused=True)

    def expect_stale(self, images: list[Image]) -> None:
        """A guest is not run from these."""
        vm = self.reopened(images)
        vm.qmp.expect_error('cont')
        require(vm.status() != 'running', 'a stale copy runs')
        vm.kill()

    def run(self, images: list[Image], adopt: bool = False) -> None:
        """A guest runs from these, after "wsm-adopt" only if it must."""
        vm = self.reopened(images)
        if adopt:
            vm.qmp.expect_error('cont')
            vm.qmp.cmd('wsm-adopt')
        vm.qmp.cmd('cont')
        vm.wait_running()
        vm.kill()

    # The ends

    def at_source(self) -> None:
        """The source's images are the guest's disk; nobody has them open."""
        self.taken.append('at the source')
        self.judge(self.source_images)
        found = words(self.source_images)
        require(set(found) <= {'current', 'leaving'}, f'source: {found}')
        self.expect_stale(self.destination_images)
        self.run(self.source_images, adopt='leaving' in found)

    def at_destination(self) -> None:
        """The destination's are."""
        self.taken.append('at the destination')
        self.judge(self.destination_images)
        require(set(words(self.destination_images)) == {'current'},
                f'{words(self.destination_images)}')
        for image in self.destination_images:
            self.check(image)
        self.expect_stale(self.source_images)
        self.run(self.destination_images)

    def lives_on(self, vm: Vm) -> None:
        """The guest works there, all is as it wrote it, and it ends well."""
        vm.wait_running()
        guest = self.scene.guest
        guest.wait_rounds(ROUNDS)
        guest.stop()
        guest.verify()
        guest.command('flush')
        vm.quit()

    # Who is left

    def destination_fate(self) -> str:
        """How the destination is when it has heard all that was on its way."""
        fate = self.fate(self.destination)
        if fate == 'postcopy-paused':
            wait_until(lambda: not any(
                channel['connected'] for channel
                in query(self.destination).get('channels', [])),
                'all channels are closed')
        return fate

    def source_dead(self) -> None:
        """The destination has its QEMU yet."""
        destination = self.destination
        if self.destination_fate() == 'ended':
            self.at_source()
        elif query(destination)['phase'] == 'freeze':
            self.taken.append('quit')
            quit_anyhow(destination)
            self.at_source()
        else:
            self.all_comes()
            self.at_destination()

    def fate(self, vm: Vm) -> str:
        """How a QEMU is when it has noticed."""
        def found() -> str:
            try:
                status = vm.migration_status()
            except QmpClosed:
                vm.wait_exit()
                return 'ended'
            return status if status in ('postcopy-paused', 'completed',
                                        'failed', 'cancelled') else ''
        return wait_until(found, f'{vm.name} has noticed')

    def serve(self) -> Serving:
        """Begin to serve the source's images."""
        self.taken.append('wsm-serve')
        return Serving(self.source_images, *self.setting.tls_options)

    def all_comes(self) -> None:
        """The destination runs the guest, and gets the rest."""
        destination = self.destination
        if disk_total(destination, 'missing'):
            with self.serve() as serving:
                serving.wait(0)
        wait_until(lambda: set(states(destination)) == {'current'},
                   'the images are complete')
        if not self.setting.variant.memory:
            # Nobody knows whether its memory is complete
            destination.kill()
            return
        destination.wait_migration('completed')
        require(query(destination)['phase'] == 'completed',
                f'{query(destination)}')
        for image in destination.images:
            require(not record(image).exists(), f'a record of {image.path}')
        wait_until(lambda: not any(map_path(image).exists()
                                   for image in destination.images),
                   'the maps are gone')
        self.lives_on(destination)

    def destination_dead(self) -> None:
        """The source has its QEMU yet."""
        source = self.source
        fate = self.fate(source)
        if fate in ('failed', 'cancelled'):
            self.taken.append('the source goes on')
            require('postcopy' not in [entry['phase'] for entry
                                       in query(source)['phases']],
                    'it was handed over')
            self.lives_on(source)
            self.at_source()
        elif fate == 'completed':
            source.quit()
            self.at_destination()
        else:
            source.qmp.expect_error('cont')
            source.kill()
            self.both_dead()

    def serve_and_kill(self) -> None:
        """The destination has its QEMU yet, which dies when it is served."""
        destination = self.destination
        if (self.destination_fate() == 'postcopy-paused'
                and query(destination)['phase'] == 'postcopy'
                and (missing := disk_total(destination, 'missing'))):
            with self.serve():
                wait_missing(destination, missing)
                destination.kill()
        destination.kill()
        self.both_dead()

    def both_dead(self) -> None:
        """Images tell."""
        destination = words(self.destination_images)
        whose = owner(words(self.source_images), destination)
        if whose == SOURCE:
            self.at_source()
        elif whose == DESTINATION:
            self.at_destination()
        else:
            self.arriving(destination)

    # A killed destination

    def arriving(self, found: list[str]) -> None:
        """What the maps do not name is there, all else at the source."""
        self.expect_stale(self.source_images)
        self.expect_stale(self.destination_images)
        self.judge_merged(found)
        if self.twice:
            with self.rejoined() as vm, self.serve():
                wait_missing(vm, disk_total(vm, 'missing'))
                vm.kill()
            self.judge_merged(words(self.destination_images))
        if 'arriving' not in words(self.destination_images):
            pass
        elif self.setting.seed % 3 == 1:
            self.finish()
        else:
            with self.rejoined() as vm, self.serve() as serving:
                if self.setting.seed % 3 == 0:
                    self.boot(vm)
                serving.wait(0)
                wait_phase(vm, 'completed')
                vm.quit()
        self.at_destination()

    def judge_merged(self, found: list[str]) -> None:
        """Both images together have all of it already."""
        self.taken.append('maps')
        whole = []
        for state, image, source in zip(found, self.destination_images,
                                        self.source_images):
            if state == 'arriving':
                copy = self.scene.folder / f'merged-{image.path.name}.raw'
                image = merged(read_map(map_path(image)), image.path, source,
                               copy)
            whole.append(image)
        self.judge(whole)

    @contextlib.contextmanager
    def rejoined(self) -> Iterator[Vm]:
        """A new destination, which the source's images are served to."""
        self.taken.append('wsm-rejoin')
        vm = self.reopened(self.destination_images)
        if self.setting.variant.tls:
            use_x509(vm, self.scene.folder / 'tls', 'server')
        self.setting.relay.target_port = free_port()
        vm.qmp.cmd('wsm-rejoin',
                   uri=f'tcp:127.0.0.1:{self.setting.relay.target_port}')
        try:
            yield vm
        finally:
            vm.kill()

    def finish(self) -> None:
        """The rest of the disks comes without a guest."""
        self.taken.append('wsm-finish')
        tls = self.scene.folder / 'tls' if self.setting.variant.tls else None
        self.setting.relay.target_port = port = free_port()
        crashed = Crashed(self.source, self.destination_images, [],
                          f'tcp:127.0.0.1:{port}', tls)
        with Finishing(crashed) as finishing, self.serve() as serving:
            serving.wait(0)
            finishing.wait(0)

    def boot(self, vm: Vm) -> None:
        """The guest boots while blocks are missing."""
        self.taken.append('cont')
        vm.qmp.cmd('cont')
        vm.guest.wait_ready()


def free_port() -> int:
    """A port that nobody listens at."""
    with socket.create_server(('127.0.0.1', 0)) as server:
        port: int = server.getsockname()[1]
        return port
