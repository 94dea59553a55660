# SPDX-License-Identifier: GPL-2.0-or-later
"""Builds in a fresh Debian system, as Debian's own machines do them.

    build/package/SUITE/root      the system; /build in it has the sources
    build/package/SUITE/debs      what came out
    build/package/ccache          the compiler's cache, outlives the system
"""

import re
import shlex
import shutil
from pathlib import Path

from dev import debian, qemu, roots
from dev.common import Failure, run, say
from dev.package import control, debsource
from dev.package.versions import Suite

# Debian's own profiles for what is not ours: user emulation and Xen
PROFILES = ("pkg.qemu.omit-user", "pkg.qemu.omit-system-xen",
            "pkg.qemu.use-upstream-vdso")
PACKAGES = ["build-essential", "ccache", "fakeroot"]
CCACHE = debsource.FOLDER / "ccache"
WORK = "build"                  # in the root
SHELL = "set -eu; export DEBIAN_FRONTEND=noninteractive; "


class BuildRoot:
    """A Debian system in which packages for @suite are built."""

    def __init__(self, suite: Suite, all_targets: bool,
                 block_tests: bool) -> None:
        self.suite = suite
        self.tree = debsource.FOLDER / suite.name / "root"
        self.work = self.tree / WORK
        self.debs = debsource.FOLDER / suite.name / "debs"
        self.profiles = list(PROFILES)
        if not all_targets:
            self.profiles.append(control.X86_ONLY)
        if not block_tests:
            self.profiles.append("nocheck")
        self.block_tests = block_tests
        self.copied = suite.copied + all_targets * suite.copied_all
        self.copies: list[Path] = []

    def shell(self, script: str) -> None:
        """Run @script in the root, in /build."""
        CCACHE.mkdir(parents=True, exist_ok=True)
        self.work.mkdir(exist_ok=True)
        run(roots.command(self.tree, *roots.shell(
            f"/{WORK}", "sh", "-c", SHELL + script), shared=str(CCACHE)))

    def install(self, options: str) -> None:
        """Run apt-get with @options, without asking anybody."""
        self.shell(f"apt-get -qq -y --no-install-recommends {options}")

    def make(self, keep: bool) -> None:
        """Make the system; one that is there is used again if @keep."""
        if not (keep and self.tree.is_dir()):
            roots.make(self.tree, self.suite.name, PACKAGES)
        if self.suite.backports:
            main, _security = debian.mirrors()
            name = f"{self.suite.name}-backports"
            (self.tree / "etc/apt/sources.list.d/backports.list").write_text(
                f"deb {main} {name} main\n", encoding="utf-8")
        self.install("update")
        # QEMU's configure takes these, for which ccache makes no links
        self.shell("ln -sf ../../bin/ccache /usr/lib/ccache/cc; "
                   "ln -sf ../../bin/ccache /usr/lib/ccache/c++")

    def add_dependencies(self, dsc: Path) -> None:
        """Install what is needed to build @dsc."""
        say(f"{self.suite.name}: installing build dependencies")
        if self.suite.backports:
            self.install(f"install -t {self.suite.name}-backports "
                         + " ".join(self.suite.backports))
        if self.copies:
            for path in self.copies:
                shutil.copy(path, self.work)
            self.install("install " + " ".join(f"./{path.name}"
                                               for path in self.copies))
        profiles = ",".join(self.profiles)
        self.install(f"build-dep --arch-only -P {profiles} ./{dsc.name}")
        self.install("install debhelper dh-python")

    def fetch_copies(self) -> None:
        """Fetch what goes into the repository as it is in Debian 13."""
        where = debsource.FOLDER / self.suite.name / "copied"
        shutil.rmtree(where, ignore_errors=True)
        where.mkdir(parents=True)
        if self.copied:
            archive = debian.Archive()
            archive.update()
            for package in self.copied:
                archive.download_binary(package, where)
        for path in where.glob("*%3a*"):    # an epoch; no name in a pool
            path.rename(re.sub(r"_\d+%3a", "_", str(path)))
        self.copies = sorted(where.glob("*.deb"))

    def take_in(self, dsc: Path) -> None:
        """Put the files of the source package @dsc into /build, alone."""
        shutil.rmtree(self.work, ignore_errors=True)
        self.work.mkdir()
        for path in dsc.parent.iterdir():
            if path.is_file():
                shutil.copy(path, self.work)

    def build_qemu(self, dsc: Path) -> None:
        """Build the binary packages of @dsc, and their tests if wanted."""
        say(f"{self.suite.name}: building {dsc.name}; the log is "
            f"{self.work / 'log'}")
        options = f"parallel={qemu.jobs()} noautodbgsym"
        if not self.block_tests:
            options += " nocheck"
        self.shell(f"""
dpkg-source --extract {shlex.quote(dsc.name)} qemu >log
export PATH=/usr/lib/ccache:$PATH CCACHE_DIR=/shared
export CCACHE_BASEDIR=/{WORK} DEB_BUILD_OPTIONS={shlex.quote(options)}
cd qemu
dpkg-buildpackage -B -us -uc -P{','.join(self.profiles)} \
    >>../log 2>&1 || {{ tail -n 40 ../log; exit 1; }}
""")

    def build_tools(self) -> None:
        """Build the packages of our tools, source and all."""
        tree = debsource.make_tools(self.work)
        self.shell(f"""
cd {tree.name}
dpkg-buildpackage -us -uc >../log-tools 2>&1 ||
    {{ tail -n 40 ../log-tools; exit 1; }}
""")

    def take_out(self) -> Path:
        """Copy what was built to build/package/SUITE/debs; return that."""
        shutil.rmtree(self.debs, ignore_errors=True)
        self.debs.mkdir(parents=True)
        names = ("*.deb", "*.dsc", "*.tar.*", "*.changes", "*.buildinfo")
        for name in names:
            for path in self.work.glob(name):
                shutil.copy(path, self.debs)
        if not list(self.debs.glob("qemu-system-x86_*.deb")):
            raise Failure(f"{self.suite.name}: no package qemu-system-x86 "
                          "was built")
        return self.debs
