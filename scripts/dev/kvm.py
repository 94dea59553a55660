# SPDX-License-Identifier: GPL-2.0-or-later
"""Functional tests under KVM, on a machine that need not have it.

A virtual machine with an AMD CPU, which TCG emulates with its virtualisation,
runs Debian's kernel with kvm_amd, and in it the tests run as they do here.
All of its system is in its initramfs; the tests' images lie on a disk.
"""

import os
import re
import shlex
import shutil
import stat
from pathlib import Path
from typing import BinaryIO

from dev import qemu, roots, stages
from dev.common import BUILD, ROOT, output
from dev.common import run as run_command
from dev.common import say
from dev.results import NOT_OK
from dev.rig import accelerators, guest_image
from dev.rig.basics import shared_library
from dev.rig.scene import make_template

FOLDER = BUILD / "kvm"
TREE = FOLDER / "root"
GUEST = BUILD / "guest"
PACKAGES = ["e2fsprogs", "iproute2", "kmod", "mount", "python3"]
# What the system in there does not need
LEFT_OUT = re.compile(r"usr/share/(doc|man|locale)/|var/(lib/apt|cache)/")
DISK_BYTES = 8 << 30
MEMORY = "4G"
# Linux compares the counters of its CPUs, finds that emulated ones come late,
# and KVM trusts none then: guests stand still now and then
KERNEL_LINE = "console=ttyS0 quiet panic=-1 mitigations=off tsc=reliable"

# What tests put below QEMU; there is no compiler in there
PRELOADED = ["tests/functional/lib/hold_flush.c",
             "tests/functional/lib/hold_read.c",
             "tests/functional/lib/hold_send.c"]
TOOLS = ["wsm-finish", "wsm-info", "wsm-serve"]

# Moves, with several disks, CPUs and threads; cuts; pulls; the way back; the
# death of either side, with what a guest has flushed; from KVM to TCG and from
# TCG to KVM, and what of it is refused
TESTS = """
    basic-raw two-disks-mixed two-cpus iothread-vq-mapping multifd
    back-and-forth postcopy-on-the-way-back
    block-channels-cut-in-precopy block-channels-cut-in-postcopy
    pull-lost link-cut-in-postcopy law-one
    postcopy-ram-idle go-delayed cancel-in-freeze
    served-raw rejoined-guest-runs finished-raw source-comes-back-raw
    crash.both.pull.qcow2 crash.destination.go-sent.multifd
    crash.source-then-destination.have.direct
    crash.destination-twice.guest-works.qcow2
    accel-tsc accel-two-cpus accel-from-tcg
    accel-refused-pv accel-refused-deadline accel-refused-hyperv
    accel-refused-kvmclock accel-refused-svm
""".split()
# Two to seven minutes each, and half an hour for ten times there and back
SLOW_TESTS = """
    accel-hpet accel-smp accel-q35 accel-postcopy-ram accel-old accel-ten-times
""".split()

# All is some ten times slower in there, so it has a longer time-out.
INIT = """#!/bin/sh
export PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LANG=C.UTF-8
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs dev /dev
exec </dev/null >/dev/console 2>&1
modprobe -a virtio_pci virtio_blk ext4 kvm_amd veth sch_tbf
mount -t tmpfs run /run
mke2fs -q -F /dev/vda && mount /dev/vda /tmp
ip link set lo up
cd /wsm && touch build/guest/initrd.img
export WSM_PRELOAD=/wsm/build/preload
WSM_ACCEL=kvm WSM_TIMEOUT=900 tests/functional/run {options}
echo "end $?"
echo o >/proc/sysrq-trigger
sleep 60
"""


def libraries(program: Path) -> list[Path]:
    """Return the paths of the shared libraries of @program."""
    found = re.findall(r"=> (/\S+)", output(["ldd", program]))
    return [Path(os.path.realpath(os.path.dirname(path)),
                 os.path.basename(path)) for path in found]


def make_tree(kernel: Path) -> None:
    """Make the Debian system with @kernel's modules."""
    roots.make(TREE, roots.own_suite(), PACKAGES)
    modules = next(kernel.glob("lib/modules/*"))
    shutil.copytree(modules, TREE / "usr/lib/modules" / modules.name)
    run_command(roots.command(TREE, "depmod", modules.name))


