# SPDX-License-Identifier: GPL-2.0-or-later
"""Compare the machines of two QEMUs: QEMU itself does not.

Another CPU model, more vCPUs, a device more or another MAC address would
arrive without a word.  So both are read by QMP and compared before the first
byte is sent.
"""

import functools
import re
from dataclasses import dataclass
from typing import Iterator, Mapping

from wsm.plan.inventory import human


@dataclass(frozen=True)
class Device:
    """A device with what the guest sees of it."""

    path: str
    type: str
    properties: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class DiskFact:
    """A writable disk."""

    path: str                   # of the guest device, in QOM
    size: int


@dataclass(frozen=True)
class Cpu:
    """A virtual CPU."""

    place: tuple[tuple[str, int], ...] = ()     # socket, core, thread
    type: str = ""
    features: tuple[tuple[str, int], ...] = ()  # CPUID words that are not 0
    filtered: tuple[str, ...] = ()              # those the host lacks


@dataclass(frozen=True)
class Fingerprint:
    """What must be the same in both QEMUs."""

    machine: str = ""
    memory: int = 0
    uuid: str = ""
    version: str = ""           # "10.0.13"
    package: str = ""           # "qemu-wsm 0.4, Debian 1:10.0.13+ds-0+deb13u1"
    whole_system: bool = False  # whether this QEMU has the capability
    cpus: tuple[Cpu, ...] = ()
    devices: tuple[Device, ...] = ()
    disks: tuple[DiskFact, ...] = ()


@dataclass(frozen=True)
class Difference:
    """Something that is not the same."""

    what: str
    source: str
    destination: str
    remedy: str

    def __str__(self) -> str:
        return (f"{self.what}: {self.source} at the source, "
                f"{self.destination} at the destination; {self.remedy}")


SAME_LINE = "start both with the same command line"
SAME_QEMU = "install the same qemu-wsm on both hosts"


@functools.lru_cache(64)
def series(version: str) -> str:
    """Return major.minor of a version."""
    return ".".join(version.split(".")[:2])


@functools.lru_cache(64)
def wsm_version(package: str) -> str:
    """Return the version of qemu-wsm in what a QEMU says of itself."""
    found = re.search(r"qemu-wsm ([0-9.]+)", package)
    return found[1] if found else "none"


def compare_qemu(one: Fingerprint, two: Fingerprint,
                 compatible: frozenset[str]) -> Iterator[Difference]:
    """Yield differences of the programs themselves."""
    for side, which in ((one, "source"), (two, "destination")):
        if not side.whole_system:
            yield Difference(
                "capability whole-system",
                "there" if one.whole_system else "missing",
                "there" if two.whole_system else "missing",
                f"the QEMU at the {which} is no qemu-wsm: {SAME_QEMU}")
            return
    old, new = series(one.version), series(two.version)
    if old != new and f"{old}-{new}" not in compatible:
        yield Difference("QEMU", one.version, two.version,
                         f"{SAME_QEMU}, or allow '{old}-{new}' in qemu_compat")
    old, new = wsm_version(one.package), wsm_version(two.package)
    if old != new:
        yield Difference("qemu-wsm", old, new, SAME_QEMU)


def compare_cpus(one: Fingerprint, two: Fingerprint) -> Iterator[Difference]:
    """Yield differences of the virtual CPUs."""
    if len(one.cpus) != len(two.cpus):
        yield Difference("vCPUs", str(len(one.cpus)), str(len(two.cpus)),
                         "the same -smp on both command lines")
        return
    for number, (left, right) in enumerate(zip(one.cpus, two.cpus)):
        if right.filtered:
            yield Difference(
                f"vCPU {number}", "needs " + " ".join(right.filtered),
                "this host's CPU lacks them", "use a CPU model that both "
                "hosts have, and add 'enforce'")
        for what, ours, theirs in (
                ("place", left.place, right.place),
                ("type", left.type, right.type),
                ("features", left.features, right.features)):
            if ours != theirs:
                yield Difference(f"{what} of vCPU {number}",
                                 *only(ours, theirs),
                                 "the same -cpu and -smp on both sides")


def only(left: object, right: object) -> tuple[str, str]:
    """Return both values; of lists only what the other lacks."""
    if not isinstance(left, tuple) or not isinstance(right, tuple):
        return str(left), str(right)
    show = [" ".join("=".join(map(str, each)) if isinstance(each, tuple)
                     else str(each) for each in mine if each not in other)
            for mine, other in ((left, right), (right, left))]
    return show[0] or "no more", show[1] or "no more"


def compare_named(what: str, left: Mapping[str, object],
                  right: Mapping[str, object]) -> Iterator[Difference]:
    """Yield differences of two sets of things with names."""
    for name in sorted({*left, *right}):
        ours, theirs = left.get(name), right.get(name)
        if ours is None or theirs is None:
            yield Difference(f"{what} {name}",
                             "missing" if ours is None else "there",
                             "missing" if theirs is None else "there",
                             SAME_LINE)
        elif ours != theirs:
            yield Difference(f"{what} {name}", *only(ours, theirs), SAME_LINE)


def compare(one: Fingerprint, two: Fingerprint,
            compatible: frozenset[str] = frozenset()) -> list[Difference]:
    """Return what differs between source @one and destination @two.

    @compatible has pairs of QEMU versions, "10.0-10.1", that may be mixed.
    """
    found = list(compare_qemu(one, two, compatible))
    for what, left, right, remedy in (
            ("machine type", one.machine, two.machine,
             "write the type with its version on both command lines"),
            ("UUID", one.uuid or "none", two.uuid or "none",
             "this is another VM, or -uuid is missing"),
            ("memory", human(one.memory), human(two.memory),
             "the same -m on both command lines")):
        if left != right:
            found.append(Difference(what, left, right, remedy))
    if one.memory != two.memory and human(one.memory) == human(two.memory):
        found.append(Difference("memory", f"{one.memory} bytes",
                                f"{two.memory} bytes", "the same -m"))
    found += compare_cpus(one, two)
    found += compare_named(
        "device", *({each.path: (("type", each.type), *each.properties)
                     for each in side.devices} for side in (one, two)))
    found += compare_named(
        "disk", *({each.path: f"{each.size} bytes" for each in side.disks}
                  for side in (one, two)))
    return found
