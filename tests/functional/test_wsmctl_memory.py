# SPDX-License-Identifier: GPL-2.0-or-later
"""Moves by one command whose memory is not sent where it is known."""

import socket
from pathlib import Path
from typing import Any

from dev.rig.basics import require, wait_until
from dev.rig.cluster import VM, Cluster
from dev.rig.image import MIB
from dev.rig.qmp import Qmp
from dev.rig.scene import Scene
from dev.rig.vm import DiskConfig, MachineConfig
from tests.functional.lib.moves import LOAD, fill_half
from tests.functional.lib.registry import test

IN_MEMORY = 8 * MIB             # of the guest's disk


def referenced(cluster: Cluster, host: str, kind: str) -> int:
    """Bytes of memory that were not sent to the VM's QEMU at @host."""
    with socket.socket(socket.AF_UNIX) as stream:
        stream.connect(str(cluster.run_folder(host) / 'rescue.qmp'))
        qmp = Qmp(stream)
        kinds: list[dict[str, Any]] = qmp.cmd('query-wsm')['memory']['kinds']
        qmp.close()
    return sum(each['referenced'] for each in kinds if each['kind'] == kind)


@test(MachineConfig((DiskConfig(size=32 * MIB),)))
def wsmctl_memory(scene: Scene) -> None:
    """A VM whose description says so: by its disk, and back by its memory."""
    # On a link that is slow beside any host, so that references are worth it
    with Cluster(scene, mbit=60) as cluster:
        source = cluster.guest()
        fill_half(scene)
        scene.guest.keep(0, 0, IN_MEMORY)
        path = cluster.spec_path('alpha')
        path.write_text(path.read_text('utf-8')
                        + '\n[move]\nmemory = ["disk", "image"]\n', 'utf-8')
        scene.guest.start(**LOAD)
        cluster.ctl('migrate', VM)
        found = referenced(cluster, 'beta', 'disk')
        require(found > IN_MEMORY // 2, f'by the disk: {found}')
        source.wait_exit()
        image = source.images[0].path
        kept = image.with_name(f'{image.name}.wsm-memory')
        require(kept.exists(), f'{kept} is not there')
        cluster.expect_at('beta')
        cluster.ctl('migrate', VM, '--to', 'alpha')
        found = referenced(cluster, 'alpha', 'image')
        require(found > IN_MEMORY, f'by its memory: {found}')
        cluster.expect_at('alpha')
        wait_until(lambda: not kept.exists(), 'it is removed')
        expect_gone(cluster)


def expect_gone(cluster: Cluster) -> None:
    """An old copy goes with the memory beside it."""
    def beside() -> list[Path]:
        return list((cluster.folder('beta') / 'images').rglob('*.wsm-memory'))

    require(len(beside()) == 1, f'at beta: {beside()}')
    cluster.ctl('image', 'gc', '--keep', '0')
    require(not beside(), f'left at beta: {beside()}')
