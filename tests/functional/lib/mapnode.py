# SPDX-License-Identifier: GPL-2.0-or-later
"""Maps of missing blocks on block nodes, and disks that are block devices."""

import contextlib
import fcntl
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dev.rig.basics import run, tool
from dev.rig.image import MIB, Image
from dev.rig.qmp import Json
from dev.rig.scene import Scene
from dev.rig.vm import Vm

MAP_BYTES = 4 * MIB
# <linux/loop.h>
LOOP_SET_FD, LOOP_CLR_FD, LOOP_CTL_GET_FREE = 0x4C00, 0x4C01, 0x4C82


@dataclass(frozen=True)
class MapNode:
    """A block node for a map, and the file in which its bytes are."""
    name: str
    path: Path
    fmt: str = 'raw'

    def create(self, size: int = MAP_BYTES) -> 'MapNode':
        run(tool('qemu-img'), 'create', '-q', '-f', self.fmt, str(self.path),
            str(size))
        return self

    def add(self, vm: Vm, **more: Any) -> 'MapNode':
        vm.qmp.cmd('blockdev-add', driver=self.fmt, node_name=self.name,
                   file=protocol(self.path), **more)
        return self

    def of(self, disk: str) -> Json:
        """Return what option "maps" has of it."""
        return {'disk': disk, 'node': self.name}

    def raw(self) -> Path:
        """Return a copy of its bytes; it may be in use."""
        if self.fmt == 'raw':
            return self.path
        path = self.path.with_suffix('.bytes')
        run(tool('qemu-img'), 'convert', '-U', '-f', self.fmt, '-O', 'raw',
            str(self.path), str(path))
        return path


def map_node(scene: Scene, name: str = 'map0', fmt: str = 'raw') -> MapNode:
    return MapNode(name, scene.folder / f'{name}.{fmt}', fmt).create()


def protocol(path: Path) -> Json:
    driver = 'host_device' if path.is_block_device() else 'file'
    return {'driver': driver, 'filename': str(path)}


class DeviceVm(Vm):
    """Its images may be block devices."""

    def _protocol(self, image: Image) -> Json:
        return protocol(image.path)


@contextlib.contextmanager
def loop_device(path: Path, size: int) -> Iterator[Path]:
    """A block device whose blocks are in a new file @path."""
    path.touch()
    os.truncate(path, size)
    with open('/dev/loop-control', 'rb') as control:
        number = fcntl.ioctl(control, LOOP_CTL_GET_FREE)
    device = Path(f'/dev/loop{number}')
    with open(path, 'rb+') as file, open(device, 'rb+') as loop:
        fcntl.ioctl(loop, LOOP_SET_FD, file.fileno())
        try:
            yield device
        finally:
            fcntl.ioctl(loop, LOOP_CLR_FD)
