# SPDX-License-Identifier: GPL-2.0-or-later
"""Makes the guest's disk, kernel and initrd, and keeps them for next time.

The disk is an ext4 file system without partitions, made by mmdebstrap from
Debian's archive. It is known by a digest of everything that went into its
recipe, so that an edit makes a new one.
"""

from __future__ import annotations

import hashlib
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from dev.common import Failure
from dev.demo.archive import Archive, find_archive
from dev.demo.logged import run_logged

GUEST_FILES = Path(__file__).parent / "guest"
DISK_BYTES = 1 << 30

PACKAGES = ("linux-image-cloud-amd64", "initramfs-tools", "systemd-sysv",
            "iproute2", "kmod", "python3-minimal", "postgresql")

# Left out of the tree: documentation, and libraries and modules that this
# guest never loads. The disk of the demo should be full of useful data.
EXCLUDED = ("/usr/share/doc/*", "/usr/share/man/*", "/usr/share/locale/*",
            "/usr/share/i18n/*", "/usr/share/info/*", "/usr/lib/llvm*",
            "/usr/lib/x86_64-linux-gnu/libLLVM*",
            "/usr/lib/x86_64-linux-gnu/libz3*",
            "/usr/lib/postgresql/*/lib/bitcode/*",
            "*/lib/modules/*/kernel/*")
INCLUDED = tuple(f"*/lib/modules/*/kernel/{part}*" for part in (
    "drivers/block/virtio", "drivers/net/virtio", "drivers/net/net_failover",
    "drivers/virtio/", "net/core/", "fs/ext4/", "fs/jbd2/", "fs/mbcache",
    "lib/", "crypto/", "arch/x86/crypto/"))

INITRAMFS_HOOK = """#!/bin/sh
[ "$1" = prereqs ] && exit 0
. /usr/share/initramfs-tools/hook-functions
manual_add_modules virtio_pci virtio_blk ext4
"""
INITRAMFS_SETTINGS = "MODULES=list\\nCOMPRESS=gzip\\n"


@dataclass(frozen=True)
class Recipe:
    """What one guest has and another has not."""

    name: str = "guest"             # no other recipe's name begins with it
    packages: tuple[str, ...] = PACKAGES
    database_scale: int = 10
    files: tuple[str, ...] = ("agent.py",)      # of GUEST_FILES
    scripts: tuple[str, ...] = ("setup.sh",)    # run in the tree, in order
    kept: tuple[str, ...] = ()      # of the tree, also beside the disk
    boot: bool = False              # kernel and initrd are also on the disk


DEMO = Recipe()


@dataclass(frozen=True)
class Guest:
    """The files that a guest is started from. The disk is never written."""

    disk: Path
    kernel: Path
    initrd: Path


def make_guest(cache: Path, address: str, fresh: bool,
               recipe: Recipe = DEMO) -> Guest:
    """Returns the guest's files, made now unless the cache has them."""
    archive = find_archive()
    digest = _digest(archive, address, recipe)
    home = cache / f"{recipe.name}-{archive.suite}-{digest}"
    if fresh or not (home / "disk.raw").exists():
        new = cache / f"{recipe.name}-new"
        shutil.rmtree(new, ignore_errors=True)
        new.mkdir(parents=True)
        try:
            _make_tree(archive, cache, new / "tree", address, recipe)
            _make_files(new, recipe)
            for old in cache.glob(f"{recipe.name}-*-*"):
                shutil.rmtree(old)
            new.rename(home)
        finally:
            shutil.rmtree(new, ignore_errors=True)
    return Guest(home / "disk.raw", home / "vmlinuz", home / "initrd.img")


def _digest(archive: Archive, address: str, recipe: Recipe) -> str:
    parts = [archive.suite, address, str(DISK_BYTES), repr(recipe),
             *EXCLUDED, *INCLUDED, INITRAMFS_HOOK, INITRAMFS_SETTINGS]
    parts += [(GUEST_FILES / name).read_text()
              for name in recipe.files + recipe.scripts]
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:12]


