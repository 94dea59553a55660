# SPDX-License-Identifier: GPL-2.0-or-later
"""Debian systems with libvirt in folders, one for each release.

Hosts lay a file system of their own above them, so they stay as they are.
"""

import shutil
from pathlib import Path
from typing import Optional

from dev import roots
from dev.common import BUILD, run, say
from dev.package import debsource, repository, versions

FOLDER = BUILD / "libvirt"
PACKAGES = """
    iproute2 libvirt-clients libvirt-daemon-system netcat-openbsd
    openssh-client openssh-server ovmf procps python3 qemu-system-x86
    qemu-utils swtpm swtpm-tools
""".split()
# Run in a root that knows of a repository
INSTALL = """
export DEBIAN_FRONTEND=noninteractive
apt-get -qq update
apt-get -qq -y --no-install-recommends install qemu-system-x86 qemu-utils \
    qemu-system-modules-spice
"""


def make(suite: str, packages: Optional[Path] = None) -> Path:
    """
    Return the root of Debian @suite, made now unless it is there.

    It has Debian's QEMU, or that of the apt repository @packages.
    """
    tree = FOLDER / f"root-{suite}"
    roots.make_once(tree, " ".join(PACKAGES),
                    lambda: roots.make(tree, suite, PACKAGES))
    return make_packaged(tree, suite, packages) if packages else tree


def make_packaged(below: Path, suite: str, packages: Path) -> Path:
    """Return a copy of the root @below with the QEMU of @packages."""
    tree = FOLDER / f"root-{suite}-packages"

    def install() -> None:
        say(f"installing the packages of {packages} in Debian {suite}")
        shutil.rmtree(tree, ignore_errors=True)
        run(["cp", "-a", "--reflink=auto", below, tree])
        repository.add_to(tree, versions.SUITES[suite])
        shutil.copy(debsource.PACKAGING / "apt/qemu-wsm.pref",
                    tree / "etc/apt/preferences.d")
        run(roots.command(tree, "sh", "-euc", INSTALL,
                          shared=str(packages.resolve())))

    release = packages / "dists" / suite / "Release"
    roots.make_once(tree, " ".join(PACKAGES)
                    + release.read_text(encoding="utf-8"), install)
    return tree
