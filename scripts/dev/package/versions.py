# SPDX-License-Identifier: GPL-2.0-or-later
"""Debian releases that packages are made for, and what they are called.

A version says both what it is made from and which packaging of ours it is:
1:10.0.13+ds-0+deb13u1 becomes 1:10.0.13+ds-0+deb13u1+wsm2, and for Debian 12
1:10.0.13+ds-0+deb13u1+wsm2~deb12.  So it is newer than Debian's own and
older than Debian's next, and an upgrade of the host to Debian 13 takes that
one's package.
"""

import re
from dataclasses import dataclass

from dev.common import Failure

OURS = re.compile(r"(.+)\+wsm([0-9]+)(~deb[0-9]+)?")


@dataclass(frozen=True)
class Suite:
    """A Debian release."""

    name: str
    suffix: str = ""            # of our version
    # What it lacks: features whose library it does not have, what is taken
    # from its backports to build, and from Debian 13 to install
    without: tuple[str, ...] = ()
    backports: tuple[str, ...] = ()
    copied: tuple[str, ...] = ()
    copied_all: tuple[str, ...] = ()    # these, too, with all targets


SUITES = {suite.name: suite for suite in [
    Suite("trixie"),
    Suite("bookworm", "~deb12", ("blkio",), ("meson",),
          ("seabios", "qemu-system-data"), ("opensbi",)),
]}


def packaged(debian: str, revision: str, suite: Suite) -> str:
    """Return the version of our package made from Debian's @debian."""
    if not re.fullmatch(r"[0-9]+", revision):
        raise Failure(f"'{revision}' is no revision of our packaging: "
                      "a number is wanted")
    return f"{debian}+wsm{revision}{suite.suffix}"


def base_of(version: str) -> str:
    """Return the version of Debian's that our package is made from."""
    found = OURS.fullmatch(version)
    if not found:
        raise Failure(f"'{version}' is no version of ours: it has no '+wsm'")
    return found[1]


def without_epoch(version: str) -> str:
    """Return a version as it is in the names of files."""
    return version.split(":", 1)[-1]
