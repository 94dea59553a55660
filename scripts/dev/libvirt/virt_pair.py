# SPDX-License-Identifier: GPL-2.0-or-later
"""Two hosts with libvirt, alpha and beta, and the link between them."""

import os
import shutil
from pathlib import Path
from typing import Optional

from dev import roots
from dev.common import output
from dev.libvirt import virt_root
from dev.libvirt.virt_host import VirtHost
from dev.rig.host import Link

NAMES = ("alpha", "beta")


class Pair:
    """Both hosts; close() removes all that they have.

    They have the ends of @link, which is closed with them, or one of their own.
    """

    def __init__(self, tree: Path, link: Optional[Link] = None,
                 packaged: bool = False) -> None:
        self.folder = virt_root.FOLDER / f"run-{os.getpid()}"
        shutil.rmtree(self.folder, ignore_errors=True)
        self.shared = self.folder / "shared"
        self.shared.mkdir(parents=True)
        self.link = link or Link()
        self.hosts = [VirtHost(name, net, tree, self.folder / name,
                               self.shared, packaged)
                      for name, net in zip(NAMES, (self.link.a, self.link.b))]
        self.alpha, self.beta = self.hosts
        output(roots.command(tree, "ssh-keygen", "-q", "-t", "ed25519", "-N",
                             "", "-f", "/shared/key",
                             shared=str(self.shared)))

    def start(self) -> "Pair":
        """Start both hosts."""
        names = {host.name: host.net.address for host in self.hosts}
        for host in self.hosts:
            host.start(names)
        return self

    def close(self) -> None:
        """End both hosts; remove their files."""
        for host in self.hosts:
            host.close()
        self.link.close()
        shutil.rmtree(self.folder, ignore_errors=True)
