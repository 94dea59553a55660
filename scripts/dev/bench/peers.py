# SPDX-License-Identifier: GPL-2.0-or-later
"""The way back with what users have, for the same unique writes.

A stock mirror copies everything again.  rsync finds what differs; it needs a
guest that stands still, and moves the disk alone.
"""

import subprocess
import time
from pathlib import Path
from types import TracebackType
from typing import Optional

from dev import debian
from dev.bench.journeys import BLOCK, Journey, back_after_writes, copy_there
from dev.bench.methods import MIRROR
from dev.bench.moving import attempt
from dev.bench.sample import Sample, Samples
from dev.bench.settings import Settings
from dev.rig.basics import TestFailure, run, wait_until
from dev.rig.host import Host
from dev.rig.image import MIB, Image

RSYNC = 'rsync'
RSYNC_PORT = 8873


class Daemon:
    """rsync's, for one folder of a host; use as a context."""

    def __init__(self, host: Host, folder: Path) -> None:
        self.host = host
        self.url = f'rsync://{host.address}:{RSYNC_PORT}/images'
        self._config = folder / 'rsyncd.conf'
        self._config.write_text(
            f'use chroot = no\nuid = 0\ngid = 0\n'
            f'[images]\npath = {folder}\nread only = no\n', 'utf-8')
        self._process: Optional['subprocess.Popen[bytes]'] = None

    def _answers(self) -> bool:
        try:
            run(*self.host.prefix(), RSYNC, self.url)
        except TestFailure:
            return False
        return True

    def __enter__(self) -> 'Daemon':
        # pylint: disable-next=consider-using-with
        self._process = subprocess.Popen(
            [*self.host.prefix(), RSYNC, '--daemon', '--no-detach',
             f'--address={self.host.address}', f'--port={RSYNC_PORT}',
             f'--config={self._config}'], stdin=subprocess.DEVNULL)
        wait_until(self._answers, 'rsync daemon')
        return self

    def __exit__(self, _kind: Optional[type[BaseException]],
                 _value: Optional[BaseException],
                 _where: Optional[TracebackType]) -> None:
        assert self._process is not None
        self._process.terminate()
        self._process.wait()


def differing(one: Path, other: Path) -> int:
    """Bytes of the blocks that differ."""
    count = 0
    with open(one, 'rb') as left, open(other, 'rb') as right:
        while a := left.read(MIB):
            b = right.read(MIB)
            if a != b:
                count += sum(a[i:i + BLOCK] != b[i:i + BLOCK]
                             for i in range(0, len(a), BLOCK))
    return count * BLOCK


def rsync_back(journey: Journey, copy: Image) -> Sample:
    """Make the copy equal; the guest stands still."""
    link, here = journey.scene.link, journey.here.images[0].path
    assert link is not None
    sample = Sample(RSYNC, 'idle')
    journey.here.qmp.cmd('stop')
    sample.numbers['differs'] = differing(here, copy.path)
    with Daemon(link.b, copy.path.parent) as daemon:
        sent = link.a.sent_bytes() + link.b.sent_bytes()
        begun = time.monotonic()
        run(*link.a.prefix(), RSYNC, '--inplace', '--no-whole-file',
            '--ignore-times', '-B', str(BLOCK), str(here),
            f'{daemon.url}/{copy.path.name}')
        sample.numbers['seconds'] = time.monotonic() - begun
        sample.numbers['both ways'] = (link.a.sent_bytes()
                                       + link.b.sent_bytes() - sent)
    sample.wrong = differing(here, copy.path) // BLOCK
    journey.here.qmp.cmd('cont')
    return sample


def peers_after_writes(settings: Settings) -> Samples:
    """The other host has what the guest had before the writes."""
    with Journey(settings, load=False, way=MIRROR) as journey:
        copy = copy_there(journey)
        for written in settings.back_writes:
            journey.write_unique(written)
            yield f'{RSYNC} {written}', rsync_back(journey, copy)
        journey.write_unique(settings.back_writes[-1])
        sample = journey.go()
        journey.finish(sample)
        yield MIRROR, sample


def section_back(settings: Settings) -> Samples:
    """The way back after some unique writes, the guest being idle then."""
    debian.install(['rsync'])
    for _ in range(settings.rounds):
        yield from attempt('0', lambda: back_after_writes(settings))
        yield from attempt(MIRROR, lambda: peers_after_writes(settings))


PEER_SECTIONS = {'back': section_back}
