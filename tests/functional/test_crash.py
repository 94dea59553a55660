# SPDX-License-Identifier: GPL-2.0-or-later
"""Crashes, and what the guest had flushed then: some of tests/crash."""

from dataclasses import replace

from dev.rig.basics import require
from dev.rig.image import MIB
from dev.rig.scene import Scene
from dev.rig.vm import DiskConfig, MachineConfig
from tests.crash import matrix
from tests.crash.images import contents, expect_flushed
from tests.crash.load import begin_rounds
from tests.crash.flushed import Rounds, judge
from tests.functional.lib.registry import test

SMALL = MachineConfig((DiskConfig('vd0', size=16 * MIB),
                       DiskConfig('vd1', fmt='qcow2', size=16 * MIB)))


@test(SMALL, needs_wsm=False)
def rounds_are_as_told(scene: Scene) -> None:
    """What the guest writes in rounds, and what the checker makes of it."""
    source = scene.source()
    sectors = tuple(scene.guest.sectors())
    plan = Rounds(5, 8, sectors, (4096, 0), ((0, 8192), (1024, 8192)))
    begin_rounds(scene.guest, plan, 200)
    scene.guest.wait_rounds(200)
    source.kill()
    heard = scene.guest.rounds()
    verdict = expect_flushed(plan, heard, source.images, scene.folder)
    require(verdict.flushed >= heard, f'{verdict.flushed}, heard of {heard}')
    # It says so if a round has not come to pass, or of another guest
    disks = [contents(image, scene.folder) for image in source.images]
    require(judge(plan, verdict.flushed + 2, disks).wrong, 'a lost round')
    require(judge(replace(plan, seed=6), heard, disks).wrong, 'another seed')
    require(judge(plan, heard, disks[::-1]).wrong, 'exchanged disks')


# Some of the matrix, of each death
matrix.load(prefix='crash.', names=(
    'source.ready.raw', 'source.go-sent.iothread',
    'source.checkpoint.writethrough', 'destination.go-sent.multifd',
    'destination.record-removal.tls', 'both.before-commit.two-disks',
    'both.pull.qcow2', 'source-then-destination.have.direct',
    'destination-twice.guest-works.qcow2'))
matrix.load_power_cuts(prefix='crash.', count=20)
matrix.load_endings(prefix='crash.', count=3, names=('two-disks',))
