# SPDX-License-Identifier: GPL-2.0-or-later
"""Images in a folder in which QEMU may not create files."""

import os
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

from dev.rig.basics import require, shared_library
from dev.rig.image import Image
from dev.rig.scene import Scene
from dev.rig.vm import MachineConfig, Vm

ATTRIBUTE = 'user.wsm'
NO_ATTRIBUTES = Path(__file__).with_name('no_attributes.c')
# Then modes of files count for root, too, as for the user of libvirt's QEMU
POWERLESS = ['setpriv', '--bounding-set=-all', '--inh-caps=-all']
# As /var/lib/libvirt/images is for others
CLOSED = 0o111


class PowerlessVm(Vm):
    """May do what its user may; the images are its user's."""

    def _popen(self, argv: list[str],
               stderr: Any) -> 'subprocess.Popen[bytes]':
        return super()._popen(POWERLESS + argv, stderr)


def close_folder(scene: Scene) -> None:
    """No QEMU that is started from now on may create a file there."""
    require(os.geteuid() == 0, 'only root gets at the images then')
    scene.vm_type = PowerlessVm
    scene.folder.chmod(CLOSED)


def without_attributes(scene: Scene, config: MachineConfig) -> MachineConfig:
    """QEMU believes that the file system has none."""
    library = shared_library(NO_ATTRIBUTES, scene.folder / 'no_attributes.so')
    return replace(config, environment=(('LD_PRELOAD', str(library)),))


def has_attribute(image: Image) -> bool:
    return ATTRIBUTE in os.listxattr(image.path)
