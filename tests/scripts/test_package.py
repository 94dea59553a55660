# SPDX-License-Identifier: GPL-2.0-or-later
"""Tests of what is decided about Debian packages, without making any."""

import os
import re
import shutil
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path
from unittest import mock

from dev import checks, debian
from dev.common import ROOT, Failure
from dev.package import (changelog, control, debsource, lint, overlay,
                         repository, versions)

TRIXIE = versions.SUITES["trixie"]
BOOKWORM = versions.SUITES["bookworm"]
THEIRS = "1:10.0.13+ds-0+deb13u1"

CHANGELOG = """\
qemu (1:10.0.13+ds-0+deb13u1) trixie; urgency=medium

  * new upstream release:
   - something

 -- Somebody <somebody@example.org>  Sat, 29 Aug 2026 20:55:40 +0300

qemu (1:10.0.12+ds-0+deb13u1) trixie; urgency=high

  * older

 -- Somebody <somebody@example.org>  Sat, 27 Jun 2026 20:55:40 +0300
"""

CONTROL = """\
Source: qemu
:debian:Maintainer: Debian QEMU Team <team@example.org>
:ubuntu:Maintainer: Others <others@example.org>
Build-Depends:
# --enable-blkio\t:system-arch-linux-64:
 libblkio-dev\t       [:system-arch-linux-64:],
# --enable-brlapi\t:system-arch:
 libbrlapi-dev         [:system-arch:],

Package: qemu-system
Build-Profiles: <!pkg.qemu.omit-system>

Package: qemu-system-common
Build-Profiles: <!pkg.qemu.omit-system>
Breaks: libvirt-daemon (<< 7.2.0-1)
Depends: ${misc:Depends}

Package: qemu-system-x86
Build-Profiles: <!pkg.qemu.omit-system>
""" + "".join(f"""
Package: qemu-system-{name}
Build-Profiles: <!pkg.qemu.omit-system>
""" for name in "misc arm mips ppc riscv s390x sparc".split())

CONTROL_MK = """\
system-packages := arm x86 misc

# Host architectures we produce packages for.
system-arch-linux = amd64
"""

RULES = """\
enable-system = $(if $(filter qemu-system,${BUILD_PACKAGES}),y)
PKGVERSION = Debian ${DEB_VERSION}
echo 'qemu:Provides=$(if $3,qemu-system-native)'
"""

LINTIAN_THEIRS = """\
W: qemu source: no-nmu-in-changelog [debian/changelog:1]
W: qemu-utils: groff-message 1 [usr/share/man/man1/a.1.gz:1]
W: qemu-utils: groff-message 2 [usr/share/man/man1/a.1.gz:1]
I: qemu-system-x86: hardening-no-fortify-functions [usr/bin/a]
N: a note
"""
LINTIAN_OURS = """\
W: qemu-utils: groff-message 1 [usr/share/man/man1/b.1.gz:1]
W: qemu source: no-nmu-in-changelog [debian/changelog:1]
W: qemu source: no-nmu-in-changelog [debian/changelog:9]
E: qemu-wsm-tools: no-copyright-file
"""

PACKAGES = """\
Package: qemu-utils
Version: 1:9

Package: qemu-system-x86
Depends: a, b: c
Version: 1:10.0.13+ds-0+deb13u1+wsm1
Description: first
 Version: 7

"""


class VersionTest(unittest.TestCase):
    """What our packages are called."""

    def test_both_ways(self) -> None:
        """A version tells from what it was made, and by which packaging."""
        for suite, suffix in ((TRIXIE, ""), (BOOKWORM, "~deb12")):
            version = versions.packaged(THEIRS, "12", suite)
            self.assertEqual(version, f"{THEIRS}+wsm12{suffix}")
            self.assertEqual(versions.base_of(version), THEIRS)
            found = versions.OURS.fullmatch(version)
            self.assertEqual(found and found[2], "12")

    def test_order(self) -> None:
        """Debian's, ours for Debian 12, for 13, our next, Debian's next."""
        order = [THEIRS,
                 versions.packaged(THEIRS, "9", BOOKWORM),
                 versions.packaged(THEIRS, "9", TRIXIE),
                 versions.packaged(THEIRS, "10", BOOKWORM),
                 "1:10.0.13+ds-0+deb13u2"]
        for older, newer in zip(order, order[1:]):
            self.assertTrue(debian.newer(newer, older), f"{newer} > {older}")

    def test_refused(self) -> None:
        """What is no version or no revision of ours."""
        for version in (THEIRS, f"{THEIRS}+wsm", f"{THEIRS}+wsm1+b1", ""):
            with self.assertRaises(Failure):
                versions.base_of(version)
        for revision in ("", "1.2", "1~"):
            with self.assertRaises(Failure):
                versions.packaged(THEIRS, revision, TRIXIE)


