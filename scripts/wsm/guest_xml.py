# SPDX-License-Identifier: GPL-2.0-or-later
"""What a guest's XML says of its disks, and why it cannot be moved."""

from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Iterator
from xml.etree import ElementTree
from xml.etree.ElementTree import Element

FORMATS = ("raw", "qcow2")
# What an image needs besides size and format, so it must be there already
SPECIAL = {"source/encryption": "encrypted", "encryption": "encrypted",
           "source/slices": "a slice of its file",
           "source/dataStore": "kept in a data file"}


@dataclass(frozen=True)
class Disk:
    """A disk of the guest that has a medium."""

    target: str                 # "vda"
    kind: str                   # "file" or "block"
    path: str                   # "" if it is of another kind
    fmt: str
    read_only: bool             # so it does not move
    special: str                # why virsh-wsm cannot make its image, or ""

    @property
    def folder(self) -> str:
        """Return the folder with the image."""
        return str(PurePosixPath(self.path).parent)

    @property
    def name(self) -> str:
        """Return the image's name in its folder."""
        return PurePosixPath(self.path).name


@dataclass(frozen=True)
class Guest:
    """What matters of a guest's XML."""

    name: str
    uuid: str
    disks: tuple[Disk, ...]
    refusals: tuple[str, ...]   # why it cannot be moved; for users


def read_guest(text: str) -> Guest:
    """Return what the XML of a running guest says."""
    top = ElementTree.fromstring(text)
    elements = [element for element in top.iterfind("devices/disk")
                if has_medium(element)]
    name = top.findtext("name", "")
    return Guest(
        name=name, uuid=top.findtext("uuid", ""),
        disks=tuple(read_disk(element) for element in elements),
        refusals=tuple(text for element in elements
                       for text in refusals(name, element)))


def target(disk: Element) -> str:
    """Return the name of a disk."""
    element = disk.find("target")
    return element.get("dev", "?") if element is not None else "?"


def has_medium(disk: Element) -> bool:
    """Return whether a drive is not empty."""
    return disk.find("source") is not None


def is_read_only(disk: Element) -> bool:
    """Return whether a disk's medium is never written to."""
    return (disk.get("device") == "cdrom"
            or disk.find("readonly") is not None)


def image_format(disk: Element) -> str:
    """Return the format of a disk's image."""
    driver = disk.find("driver")
    return driver.get("type", "raw") if driver is not None else "raw"


def read_disk(disk: Element) -> Disk:
    """Return what matters of a disk's XML."""
    source = disk.find("source")
    assert source is not None
    special = [why for path, why in SPECIAL.items()
               if disk.find(path) is not None]
    return Disk(
        target=target(disk), kind=disk.get("type", "file"),
        path=source.get("file") or source.get("dev") or "",
        fmt=image_format(disk),
        read_only=is_read_only(disk),
        special=special[0] if special else "")


def has_backing(disk: Element) -> bool:
    """Return whether a disk's image is based on another one."""
    backing = disk.find("backingStore")
    return backing is not None and backing.find("source") is not None


def refusals(guest: str, disk: Element) -> Iterator[str]:
    """Yield why a guest with this disk cannot be moved."""
    dev, kind = target(disk), disk.get("type", "file")
    if disk.get("device") == "lun":
        yield (f"{dev} is a SCSI device passed through, whose writes QEMU "
               "does not see: make it a disk (device='disk')")
    if disk.find("mirror") is not None:
        yield (f"{dev}: a block job runs on it: wait until it has ended, or "
               f"end it: virsh blockjob {guest} {dev} --abort")
    if disk.find("transient") is not None:
        yield (f"{dev} is <transient/>: what the guest writes to it lies in "
               "a file that is gone when it stops; take that out of its XML, "
               "and start it anew")
    if is_read_only(disk):
        return
    if disk.find("shareable") is not None:
        yield (f"{dev} is <shareable/>: other guests write to it, too, so it "
               f"cannot move with this one: virsh detach-disk {guest} {dev}")
    if kind not in ("file", "block"):
        yield (f"{dev} is of type '{kind}', and only 'file' and 'block' can "
               f"be moved: virsh detach-disk {guest} {dev}")
    if image_format(disk) not in FORMATS:
        yield (f"{dev} has the format '{image_format(disk)}', from which "
               "QEMU cannot migrate: convert it while the guest is off, with "
               "qemu-img convert -O qcow2")
    if has_backing(disk):
        yield (f"{dev} is based on another image, which libvirt would look "
               "for at the destination: make it one image, while the guest "
               f"runs: virsh blockpull {guest} {dev} --wait")
