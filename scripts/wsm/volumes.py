# SPDX-License-Identifier: GPL-2.0-or-later
"""Images at the destination, made and removed by its libvirt."""

import uuid
from dataclasses import dataclass
from typing import Optional
from xml.etree import ElementTree

from wsm.guest_xml import Disk
from wsm.virsh import Virsh, VirshError

# Pools of these kinds have volumes that lie in a folder
POOLS = ("dir", "fs", "netfs", "logical")
OWN_POOL = "virsh-wsm-"


class Refused(Exception):
    """Why the guest cannot be moved, and what to do; for users."""


@dataclass(frozen=True)
class Volume:
    """An image that is there."""

    capacity: int
    fmt: str


class Volumes:
    """The destination's storage, as long as it is needed (use with)."""

    def __init__(self, virsh: Virsh, host: str) -> None:
        self.virsh = virsh
        self.host = host
        self.pools: dict[str, str] = {}         # folder: pool
        self.own_pools: list[str] = []

    def __enter__(self) -> "Volumes":
        self.load()
        return self

    def __exit__(self, *_exception: object) -> None:
        """Forget the pools made here; what is in their folders stays."""
        for name in self.own_pools:
            self.virsh.try_run("pool-destroy", name)

    def load(self) -> None:
        """Find out which pools there are."""
        for line in self.virsh.run("pool-list", "--name").splitlines():
            name = line.strip()
            text = self.virsh.try_run("pool-dumpxml", name) if name else None
            if text is None:
                continue
            top = ElementTree.fromstring(text)
            path = top.findtext("target/path")
            if path and top.get("type") in POOLS:
                self.pools[path.rstrip("/")] = name
                self.virsh.try_run("pool-refresh", name)

    def pool(self, disk: Disk) -> Optional[str]:
        """Return the pool for an image, made now for a file's folder."""
        if disk.folder not in self.pools and disk.kind == "file":
            name = f"{OWN_POOL}{uuid.uuid4()}"
            try:
                self.virsh.run("pool-create-as", name, "dir", "--target",
                               disk.folder)
            except VirshError as error:
                self.load()         # another virsh-wsm may have been faster
                if disk.folder not in self.pools:
                    raise Refused(
                        f"{disk.target}: {self.host} cannot use the folder "
                        f"{disk.folder}: {error}; make the folder there, or "
                        "start the pool that has it (virsh pool-start)"
                        ) from error
            else:
                self.own_pools.append(name)
                self.pools[disk.folder] = name
        return self.pools.get(disk.folder)

    def find(self, disk: Disk) -> Optional[Volume]:
        """Return the image that is there already."""
        pool = self.pool(disk)
        words = ["--pool", pool, disk.name] if pool else [disk.path]
        text = self.virsh.try_run("vol-dumpxml", *words)
        if text is None:
            return None
        top = ElementTree.fromstring(text)
        kind = top.find("target/format")
        return Volume(int(top.findtext("capacity", "0")),
                      kind.get("type", "") if kind is not None else "")

    def make(self, disk: Disk, size: int) -> None:
        """Make the image of a disk, @size bytes for the guest."""
        pool = self.pool(disk)
        if pool is None:
            raise Refused(
                f"{disk.target}: {self.host} has no {disk.path}, or no pool "
                f"that knows it: make a device of {size} bytes there, and a "
                f"pool for {disk.folder}")
        if disk.special:
            raise Refused(
                f"{disk.target}: {disk.path} is {disk.special}, and "
                f"{self.host} has none: make it there, for {size} bytes")
        words = ["vol-create-as", pool, disk.name, str(size)]
        if disk.kind == "file":
            words += ["--format", disk.fmt]
            # Without it a raw image takes all of its space at once
            words += ["--allocation", "0"] * (disk.fmt == "raw")
        try:
            self.virsh.run(*words)
        except VirshError as error:
            raise Refused(f"{disk.target}: {self.host} cannot make "
                          f"{disk.path}: {error}") from error

    def remove(self, disk: Disk) -> bool:
        """Remove an image, and what QEMU may have put beside it."""
        pool = self.pool(disk)
        if pool is None or self.virsh.try_run("vol-delete", "--pool", pool,
                                              disk.name) is None:
            return False
        self.virsh.try_run("pool-refresh", pool)
        self.virsh.try_run("vol-delete", "--pool", pool, f"{disk.name}.wsm")
        return True


def check_found(disk: Disk, found: Volume, size: int, host: str) -> None:
    """Refuse an image at the destination that the move cannot use."""
    if found.capacity != size:
        raise Refused(
            f"{disk.target}: {disk.path} at {host} has {found.capacity} bytes "
            f"for the guest, and here it has {size}: remove it there if "
            "nobody needs it, or make it as large (qemu-img resize)")
    if (found.fmt == "qcow2") != (disk.fmt == "qcow2"):
        raise Refused(
            f"{disk.target}: {disk.path} at {host} has the format "
            f"'{found.fmt}', and here '{disk.fmt}': remove it there if nobody "
            "needs it")
