# SPDX-License-Identifier: GPL-2.0-or-later
"""The packages, tried in a fresh Debian: in, back to Debian's, in again.

The guest of packaging/qemu/tests/wsm-guest runs meanwhile.
"""

import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Callable

from dev import debian, roots, source
from dev.common import Failure, say
from dev.package import debsource, lint, repository, versions
from dev.package.versions import Suite
from dev.results import NOT_OK, OK, Results
from dev.rig.basics import TestFailure, require

# A host with all that belongs to a QEMU for PCs
QEMU = ("qemu-system-x86 qemu-system-common qemu-utils qemu-block-extra "
        "qemu-system-gui qemu-system-modules-spice "
        "qemu-system-modules-opengl qemu-system-data seabios")
OURS = "qemu-wsm-tools qemu-wsm-agent qemu-wsm-controller qemu-wsm-pin"
SPICE_CLIENT = "python3-gi gir1.2-spiceclientglib-2.0"
MACHINES = ("q35", "pc", "microvm")
PRELUDE = """
set -eu
export DEBIAN_FRONTEND=noninteractive
install="apt-get -qq -y --no-install-recommends install"
guest="python3 /root/wsm-guest"
"""
INSTALL = f"""
apt-get -qq update
$install {QEMU} {OURS} >/dev/null
"""
# As docs/install.md has it
GO_BACK = f"""
rm -f /{repository.SOURCES}
apt-get -qq -y purge qemu-wsm-pin >/dev/null
apt-get -qq update
rm -f /usr/share/doc/qemu-system-x86
$install --allow-downgrades $(
    for package in $(dpkg-query -W -f '${{Package}} ${{Version}}\\n' |
                     sed -n 's/ .*+wsm.*//p') seabios qemu-system-data; do
        apt-cache madison $package | awk 'NR == 1 {{ print $1 "=" $3 }}'
    done) >/dev/null
"""
# Our programs and manual pages; the agent starts with its host
TOOLS = """
for each in wsm-finish.1 wsm-info.1 wsm-serve.1 virsh-wsm.1 \
    wsm-templates.1 wsmctl.1 wsm-agent.8 wsm-controller.8; do
    ${each%.*} --help >/dev/null
    test -s /usr/share/man/man${each#*.}/$each.gz
done
test -e /etc/systemd/system/multi-user.target.wants/wsm-agent.service
test -e /etc/systemd/system/multi-user.target.wants/wsm-controller.service
getent passwd wsm-controller >/dev/null
"""
# A package that only claims to be Debian's next
NEXT = r"""
folder=$(mktemp -d)
chmod 755 $folder
cd $folder
mkdir -p next/DEBIAN
cat >next/DEBIAN/control <<EOF
Package: qemu-system-x86
Version: $1
Architecture: amd64
Maintainer: nobody <nobody@example.org>
Description: none
EOF
dpkg-deb -b next next.deb >/dev/null
{ cat next/DEBIAN/control
  echo Filename: ./next.deb
  stat -c 'Size: %s' next.deb
  sha256sum next.deb | sed 's/^/SHA256: /; s/  .*//'
} >Packages
echo "deb [trusted=yes] file:$folder ./" >/etc/apt/sources.list.d/next.list
apt-get -qq update
candidate() {
    apt-cache "$@" policy qemu-system-x86 | sed -n 's/ *Candidate: //p'
}
candidate
mkdir none
candidate -o Dir::Etc::PreferencesParts=$folder/none
rm /etc/apt/sources.list.d/next.list
apt-get -qq update
"""
# Of each package the newest version that is not ours
OWN = r"""
mkdir -p /root/debian/own
cd /root/debian/own
for package; do
    version=$(apt-cache madison $package |
              awk '$3 !~ /wsm/ && !found { print $3; found = 1 }')
    if dpkg --compare-versions "$version" gt 1:0; then
        apt-get -qq download $package=$version 2>/dev/null
    fi
done
"""


