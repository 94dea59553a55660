# SPDX-License-Identifier: GPL-2.0-or-later
"""A source that is killed in post-copy, and wsm-serve for its images."""

import subprocess
import sys
from dataclasses import dataclass
from typing import Any, Optional, Self

from dev.common import ROOT
from dev.rig.basics import (SLOWNESS, TIMEOUT, TestFailure, require, tool,
                            wait_until)
from dev.rig.image import Image
from dev.rig.relay import Relay
from dev.rig.scene import Scene, begin, disk_total, query, wait_phase
from dev.rig.vm import Vm
from tests.functional.lib.back import record, states
from tests.functional.lib.moves import LOAD, loaded_source
from tests.functional.lib.setups import Setup, nothing

TOOL = ROOT / 'scripts/wsm-serve'
LONG_POSTCOPY: dict[str, Any] = {'x_push_delay': round(200 * SLOWNESS),
                                 'max_residue': 30000}


@dataclass
class Killed:
    """What is left of a migration whose source was killed in post-copy."""
    source: Vm
    destination: Vm
    relay: Relay


def is_stamped(image: Image) -> bool:
    return '"stamp"' in record(image).read_text('utf-8')


def source_killed(scene: Scene, setup: Setup = nothing, stamped: bool = False,
                  **options: Any) -> Killed:
    """The guest runs at the destination, and waits for what is missing.

    With STAMPED the source's records tell if somebody writes to the images.
    """
    source = loaded_source(scene, **{**LOAD, 'rate': 0})
    destination = scene.destination('defer')
    setup(scene, source, destination)
    destination.qmp.cmd('migrate-incoming', uri='tcp:127.0.0.1:0')
    relay = scene.make_relay(destination)
    begin(source, relay.uri, **LONG_POSTCOPY, **options)
    wait_phase(destination, 'postcopy')
    require(disk_total(destination, 'missing') > 0, 'nothing is missing')
    if stamped:
        wait_until(lambda: all(map(is_stamped, source.images)), 'stamps')
    source.kill()
    destination.wait_migration('postcopy-paused')
    require(disk_total(destination, 'missing') > 0, 'nothing is missing')
    return Killed(source, destination, relay)


class Running:
    """A program that a user has started; use it as a context."""

    def __init__(self, *argv: str) -> None:
        # pylint: disable-next=consider-using-with
        self.process = subprocess.Popen(
            [sys.executable, *argv], stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        self.said = ''

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    def kill(self) -> None:
        """As if the host lost power."""
        self.process.kill()
        self.process.wait()
        if self.process.stdout:
            self.process.stdout.close()

    def wait(self, status: int) -> str:
        """Wait until it ends so; return what it has said."""
        try:
            self.said = self.process.communicate(timeout=TIMEOUT)[0]
        except subprocess.TimeoutExpired as error:
            self.kill()
            raise TestFailure(f'it does not end: {error.output!r}') from error
        require(self.process.returncode == status,
                f'status {self.process.returncode}: {self.said}')
        return self.said


class Serving(Running):
    """wsm-serve of the images of a source."""

    def __init__(self, images: list[Image], *options: str) -> None:
        super().__init__(str(TOOL), '--qemu-nbd', tool('qemu-nbd'), *options,
                         *(str(image.path) for image in images))


def serve(images: list[Image], *options: str) -> str:
    """Serve to the end; return what was said."""
    with Serving(images, *options) as serving:
        return serving.wait(0)


def expect_refused(images: list[Image], words: str, *options: str) -> None:
    """It says why, at once."""
    with Serving(images, *options) as serving:
        said = serving.wait(1)
    require(words in said, f'"{words}" is not in: {said}')


def wait_missing(destination: Vm, below: int) -> None:
    wait_until(lambda: disk_total(destination, 'missing') < below,
               f'less than {below} bytes are missing')


def expect_rescued(scene: Scene, destination: Vm,
                   source: Optional[Vm] = None) -> None:
    """All is there, all is right, and the images are the guest's."""
    destination.wait_migration('completed')
    require(query(destination)['phase'] == 'completed',
            f'{query(destination)}')
    require(set(states(destination)) == {'current'}, f'{states(destination)}')
    for image in destination.images:
        require(not record(image).exists(), f'a record of {image.path}')
    scene.guest.wait_progress(writes=10, beats=10)
    scene.guest.stop()
    scene.guest.verify()
    scene.guest.command('flush')
    for image in source.images if source else []:
        require(not image.is_locked(), f'{image.path} is locked')
