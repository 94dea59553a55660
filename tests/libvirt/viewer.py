# SPDX-License-Identifier: GPL-2.0-or-later
"""Somebody looks at the screen of a guest that libvirt moves."""

import shutil

from dev.common import ROOT
from dev.libvirt.virt_guest import Domain
from dev.libvirt.virt_host import VirtHost
from dev.libvirt.virt_scene import VirtScene
from dev.rig.basics import Skip, require, wait_until
from tests.libvirt.cases import LOAD, QCOW2, SLOW_DISK, ended

SCREEN = ROOT / "packaging/qemu/tests/wsm-screen"
FIRST_PORT = 5900               # of VNC's display 0


class Viewer:
    """A client of VNC that looks at the guest's screen at a host."""

    def __init__(self, scene: VirtScene, host: VirtHost) -> None:
        self.host = host
        self.log = f"/tmp/viewer-{host.name}"
        display = host.check("virsh", "-q", "vncdisplay", scene.domain.name)
        port = FIRST_PORT + int(display.rsplit(":", 1)[1])
        host.check("rm", "-f", self.log)
        shutil.copy(SCREEN, host.top / "root")
        # It ends with the host
        host.popen("sh", "-c",
                   f"/root/{SCREEN.name} vnc {port} >{self.log} 2>&1")

    def said(self) -> list[str]:
        """Return the lines that it has printed."""
        return self.host.run("cat", self.log).out.splitlines()

    def wait(self, word: str, since: int = 0) -> None:
        """Wait for a line that begins with @word, after so many others."""
        wait_until(lambda: any(line.startswith(word)
                               for line in self.said()[since:]),
                   f"the viewer at {self.host.name} says {word}")

    def wait_sees(self) -> None:
        """Wait until it is sent more of the screen."""
        self.wait("picture", len(self.said()))


def vnc_client(scene: VirtScene) -> None:
    """Somebody looks by VNC while the guest moves, there and back."""
    if not scene.packaged:
        raise Skip("the QEMU of the build has no VNC; use --packages")
    scene.start().boot(Domain(disks=(QCOW2,), vnc=True))
    viewer = Viewer(scene, scene.alpha)
    for host in scene.pair.hosts:
        viewer.wait("picture")
        scene.guest.start(**LOAD)
        scene.slow(host, **SLOW_DISK)
        process = scene.move(host)
        scene.wait_phase(host, "disk-precopy")
        viewer.wait_sees()
        scene.slow(host, bandwidth=0)
        require(not ended(scene, process).status, "it did not move")
        # libvirt has ended QEMU there
        viewer.wait("closed")
        scene.note(f"at {host.name}: " + ", ".join(
            line for line in viewer.said() if "picture" not in line))
        scene.expect_state(host, "")
        viewer = Viewer(scene, scene.other(host))
        viewer.wait("picture")
        scene.verify()