class Initramfs:
    """An initramfs under construction."""

    def __init__(self, out: BinaryIO) -> None:
        self.cpio = guest_image.Cpio(out)
        self.there = {"."}

    def add(self, path: Path, name: str) -> None:
        """Add the file, folder or link @path as @name, after its folder."""
        if name in self.there:
            return
        self.there.add(name)
        self.add(path.parent, os.path.dirname(name) or ".")
        mode = path.lstat().st_mode
        if stat.S_ISLNK(mode):
            self.cpio.add(name, mode, os.readlink(path).encode())
        elif stat.S_ISDIR(mode):
            self.cpio.add(name, mode)
        elif stat.S_ISREG(mode):
            self.cpio.add(name, mode, path.read_bytes())

    def add_below(self, top: Path, prefix: str = "") -> None:
        """Add all that is below the folder @top."""
        for folder, folders, names in os.walk(top):
            for path in (Path(folder, name) for name in folders + names):
                name = str(path.relative_to(top))
                if not LEFT_OUT.search(name):
                    self.add(path, prefix + name)


def make_initramfs(target: Path, options: list[str]) -> None:
    """Pack the system, our tests, and what they test."""
    with open(target, "wb") as out:
        initramfs = Initramfs(out)
        initramfs.add_below(TREE)
        # scripts/qemu is a link
        for name in ("scripts/dev", "scripts/qemu", "scripts/wsm", "tests",
                     "build/guest/firmware"):
            initramfs.add_below((ROOT / name).resolve(), f"wsm/{name}/")
        for name in PRELOADED:
            library = f"{Path(name).stem}.so"
            initramfs.add(shared_library(ROOT / name, FOLDER / library),
                          f"wsm/build/preload/{library}")
        for name in TOOLS:
            initramfs.add(ROOT / "scripts" / name, f"wsm/scripts/{name}")
        for name in ("vmlinuz", "initrd.img"):
            initramfs.add(GUEST / name, f"wsm/build/guest/{name}")
        if "accel-from-tcg" in options:
            state = FOLDER / accelerators.BOOTED_BY_TCG.name
            make_template(accelerators.machine(accelerators.TCG), state)
            initramfs.add(state, f"wsm/build/guest/{state.name}")
        for name in qemu.PROGRAMS:
            program = (BUILD / name).resolve()
            initramfs.add(program, f"wsm/build/{name}")
            for path in libraries(program):
                initramfs.add(path.resolve(), str(path).lstrip("/"))
        init = INIT.format(options=shlex.join(options))
        initramfs.cpio.add("init", stat.S_IFREG | 0o755, init.encode())
        initramfs.cpio.finish()


def machine(initramfs: Path, disk: Path) -> list[str]:
    """Return the command of the machine in which the tests run."""
    return [str(BUILD / "qemu-system-x86_64"), "-L", str(GUEST / "firmware"),
            "-nodefaults", "-display", "none", "-no-reboot",
            "-accel", "tcg,thread=multi", "-cpu", "EPYC,+svm,+npt",
            "-smp", "2", "-m", MEMORY, "-serial", "stdio",
            "-kernel", str(GUEST / "vmlinuz"), "-initrd", str(initramfs),
            "-append", KERNEL_LINE,
            "-drive", f"file={disk},format=raw,if=virtio,cache=unsafe"]


def run_tests(run: stages.Run) -> None:
    """Run TESTS, with --slow SLOW_TESTS too, or those that --only names."""
    qemu.build()
    guest_image.build(GUEST)
    chosen = TESTS + SLOW_TESTS if run.slow else TESTS
    if run.pattern:
        chosen = stages.chosen_tests(run)
    options = ["--slow", *(word for name in chosen
                           for word in ("--only", name))]
    kernel = next((GUEST / "packages").glob("linux-image-*"))
    roots.make_once(TREE, " ".join([*PACKAGES, kernel.name]),
                    lambda: make_tree(kernel))
    say("functional tests under KVM, in an emulated machine")
    initramfs, disk = FOLDER / "initramfs", FOLDER / "disk"
    make_initramfs(initramfs, options)
    with open(disk, "wb") as out:
        out.truncate(DISK_BYTES)
    seen, why = stages.printed_cases(run, machine(initramfs, disk), "kvm:")
    if why or not seen:
        run.results.add(NOT_OK, "kvm", why or "no cases: see the output above")
    elif seen < len(chosen):
        run.results.add(NOT_OK, "kvm", f"{len(chosen)} tests begun, "
                                       f"{seen} ended")