class ChangelogTest(unittest.TestCase):
    """Entries are read and put in front."""

    def test_newest(self) -> None:
        """The entry at the top, and nothing of the next."""
        entry = changelog.newest(CHANGELOG)
        self.assertEqual(
            (entry.source, entry.version, entry.suite, entry.who),
            ("qemu", THEIRS, "trixie", "Somebody <somebody@example.org>"))
        self.assertEqual(entry.changes,
                         "  * new upstream release:\n   - something\n")
        self.assertEqual(entry.text(), CHANGELOG.split("\nqemu ", maxsplit=1)[0])

    def test_put_before(self) -> None:
        """What was there stays as it was, behind an empty line."""
        entry = changelog.Entry("qemu", "2", "trixie", "  * ours\n",
                                "A <a@example.org>", "today")
        text = changelog.put_before(entry, CHANGELOG)
        self.assertEqual(changelog.newest(text), entry)
        self.assertTrue(text.endswith(f"today\n\n{CHANGELOG}"))

    def test_refused(self) -> None:
        """What is no changelog."""
        for text in ("", "qemu 1.2\n", CHANGELOG.splitlines()[0] + "\n"):
            with self.assertRaises(Failure):
                changelog.newest(text)

    def test_ours(self) -> None:
        """The one that we keep can be used."""
        entry = debsource.our_entry()
        self.assertEqual(entry.source, debsource.TOOLS)
        versions.packaged(THEIRS, entry.version, TRIXIE)
        self.assertTrue(entry.changes.startswith("  * "))


class ControlTest(unittest.TestCase):
    """The edits of Debian's packaging."""

    def test_profiles(self) -> None:
        """All emulators but those of PCs can be left out."""
        text = control.control_in(CONTROL, "We <we@example.org>")
        for package in ("qemu-system", "qemu-system-arm",
                        "qemu-system-sparc"):
            begin, end = control.stanza(text, package)
            self.assertIn(f"!pkg.qemu.omit-system !{control.X86_ONLY}>",
                          text[begin:end])
        begin, end = control.stanza(text, "qemu-system-x86")
        self.assertNotIn(control.X86_ONLY, text[begin:end])

    def test_together(self) -> None:
        """What is of another build is not kept beside ours."""
        text = control.control_in(CONTROL, "We <we@example.org>")
        begin, end = control.stanza(text, "qemu-system-common")
        self.assertIn("Recommends: qemu-wsm-pin\n"
                      "Breaks: libvirt-daemon (<< 7.2.0-1),\n"
                      " qemu-block-extra (<< ${binary:Version}),\n"
                      " qemu-block-extra (>> ${binary:Version}),\n"
                      " qemu-utils (<< ${binary:Version}),\n"
                      " qemu-utils (>> ${binary:Version}),\n"
                      "Depends:", text[begin:end])

    def test_maintainer(self) -> None:
        """Users turn to us; whose work it was is kept."""
        text = control.control_in(CONTROL, "We <we@example.org>")
        self.assertIn("\n:debian:# Debian's package is that of: Debian QEMU "
                      "Team <team@example.org>\n"
                      ":debian:Maintainer: We <we@example.org>\n", text)

    def test_without(self) -> None:
        """A feature goes with its library, the next one stays."""
        text = control.control_in(CONTROL, "We", ("blkio",))
        self.assertNotIn("blkio", text)
        self.assertIn("\n# --enable-brlapi\t:system-arch:\n libbrlapi", text)
        with self.assertRaises(Failure):
            control.control_in(CONTROL, "We", ("rbd",))

    def test_targets(self) -> None:
        """The list of targets is changed after Debian has set it."""
        text = control.control_mk(CONTROL_MK)
        self.assertLess(text.index("system-packages := arm"),
                        text.index("system-packages := x86\n"))
        self.assertIn("endif\n\n# Host architectures we", text)
        self.assertIn("${DEB_BUILD_PROFILES}))\n", text)

    def test_rules(self) -> None:
        """QEMU says what it is, and so do its packages."""
        text = control.rules(RULES, "qemu-wsm 0.4")
        self.assertIn("PKGVERSION = qemu-wsm 0.4, Debian ${DEB_VERSION}\n",
                      text)
        self.assertIn("filter qemu-system-x86,${BUILD_PACKAGES}", text)
        self.assertIn("Provides=qemu-wsm (=${DEB_VERSION})${comma} $(if",
                      text)

    def test_moved(self) -> None:
        """What Debian has changed is not passed over."""
        for edit, text in ((control.control_mk, ""),
                           (control.control_mk, CONTROL_MK * 2),
                           (lambda text: control.rules(text, "x"),
                            RULES.replace("PKGVERSION", "VERSION")),
                           (lambda text: control.control_in(text, "x"),
                            CONTROL.replace("qemu-system-ppc", "other")),
                           (lambda text: control.control_in(text, "x"),
                            CONTROL.replace("Breaks", "Conflicts"))):
            with self.assertRaisesRegex(Failure, "packaging has changed"):
                edit(text)