def _make_tree(archive: Archive, cache: Path, tree: Path, address: str,
               recipe: Recipe) -> None:
    """Installs Debian into the folder tree."""
    downloads = cache / "archives"
    downloads.mkdir(parents=True, exist_ok=True)
    initramfs = '"$1"/etc/initramfs-tools'
    hook = INITRAMFS_HOOK.replace("\n", "\\n").replace("$", "\\$")
    hook = hook.replace('"', '\\"')
    copied = " ".join(str(GUEST_FILES / name)
                      for name in recipe.files + recipe.scripts)
    hooks = {
        "setup": ['mkdir -p "$1"/var/cache/apt/archives',
                  f"sync-in {downloads} /var/cache/apt/archives"],
        "essential": [
            f"mkdir -p {initramfs}/conf.d {initramfs}/hooks"
            ' "$1"/etc/postgresql-common',
            f'printf "{INITRAMFS_SETTINGS}" >{initramfs}/conf.d/demo',
            f'printf "{hook}" >{initramfs}/hooks/demo',
            f"chmod 755 {initramfs}/hooks/demo",
            'echo "create_main_cluster = false"'
            ' >"$1"/etc/postgresql-common/createcluster.conf'],
        "customize": [
            f"sync-out /var/cache/apt/archives {downloads}",
            'rm -f "$1"/var/cache/apt/archives/*.deb',
            'mkdir -p "$1"/opt/demo',
            f"copy-in {copied} /opt/demo",
            *(f'chroot "$1" /bin/sh /opt/demo/{script}'
              f" {address} {recipe.database_scale}"
              for script in recipe.scripts)]}
    # What mmdebstrap mounts is gone with its mount namespace, even if it is
    # killed.
    command = ["unshare", "--mount", "mmdebstrap", "--mode=root",
               "--format=directory",
               "--variant=essential", "--architectures=amd64",
               f"--include={','.join(recipe.packages)}",
               "--skip=download/empty", "--skip=essential/unlink",
               "--skip=cleanup/apt",
               "--dpkgopt=force-unsafe-io",
               '--aptopt=APT::Install-Recommends "false"']
    command += [f"--dpkgopt=path-exclude={path}" for path in EXCLUDED]
    command += [f"--dpkgopt=path-include={path}" for path in INCLUDED]
    command += [f"--aptopt={setting}" for setting in archive.settings]
    for kind, lines in hooks.items():
        command += [f"--{kind}-hook={line}" for line in lines]
    command += [archive.suite, str(tree), *archive.sources]
    run_logged("Guest disk", command, cache / "guest.log",
               "look at the end of the log; a mirror that is out of reach or "
               "out of date is the usual cause")


def _make_files(home: Path, recipe: Recipe) -> None:
    """Turns home/tree into disk, kernel, initrd and what else is kept."""
    tree = home / "tree"
    for pattern in recipe.kept:
        for path in tree.glob(pattern):
            shutil.copy(path, home)
    kernels = sorted((tree / "boot").glob("vmlinuz-*"))
    if not kernels:
        raise Failure("the guest's tree has no kernel in /boot: delete "
                      "build/demo and try again")
    kernel = kernels[-1]
    shutil.copy(kernel, home / "vmlinuz")
    shutil.copy(tree / "boot" / kernel.name.replace("vmlinuz", "initrd.img"),
                home / "initrd.img")
    if not recipe.boot:
        for path in (tree / "boot").iterdir():
            if path.is_file():
                path.unlink()
    disk = home / "disk.raw"
    subprocess.run(["truncate", "-s", str(DISK_BYTES), disk], check=True)
    run_logged("Guest file system", [
        "mke2fs", "-q", "-F", "-t", "ext4", "-J", "size=16", "-m", "0",
        "-E", "lazy_itable_init=0,root_owner=0:0", "-d", str(tree),
        str(disk)], home.parent / "mke2fs.log", "Is the disk full?")
    shutil.rmtree(tree)
