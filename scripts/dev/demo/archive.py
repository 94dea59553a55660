# SPDX-License-Identifier: GPL-2.0-or-later
"""Where this machine gets Debian from."""

from __future__ import annotations

import re
import subprocess
from dataclasses import dataclass

from dev.common import Failure

# apt settings of the host that its way to the archive may depend on.
APT_SETTINGS = re.compile(
    r'^Acquire::(http|https|Check-Date|Check-Valid-Until|Retries)\b.* "[^"]')

TARGET_FIELDS = ("$(ORIGIN)|$(LABEL)|$(CODENAME)|$(RELEASE)|$(COMPONENT)|"
                 "$(REPO_URI)|$(ARCHITECTURE)")


@dataclass(frozen=True)
class Archive:
    """Debian's archive as this machine's apt is configured to reach it."""

    suite: str
    sources: tuple[str, ...]
    settings: tuple[str, ...]


def find_archive() -> Archive:
    """Reads apt's configuration; loads the package lists if it has to."""
    targets = _debian_targets()
    if not targets:
        subprocess.run(["apt-get", "-q", "update"], check=False,
                       stdout=subprocess.DEVNULL)
        targets = _debian_targets()
    if not targets:
        raise Failure(
            "apt knows no Debian archive with packages for amd64. The demo "
            "makes its guest from there: run it on Debian 12 or 13 (amd64) "
            "with an entry for Debian in /etc/apt")
    # The main suite is the one that the others are named after.
    suite = min((release for release, _ in targets), key=len)
    sources = tuple(sorted({f"deb {uri} {release} main"
                            for release, uri in targets
                            if release.startswith(suite)}))
    dump = subprocess.run(["apt-config", "dump"], check=True, text=True,
                          stdout=subprocess.PIPE).stdout
    settings = tuple(line for line in dump.splitlines()
                     if APT_SETTINGS.match(line))
    return Archive(suite, sources, settings)


def _debian_targets() -> list[tuple[str, str]]:
    """Returns (release, URI) of the host's own Debian release in apt."""
    listing = subprocess.run(
        ["apt-get", "indextargets", "--format", TARGET_FIELDS,
         "Created-By: Packages"],
        check=True, text=True, stdout=subprocess.PIPE).stdout
    own = _own_codename()
    found = []
    for line in listing.splitlines():
        origin, label, codename, release, component, uri, machine = (
            line.split("|"))
        if (origin == "Debian" and label in ("Debian", "Debian-Security")
                and component == "main" and machine == "amd64"
                and codename.startswith(own)
                and not re.search("-(backports|proposed)", codename)):
            found.append((release, uri))
    return found


def _own_codename() -> str:
    with open("/etc/os-release", encoding="utf-8") as release:
        for line in release:
            if line.startswith("VERSION_CODENAME="):
                return line.split("=")[1].strip().strip('"')
    return ""