@dataclass
class Trial:
    """A Debian system in which the packages for @suite are tried."""

    results: Results
    suite: Suite

    @property
    def tree(self) -> Path:
        """Where the system is."""
        return debsource.FOLDER / self.suite.name / "trial"

    def shell(self, script: str, *words: str) -> str:
        """Run @script in the system; return what it prints."""
        done = subprocess.run(
            roots.command(self.tree, "sh", "-c", PRELUDE + script, "sh",
                          *words, shared=str(repository.FOLDER)),
            check=False, text=True, stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        if done.returncode:
            print(done.stdout)
            last = (done.stdout.splitlines() or ["no output"])[-1]
            raise TestFailure(f"exit status {done.returncode}: {last}")
        return done.stdout

    def make(self) -> None:
        """Make the system; it has no QEMU and does not know us yet."""
        roots.make(self.tree, self.suite.name, ["python3", "procps"])
        policy = self.tree / "usr/sbin/policy-rc.d"
        policy.write_text("#!/bin/sh\nexit 101\n", encoding="utf-8")
        policy.chmod(0o755)
        for path in (debsource.PACKAGING / "qemu/tests").glob("wsm-*"):
            shutil.copy(path, self.tree / "root")

    def installed(self, package: str) -> str:
        """
        Return which version of @package is installed.

        That there is none is told in other words, and may be only if apt
        knows of none: Debian 12 has fewer packages.
        """
        return self.shell("dpkg-query -W -f '${Version}' \"$1\" 2>&1 || "
                          "test -z \"$(apt-cache madison \"$1\")\"", package)

    def expect_ours(self, ours: bool) -> None:
        """Check whose packages are installed, and that they are whole."""
        for package in QEMU.split():
            version = self.installed(package)
            if package in ("seabios", "qemu-system-data"):
                continue
            require(("+wsm" in version) == ours, f"{package} is {version}")
        said = self.shell("qemu-system-x86_64 --version").splitlines()[0]
        require(("qemu-wsm" in said) == ours, said)
        changed = self.shell("dpkg --verify")
        require(not changed, f"dpkg --verify: {changed}")

    # The cases

    def fresh(self) -> None:
        """Install ours where no QEMU was."""
        repository.add_to(self.tree, self.suite)
        self.shell(INSTALL)
        self.expect_ours(True)

    def moves(self) -> None:
        """Move a guest from one QEMU to another, with -sandbox on."""
        for machine in MACHINES:
            print(f"# {machine}:", self.shell("$guest move $1", machine))

    def tools(self) -> None:
        """What goes with it works where it is installed."""
        said = self.shell("truncate -s 1M /tmp/a.raw; wsm-info /tmp/a.raw")
        require("current" in said, said)
        self.shell(TOOLS)
        require(self.shell("find /usr/share/qemu-wsm -name '*.pyc' | "
                           "head -n 1; dpkg --verify qemu-wsm-tools"),
                "no compiled modules")

    def agents(self) -> None:
        """Let wsmctl move a guest there and back, between two agents."""
        print(self.shell("$guest agents"))

    def screens(self) -> None:
        """Move a guest that clients of VNC and SPICE look at."""
        print(self.shell(f"$install {SPICE_CLIENT} >/dev/null; "
                         "$guest screens"))

    def pinned(self) -> None:
        """Debian's next version is not taken, and would be without a pin."""
        ours = self.installed("qemu-system-x86")
        later = f"{versions.base_of(ours)}.1"
        candidates = self.shell(NEXT, later).split()
        require(candidates == [ours, later], f"apt would take {candidates}")

    def back(self) -> None:
        """Go back to Debian's while a guest of ours runs."""
        print(self.shell("$guest during sh -euc \"$1\"", PRELUDE + GO_BACK))
        self.expect_ours(False)

    def upgrade(self) -> None:
        """Go from Debian's to ours while a guest of Debian's runs."""
        repository.add_to(self.tree, self.suite)
        print(self.shell("$guest during sh -euc \"$1\"", PRELUDE + INSTALL))
        self.expect_ours(True)

    def autopkgtest(self) -> None:
        """The test in the source package."""
        dsc, = self.pooled("qemu_*.dsc")
        print(self.shell(
            "$install autopkgtest >/dev/null; cd /root; autopkgtest "
            "--no-built-binaries --test-name=wsm-move \"$1\" -- null", dsc))

    def pooled(self, pattern: str) -> list[str]:
        """Return files of the repository, as seen in the system."""
        return [f"/shared/{path.relative_to(repository.FOLDER)}" for path in
                sorted(repository.pool(self.suite).glob(pattern))]

    def lintian(self) -> None:
        """Lintian has no more to say of ours than of Debian's."""
        ours = self.pooled("*wsm*.deb")
        names = [Path(path).name.split("_")[0] for path in ours]
        self.shell("$install lintian >/dev/null")
        theirs = self.told(self.debians(names))
        if self.suite.suffix:           # what comes of its own debhelper
            theirs |= self.told(self.own(names))
        told = self.told([*ours, *self.pooled("*.dsc")])
        print(f"# lintian: {sum(told.values())} tags, Debian's packages "
              f"have {sum(theirs.values())}")
        if new := lint.more(told, theirs):
            print("\n".join(f"# {line}" for line in new))
            raise TestFailure(f"{len(new)} tags more than Debian's")

    def told(self, files: list[str]) -> lint.Tags:
        """
        Return what lintian tells of packages, by their names there.

        It unpacks them in memory: on a disk that is told of each file that
        goes, to remove them takes longer than all else.
        """
        return lint.tags(self.shell(
            "mount -t tmpfs tmpfs /tmp; cd /root/debian; "
            f"{lint.COMMAND} \"$@\"", *files))

    def own(self, names: list[str]) -> list[str]:
        """Fetch this release's own packages @names, as far as it has them."""
        self.shell(OWN, *names)
        where = self.tree / "root/debian/own"
        return [f"own/{path.name}" for path in sorted(where.glob("*.deb"))]

    def debians(self, names: list[str]) -> list[str]:
        """Put Debian 13's packages @names, and QEMU's source, into /root."""
        where = self.tree / "root/debian"
        shutil.rmtree(where, ignore_errors=True)
        where.mkdir()
        archive = debian.Archive()
        archive.update()
        for name in names:
            if not name.startswith("qemu-wsm"):
                archive.download_binary(name, where)
        dsc = source.fetch()
        for path in dsc.parent.glob("qemu_*"):
            shutil.copy(path, where)
        return [*sorted(path.name for path in where.glob("*.deb")), dsc.name]

    def run(self) -> None:
        """Run all cases, as far as one that fails lets the next ones run."""
        if repository.version(self.suite) is None:
            raise Failure(f"there are no packages for {self.suite.name}: run "
                          "scripts/package first")
        self.make()
        for number, case in enumerate((
                self.fresh, self.moves, self.tools, self.agents, self.screens,
                self.pinned, self.back, self.upgrade, self.moves,
                self.autopkgtest, self.lintian)):
            self.run_case(f"{self.suite.name}:{number}-{case.__name__}", case)

    def run_case(self, name: str, case: Callable[[], None]) -> None:
        """Run @case, and say what came of it."""
        say(name)
        try:
            case()
        except (TestFailure, Failure) as error:
            self.results.add(NOT_OK, name, str(error).split("\n", 1)[0])
        else:
            self.results.add(OK, name)
