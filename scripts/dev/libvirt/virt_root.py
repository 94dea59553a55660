# SPDX-License-Identifier: GPL-2.0-or-later
"""Debian systems with libvirt in folders, one for each release.

Hosts lay a file system of their own above them, so they stay as they are.
"""

import shutil
from pathlib import Path
from typing import Optional

from dev import roots
from dev.common import BUILD, run, say

FOLDER = BUILD / "libvirt"
SUITES = ("bookworm", "trixie")
PACKAGES = """
    iproute2 libvirt-clients libvirt-daemon-system netcat-openbsd
    openssh-client openssh-server ovmf procps python3 qemu-system-x86
    qemu-utils swtpm swtpm-tools
""".split()
# Run in a root in which the repository is /shared
INSTALL = """
echo "deb [trusted=yes] file:/shared $1 main" >/etc/apt/sources.list.d/wsm.list
printf 'Package: *\\nPin: release o=qemu-wsm\\nPin-Priority: 1001\\n' \
    >/etc/apt/preferences.d/wsm
export DEBIAN_FRONTEND=noninteractive
apt-get -qq update
apt-get -qq -y --no-install-recommends install qemu-system-x86 qemu-utils
"""


def is_made(tree: Path, wanted: str) -> bool:
    """Return whether a root was made of what is @wanted."""
    stamp = tree.with_suffix(".made-of")
    return stamp.exists() and stamp.read_text(encoding="utf-8") == wanted


def stamp_it(tree: Path, wanted: str) -> None:
    """Note what a root was made of."""
    tree.with_suffix(".made-of").write_text(wanted, encoding="utf-8")


def make(suite: str, repository: Optional[Path] = None) -> Path:
    """
    Return the root of Debian @suite, made now unless it is there.

    It has Debian's QEMU, or that of the apt @repository.
    """
    tree = FOLDER / f"root-{suite}"
    wanted = " ".join(PACKAGES)
    if not is_made(tree, wanted):
        roots.make(tree, suite, PACKAGES)
        stamp_it(tree, wanted)
    return make_packaged(tree, suite, repository) if repository else tree


def make_packaged(below: Path, suite: str, repository: Path) -> Path:
    """Return a copy of the root @below with QEMU of @repository."""
    tree = FOLDER / f"root-{suite}-packages"
    release = repository / "dists" / suite / "Release"
    wanted = release.read_text(encoding="utf-8")
    if not is_made(tree, wanted):
        say(f"installing the packages of {repository} in Debian {suite}")
        shutil.rmtree(tree, ignore_errors=True)
        run(["cp", "-a", "--reflink=auto", below, tree])
        run(roots.command(tree, "sh", "-euc", INSTALL, "sh", suite,
                          shared=str(repository.resolve())))
        stamp_it(tree, wanted)
    return tree
