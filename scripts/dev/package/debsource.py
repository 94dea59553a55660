# SPDX-License-Identifier: GPL-2.0-or-later
"""Source packages: QEMU's, patched, and that of our tools."""

import os
import re
import shutil
from pathlib import Path
from typing import Callable

from dev import qemu
from dev.common import BUILD, ROOT, Failure, output, run, say
from dev.package import changelog, control, overlay, versions
from dev.package.versions import Suite

FOLDER = BUILD / "package"
PACKAGING = ROOT / "packaging"
OUR_CHANGELOG = PACKAGING / "debian/changelog"
ORIG = re.compile(r"^ [0-9a-f]{64} \d+ (\S+\.orig\.tar\.\S+)$", re.M)
TOOLS = "qemu-wsm"
# What the source of our tools has beside packaging/debian
TOOLS_FILES = ["COPYING", "README.md", "docs/*.md", "docs/pictures/*",
               "packaging/man/*",
               "packaging/apparmor/*", "packaging/apt/*",
               "packaging/systemd/*", "scripts/wsm/*.py",
               "scripts/wsm/*/*.py", "scripts/wsm/controller/web/*",
               "packaging/prometheus/*",
               "scripts/qemu/qmp/*.py",
               "scripts/wsm-*", "scripts/wsmctl", "scripts/virsh-*"]


def our_entry() -> changelog.Entry:
    """Return the newest entry of our own changelog."""
    return changelog.newest(OUR_CHANGELOG.read_text(encoding="utf-8"),
                            str(OUR_CHANGELOG.relative_to(ROOT)))


def maintainer() -> str:
    """Return who makes the packages: as Debian's tools are told, or us."""
    if address := os.environ.get("DEBEMAIL"):
        return f"{os.environ.get('DEBFULLNAME') or address} <{address}>"
    return our_entry().who


def edit(path: Path, change: Callable[[str], str]) -> None:
    """Give a file the text that @change makes of it; it keeps its mode."""
    path.write_text(change(path.read_text(encoding="utf-8")),
                    encoding="utf-8")


def add_text(path: Path, addition: Path) -> None:
    """Append a text file, without its comments, as paragraphs of their own."""
    lines = [line for line in addition.read_text(encoding="utf-8").splitlines()
             if line[:1] != "#"]
    edit(path, lambda text: text.rstrip("\n") + "\n\n"
         + "\n".join(lines).strip("\n") + "\n")


def add_tests(debian: Path) -> None:
    """Add our autopkgtest to Debian's."""
    ours = PACKAGING / "qemu/tests"
    for path in sorted(ours.glob("wsm-*")):
        shutil.copy(path, debian / "tests")
    add_text(debian / "tests/control", ours / "control")


def add_entry(debian: Path, suite: Suite) -> str:
    """Write the changelog's new entry; return the version."""
    ours = our_entry()
    path = debian / "changelog"
    theirs = changelog.newest(path.read_text(encoding="utf-8"))
    version = versions.packaged(theirs.version, ours.version, suite)
    entry = changelog.Entry("qemu", version, suite.name, ours.changes,
                            maintainer(), ours.date)
    edit(path, lambda text: changelog.put_before(entry, text))
    return version


def edit_packaging(debian: Path, suite: Suite) -> str:
    """Make Debian's folder @debian ours; return the version."""
    edit(debian / "control-in", lambda text: control.control_in(
        text, maintainer(), suite.without))
    edit(debian / "control.mk", control.control_mk)
    edit(debian / "rules", lambda text: control.rules(text, qemu.release()))
    overlay.add_patches(debian)
    add_tests(debian)
    add_text(debian / "copyright", PACKAGING / "qemu/copyright")
    return add_entry(debian, suite)


def source_folder(suite: Suite) -> Path:
    """Return where the source package for @suite is made."""
    return FOLDER / suite.name / "source"


def make_qemu(dsc: Path, suite: Suite) -> Path:
    """
    Make QEMU's source package for @suite from Debian's @dsc.

    Only its debian/ differs from Debian's.  Returns the new .dsc.
    """
    where = source_folder(suite)
    shutil.rmtree(where, ignore_errors=True)
    where.mkdir(parents=True)
    tree = where / "qemu"
    output(["dpkg-source", "--skip-patches", "--no-copy", "--extract", dsc,
            tree])
    for name in ORIG.findall(dsc.read_text(encoding="utf-8")):
        shutil.copy(dsc.parent / name, where)
    version = edit_packaging(tree / "debian", suite)
    (tree / "debian/control").unlink()
    run(["make", "-s", "-f", "debian/control.mk", "debian/control"], cwd=tree)
    say(f"making the source package qemu {version}")
    output(["dpkg-source", "--build", "qemu"], cwd=where)
    shutil.rmtree(tree)
    return where / f"qemu_{versions.without_epoch(version)}.dsc"


def make_tools(where: Path) -> Path:
    """
    Put the source of our tools into the folder @where.

    Returns the tree, debian/ and all; it is a native package.
    """
    entry = our_entry()
    if entry.source != TOOLS or not re.fullmatch(r"[0-9]+", entry.version):
        raise Failure(f"{OUR_CHANGELOG.relative_to(ROOT)}: the first line is "
                      f"to be '{TOOLS} (NUMBER) ...'")
    tree = where / f"{TOOLS}-{entry.version}"
    shutil.rmtree(tree, ignore_errors=True)
    for pattern in TOOLS_FILES:
        for path in sorted(ROOT.glob(pattern)):
            if path.is_file():
                target = tree / path.relative_to(ROOT)
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(path, target)
    shutil.copytree(PACKAGING / "debian", tree / "debian")
    return tree