class OverlayTest(unittest.TestCase):
    """Our files as a patch."""

    def test_new_file(self) -> None:
        """Each line is added, also one that does not end."""
        self.assertEqual(
            overlay.new_file("a/b.c", b"one\f\n\ntwo"),
            "--- /dev/null\n+++ b/a/b.c\n@@ -0,0 +1,3 @@\n"
            "+one\f\n+\n+two\n\\ No newline at end of file\n")

    def test_refused(self) -> None:
        """A patch cannot make these."""
        for data in (b"", b"\xff\0"):
            with self.assertRaises(Failure):
                overlay.new_file("a", data)

    def test_order(self) -> None:
        """The same files make the same patch."""
        one, two = Path(__file__), Path(overlay.__file__)
        self.assertEqual(overlay.new_files({"a": one, "b": two}),
                         overlay.new_files({"b": two, "a": one}))

    def test_series(self) -> None:
        """Ours come behind Debian's: first the files, then the hooks."""
        with tempfile.TemporaryDirectory() as name:
            (Path(name) / "patches").mkdir()
            listed = Path(name) / "patches/series"
            listed.write_text("theirs.patch\n", encoding="utf-8")
            overlay.add_patches(Path(name))
            lines = listed.read_text(encoding="utf-8").splitlines()
            for line in lines[1:]:
                self.assertTrue((Path(name) / "patches" / line).is_file())
        self.assertEqual(lines[:2],
                         ["theirs.patch", f"wsm/{overlay.NAME}"])
        self.assertGreater(len(lines), 10)


class LintTest(unittest.TestCase):
    """Lintian's tags are counted for each package."""

    def test_more(self) -> None:
        """More of one tag, and a new one; what is less does not matter."""
        new = lint.more(lint.tags(LINTIAN_OURS), lint.tags(LINTIAN_THEIRS))
        self.assertEqual([line.split(": ")[:2] for line in new],
                         [["qemu", "no-nmu-in-changelog"],
                          ["qemu-wsm-tools", "no-copyright-file"]])
        self.assertEqual(lint.more(lint.tags(LINTIAN_THEIRS),
                                   lint.tags(LINTIAN_THEIRS)), [])


class RepositoryTest(unittest.TestCase):
    """What is in it, and whether that is old."""

    def test_version(self) -> None:
        """The version of a package, and of no other."""
        self.assertEqual(repository.version_in(PACKAGES, "qemu-system-x86"),
                         f"{THEIRS}+wsm1")
        with self.assertRaises(Failure):
            repository.version_in(PACKAGES, "qemu")

    def test_old(self) -> None:
        """Debian has moved, or there is nothing yet."""
        ours = {"trixie": f"{THEIRS}+wsm1",
                "bookworm": f"{THEIRS}+wsm1~deb12"}
        self.assertEqual(repository.what_is_old({**ours}, THEIRS), [])
        old = repository.what_is_old({**ours, "sid": None},
                                     "1:10.0.13+ds-0+deb13u2")
        self.assertEqual(len(old), 3)
        self.assertIn("trixie: made from Debian's 1:10.0.13+ds-0+deb13u1, "
                      "which has 1:10.0.13+ds-0+deb13u2 now", old)

    def test_pin(self) -> None:
        """What is pinned is what the repository says it is."""
        pin = (debsource.PACKAGING / "apt/qemu-wsm.pref").read_text("utf-8")
        self.assertIn(f"Pin: release o={repository.RELEASE['Origin']}\n", pin)

    def test_no_secret(self) -> None:
        """The secret key is not in what is served."""
        self.assertFalse(repository.KEYS.is_relative_to(repository.FOLDER))


