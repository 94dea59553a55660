# SPDX-License-Identifier: GPL-2.0-or-later
"""What is known of a QEMU that runs, and its description under work."""

import os.path
from dataclasses import dataclass, field
from typing import Mapping, Optional

from wsm.plan import spec
from wsm.plan.argv import Option, Values
from wsm.plan.inventory import MAX_COPIED


@dataclass(frozen=True)
class FileFact:
    """A file of the host that the command line names."""

    sha256: str
    size: int


@dataclass(frozen=True)
class GuestDisk:
    """A disk of the guest, as QMP has it."""

    name: str                   # device id, else block backend, else node
    path: str                   # image file, absolute
    format: str
    size: int                   # virtual
    read_only: bool = False
    backing: bool = False       # its image is based on another


@dataclass(frozen=True)
class Running:
    """What is known of a QEMU that runs."""

    argv: tuple[str, ...]                       # with the program
    cwd: str
    host: str
    name: str = ""                              # "" : as in -name
    machine: str = ""                           # QOM type
    uuid: str = ""
    disks: tuple[GuestDisk, ...] = ()
    peripheral: tuple[str, ...] = ()            # ids of devices in QOM
    anonymous: int = 0                          # devices without id in QOM
    files: Mapping[str, FileFact] = field(default_factory=dict)
    bridges: Mapping[str, str] = field(default_factory=dict)  # tap: bridge
    networks: Mapping[str, str] = field(default_factory=dict)  # bridge: name
    pools: Mapping[str, str] = field(default_factory=dict)  # name: folder
    allow_host_cpu: bool = False


@dataclass(frozen=True)
class Finding:
    """Something to be told about a VM."""

    level: str                  # "refused", "warning", "note"
    rule: str
    text: str


@dataclass(frozen=True)
class Adoption:
    """What came of it; no spec if something is refused."""

    spec: Optional[spec.Spec]
    findings: tuple[Finding, ...]

    @property
    def refused(self) -> list[Finding]:
        """Return why it cannot be adopted."""
        return [each for each in self.findings if each.level == "refused"]


class Draft:
    """A description under work."""

    def __init__(self, running: Running) -> None:
        self.running = running
        self.options: list[Option] = []
        self.findings: list[Finding] = []
        self.disks: dict[str, spec.Disk] = {}
        self.nets: dict[str, spec.Net] = {}
        self.files: dict[str, spec.File] = {}
        self.name = running.name
        self.rule = ""
        self.devices: list[str] = []    # ids; "" for none
        self.has_machine = False
        self.chardevs: set[str] = set()     # those that are dropped

    def say(self, level: str, text: str) -> None:
        """Add a finding of the rule that is at work."""
        self.findings.append(Finding(level, self.rule, text))

    def refuse(self, text: str) -> None:
        """Say that the VM cannot be adopted."""
        self.say("refused", text)

    def keep(self, option: Option) -> None:
        """Take an option as it is."""
        self.options.append(Option(option.name, tuple(
            map(spec.escape, option.words))))

    def change(self, option: Option, values: Values) -> None:
        """Take an option whose members were escaped and changed."""
        self.options.append(option.with_value(values.text()))

    def absolute(self, path: str) -> str:
        """Return a path as seen from the working folder."""
        return os.path.normpath(os.path.join(self.running.cwd, path))

    def disk_of(self, path: str) -> Optional[GuestDisk]:
        """Return the guest's disk with the image @path."""
        return next((disk for disk in self.running.disks
                     if disk.path == self.absolute(path)), None)

    def add_disk(self, disk: GuestDisk) -> str:
        """Describe a writable disk; return its name."""
        default, at_default = self._pool_of(disk)
        self.disks[disk.name] = spec.Disk(
            disk.format, disk.size, default,
            path_at={} if at_default else {self.running.host: disk.path})
        if disk.backing:
            self.say("note", f"disk {disk.name}: its image has a backing "
                     "file; it arrives as one image")
        return disk.name

    def _pool_of(self, disk: GuestDisk) -> tuple[str, bool]:
        """Return (pool, whether the image has the name it has there)."""
        best = ""
        for name, folder in sorted(self.running.pools.items()):
            if disk.path.startswith(folder.rstrip("/") + "/"):
                best = name
        usual = os.path.join(self.running.pools.get(best, "/-"), self.name,
                             f"{disk.name}.{disk.format}")
        return best or "default", disk.path == usual

    def add_file(self, name: str, path: str) -> str:
        """Describe a file that is only read; return the placeholder."""
        absolute = self.absolute(path)
        fact = self.running.files.get(absolute)
        if fact is None:
            self.refuse(f"file {absolute} is not there or cannot be read")
            return spec.escape(path)
        while name in self.files and self.files[name].sha256 != fact.sha256:
            name += "x"
        self.files[name] = spec.File(fact.sha256, fact.size,
                                     {self.running.host: absolute})
        if fact.size > MAX_COPIED:
            self.say("warning", f"file {absolute} has {fact.size} bytes, too "
                     "many for the agents to copy: put it on each host")
        return f"${{file.{name}}}"
