# SPDX-License-Identifier: GPL-2.0-or-later
"""Debian packages: those the build needs, and Debian 13's own archive.

The archive is reached by a private apt configuration below build/apt, made
from the mirrors that this machine's apt uses already.  The machine's own
configuration stays as it is, and apt checks every signature.
"""

import os
import shutil
import subprocess
from pathlib import Path
from typing import Iterable

from dev.common import BUILD, Failure, output, run, say

SUITE = "trixie"

# What a build and the tests need beyond python3.  Whatever our programs call
# by name is from one of these, or essential: scripts/test has no other PATH.
PACKAGES = """
    bison build-essential ccache flex git iproute2 ipxe-qemu libaio-dev
    libcap-ng-dev libfdt-dev libfuse3-dev libglib2.0-dev libgnutls28-dev
    libpixman-1-dev libslirp-dev liburing-dev libzstd-dev memcached mmdebstrap
    mount ninja-build openssl pkg-config postgresql python3-aiohttp python3-distlib
    python3-prometheus-client python3-psycopg python3-venv quilt seabios socat
    xz-utils zlib1g-dev
""".split()

# What checks of our Python code need, and its tests over random input.
CHECK_PACKAGES = ["mypy", "python3-hypothesis"]

# What tests of the controller's page need; they are skipped without it.
BROWSER_PACKAGES = ["chromium"]

# What the fuzz target needs.
FUZZ_PACKAGES = ["clang", "libclang-rt-dev"]

KEYRINGS = [Path("/usr/share/keyrings") / name for name in
            ("debian-archive-keyring.gpg", "debian-archive-keyring.pgp")]


def missing(packages: list[str]) -> list[str]:
    """Return those of @packages that are not installed."""
    done = subprocess.run(
        ["dpkg-query", "-W", "-f", "${Package} ${db:Status-Status}\n"]
        + packages, check=False, text=True, capture_output=True)
    present = {line.split()[0] for line in done.stdout.splitlines()
               if line.endswith(" installed")}
    return [name for name in packages if name not in present]


def as_root() -> list[str] | None:
    """Return the words in front of a command that needs root, or None."""
    if os.geteuid() == 0:
        return ["env"]
    if shutil.which("sudo") and subprocess.run(
            ["sudo", "-n", "true"], check=False,
            stdin=subprocess.DEVNULL, capture_output=True).returncode == 0:
        return ["sudo", "-n"]
    return None


def install(packages: list[str]) -> None:
    """Install those of @packages that are missing; do nothing if none is."""
    absent = missing(packages)
    if not absent:
        return
    install_cmd = ["apt-get", "install", "-y", "--no-install-recommends"]
    root = as_root()
    if root is None:
        raise Failure("Debian packages are missing; as root, run:\n  "
                      + " ".join(install_cmd + absent))
    say("installing Debian packages: " + " ".join(absent))
    # Some other, broken source of this machine is no reason to stop here.
    subprocess.run(root + ["apt-get", "-q", "update"], check=False,
                   stdin=subprocess.DEVNULL)
    run(root + ["DEBIAN_FRONTEND=noninteractive"] + install_cmd + absent)


def index_targets() -> list[list[str]]:
    """Return [origin, label, mirror] of each package index."""
    text = output(["apt-get", "indextargets", "--format",
                   "$(ORIGIN)|$(LABEL)|$(SITE)",
                   "Created-By: Packages"])
    return [line.split("|") for line in text.splitlines()]


def mirrors() -> tuple[str, str | None]:
    """Return the addresses of the main and of the security archive or None."""
    targets = index_targets()
    if not targets and (root := as_root()):
        run(root + ["apt-get", "-q", "update"])
        targets = index_targets()
    main = security = None
    for origin, label, site in targets:
        if origin != "Debian":
            continue
        if label == "Debian-Security":
            security = security or site
        elif label == "Debian":
            main = main or site
    if main is None:
        raise Failure("this machine's apt knows no Debian archive: add one to "
                      "/etc/apt/sources.list.d and run 'apt-get update', or "
                      "put the files of Debian's source package qemu 10.0.* "
                      "into build/downloads")
    return main, security


class Archive:
    """Debian's SUITE, by a private apt configuration below build/apt."""

    def __init__(self) -> None:
        self.dir = BUILD / "apt"
        self.options = [
            "-o", "Dir::Etc::SourceList=/dev/null",
            "-o", f"Dir::Etc::SourceParts={self.dir}/sources",
            "-o", "Dir::Etc::Preferences=/dev/null",
            "-o", "Dir::Etc::PreferencesParts=/dev/null",
            "-o", f"Dir::State::Lists={self.dir}/lists",
            # What is installed here, our own packages perhaps, is no matter
            "-o", "Dir::State::Status=/dev/null",
            "-o", f"Dir::Cache={self.dir}/cache",
            "-o", "Acquire::Languages=none",
            "-o", "APT::Update::Error-Mode=any",
        ]

    def update(self) -> None:
        """Fetch SUITE's signed indices; needed before the other methods."""
        say(f"reading the package lists of Debian {SUITE}")
        for name in ("sources", "lists/partial", "cache/archives/partial"):
            (self.dir / name).mkdir(parents=True, exist_ok=True)
        (self.dir / "sources/debian.sources").write_text(
            self._sources(), encoding="utf-8")
        try:
            run(["apt-get", "-q"] + self.options + ["update"])
        except Failure as error:
            raise Failure(
                f"apt could not read Debian {SUITE}: see its messages above. "
                "If it names a missing key (NO_PUBKEY), this machine's "
                "package debian-archive-keyring is too old: upgrade it"
            ) from error

    @staticmethod
    def _sources() -> str:
        keyring = next((path for path in KEYRINGS if path.exists()), None)
        if keyring is None:
            raise Failure("install the package debian-archive-keyring: "
                          "the source's signature is checked with it")
        main, security = mirrors()
        entries = [(main, f"{SUITE} {SUITE}-updates")]
        if security:
            entries.append((security, f"{SUITE}-security"))
        return "\n".join(
            f"Types: deb deb-src\nURIs: {site}\nSuites: {suites}\n"
            f"Components: main\nSigned-By: {keyring}\n"
            for site, suites in entries)

    def source_versions(self, package: str) -> list[str]:
        """Return the versions of the source package @package."""
        text = output(["apt-cache"] + self.options
                      + ["showsrc", "--only-source", package])
        return [line.split()[1] for line in text.splitlines()
                if line.startswith("Version:")]

    def download_source(self, package: str, version: str, where: Path) -> None:
        """Put the files of a source package into the directory @where."""
        run(["apt-get", "-q"] + self.options
            + ["source", "--download-only", f"{package}={version}"], cwd=where)

    def download_binary(self, package: str, where: Path) -> None:
        """Put the newest .deb of @package into the directory @where."""
        run(["apt-get", "-q"] + self.options + ["download", package],
            cwd=where)


def newer(left: str, right: str) -> bool:
    """Return whether Debian version @left is newer than @right."""
    return subprocess.run(["dpkg", "--compare-versions", left, "gt", right],
                          check=False).returncode == 0


def newest(versions: Iterable[str]) -> str | None:
    """Return the newest of the Debian versions @versions, None if none."""
    best = None
    for version in versions:
        if best is None or newer(version, best):
            best = version
    return best