class SourceTest(unittest.TestCase):
    """Source packages are made of the right files."""

    def test_add_text(self) -> None:
        """A paragraph of its own, without comments."""
        with tempfile.TemporaryDirectory() as name:
            one, two = Path(name) / "one", Path(name) / "two"
            one.write_text("A: 1\n\n\n", encoding="utf-8")
            two.write_text("# SPDX\n\nB: 2\n c\n", encoding="utf-8")
            debsource.add_text(one, two)
            self.assertEqual(one.read_text(encoding="utf-8"),
                             "A: 1\n\nB: 2\n c\n")

    def test_tools(self) -> None:
        """Each program that is listed is there, with its manual page."""
        with tempfile.TemporaryDirectory() as name:
            tree = debsource.make_tools(Path(name))
            rules = (tree / "debian/rules").read_text(encoding="utf-8")
            names = next(line.split("=")[1].split()
                         for line in rules.splitlines()
                         if line.startswith("TOOLS ="))
            self.assertIn("wsm-info", names)
            for tool in names:
                self.assertTrue((tree / "scripts" / tool).is_file(), tool)
                self.assertTrue(
                    (tree / f"packaging/man/{tool}.1").is_file(), tool)
            for path in ("scripts/wsm/record.py", "scripts/wsm/cli/home.py",
                         "scripts/wsm/plan/spec.py",
                         "scripts/wsm/serve/serving.py",
                         "scripts/wsm/templates/sets.py", "scripts/wsm-agent",
                         "scripts/wsm/agent/program.py",
                         "packaging/man/wsm-agent.8",
                         "packaging/systemd/wsm-agent.service",
                         "scripts/wsm-controller",
                         "scripts/wsm/controller/service.py",
                         "packaging/man/wsm-controller.8",
                         "packaging/systemd/wsm-controller.service"):
                self.assertTrue((tree / path).is_file(), path)

    def test_maintainer(self) -> None:
        """Who builds may say who they are, as to Debian's tools."""
        with mock.patch.dict("os.environ", {"DEBEMAIL": "a@example.org",
                                            "DEBFULLNAME": "A B"}):
            self.assertEqual(debsource.maintainer(), "A B <a@example.org>")

    def test_no_spdx(self) -> None:
        """Only what cannot hold a comment goes without a licence line."""
        self.assertTrue(checks.NO_SPDX.fullmatch("packaging/debian/changelog"))
        self.assertFalse(checks.NO_SPDX.fullmatch("packaging/debian/control"))


class ArchiveTest(unittest.TestCase):
    """What apt is asked here."""

    def test_installed(self) -> None:
        """What is installed on the machine is not what Debian has."""
        fields = ("Package: thing\nArchitecture: all\nMaintainer: Nobody\n"
                  "Filename: ./thing.deb\nSize: 1\nDescription: a thing\n")
        with (tempfile.TemporaryDirectory() as name,
              mock.patch.object(debian, "BUILD", Path(name))):
            folder = Path(name)
            archive = debian.Archive()
            for each in ("apt/sources", "apt/lists/partial", "repository",
                         "apt/cache/archives/partial"):
                (folder / each).mkdir(parents=True)
            (folder / "repository/Packages").write_text(
                f"{fields}Version: 1\n", encoding="utf-8")
            (folder / "status").write_text(
                f"{fields}Version: 2\nStatus: install ok installed\n",
                encoding="utf-8")
            (folder / "apt/sources/one.sources").write_text(
                f"Types: deb\nURIs: file:{folder}/repository\nSuites: ./\n"
                "Trusted: yes\n", encoding="utf-8")
            (folder / "apt.conf").write_text(
                f'Dir::State::Status "{folder}/status";\n', encoding="utf-8")
            with mock.patch.dict(os.environ, APT_CONFIG=f"{folder}/apt.conf"):
                for words in (["apt-get", "-q", *archive.options, "update"],
                              ["apt-cache", *archive.options, "policy",
                               "thing"]):
                    said = subprocess.run(words, check=True, text=True,
                                          stdout=subprocess.PIPE).stdout
        self.assertIn("Candidate: 1\n", said)


class ToolsTest(unittest.TestCase):
    """The tools as qemu-wsm-tools has them, and no other package."""

    def test_alone(self) -> None:
        """They need no module that only the agent or controller brings."""
        rules = (ROOT / "packaging/debian/rules").read_text(encoding="utf-8")
        patterns = re.findall(r"-t \$\(TOOLS_ROOT\)/\$\(MODULES\)\S* (\S+)",
                              rules)
        programs = re.findall(r"(?m)^TOOLS = (.*)$", rules)[0].split()
        self.assertIn("scripts/wsm/cli/*.py", patterns)
        with tempfile.TemporaryDirectory() as folder:
            for name in (*(path.relative_to(ROOT) for pattern in patterns
                           for path in ROOT.glob(pattern)),
                         *(Path("scripts") / each for each in programs)):
                (Path(folder) / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(ROOT / name, Path(folder) / name)
            for words, status, said in (
                    (["wsmctl", "--help"], 0, ""),
                    (["wsmctl", "sim", "growth"], 1, "qemu-wsm-controller"),
                    *(([each, "--help"], 0, "") for each in programs)):
                found = subprocess.run(
                    [sys.executable, "-B", f"{folder}/scripts/{words[0]}",
                     *words[1:]], capture_output=True, text=True, check=False,
                    env={"PATH": os.environ["PATH"]})
                self.assertEqual(found.returncode, status, found.stderr)
                self.assertIn(said, found.stderr)
