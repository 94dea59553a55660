# SPDX-License-Identifier: GPL-2.0-or-later
"""What there is: hosts, and VMs on them, as an agent describes them."""

import enum
from dataclasses import dataclass, field
from typing import Iterator, Mapping, Optional

GIB = 1 << 30
MAX_COPIED = 256 << 20          # bytes of a file that agents copy
RESERVE = 0.1                   # part of a pool that stays free, if not told
OLD = ("handed-over", "incomplete")     # images that may be written over


class HostState(enum.Enum):
    """Whether a host takes VMs."""

    ACTIVE = "active"
    CORDONED = "cordoned"       # takes none, keeps its own
    DRAINING = "draining"       # takes none, is being emptied
    UNKNOWN = "unknown"         # does not answer


@dataclass(frozen=True)
class Pool:
    """A folder for images, or for files that do not change."""

    free: int                   # bytes
    total: int
    reserve: float = RESERVE    # part of total that stays free
    device: int = 0             # of its file system; 0: not known

    @property
    def usable(self) -> int:
        """Bytes that may be filled."""
        return max(0, self.free - int(self.total * self.reserve))


@dataclass(frozen=True)
class Qemu:
    """A QEMU that is installed on a host."""

    path: str
    version: str                # "10.0.13"
    package: str                # what it says in brackets: "qemu-wsm 0.4, ..."
    machines: tuple[str, ...]   # types with versions


@dataclass(frozen=True)
class Copy:
    """An image at rest of a VM that is elsewhere."""

    vm: str
    disk: str
    path: str
    state: str                  # as in wsm-info
    since: int = 0              # s after 1970
    allocated: int = 0          # bytes
    size: int = 0               # of its disk; 0: not known
    points: Mapping[str, Optional[int]] = field(default_factory=dict)
    fits: bool = False          # its sync points can be trusted


@dataclass(frozen=True)
class Way:
    """The way to another host, as TCP has seen it."""

    rtt: float                  # s of a round trip, at least
    sent: int = 0               # segments of measurements,
    lost: int = 0               # and of them those that were sent again
    at: float = 0.0             # s after 1970, of the last one


@dataclass(frozen=True)
class Host:
    """A host, and how it is at this moment."""

    name: str
    cores: float
    memory: int                                 # bytes
    available: int                              # bytes
    state: HostState = HostState.ACTIVE
    demand: float = 0.0                         # cores that are wanted now
    reserve_memory: float = 0.08
    reserve_cores: float = 0.05
    huge_free: int = 0                          # bytes
    cpu: str = ""                               # class: equal if features are
    clock: float = 0.0                          # s after 1970; 0: not told
    clock_off: float = 0.0                      # s, against who asks
    address: str = ""                           # for migrations
    mbit: int = 0                               # of that network; 0: not known
    networks: tuple[str, ...] = ()
    files: Mapping[str, int] = field(default_factory=dict)  # sha256: bytes
    pools: Mapping[str, Pool] = field(default_factory=dict)
    qemus: Mapping[str, Qemu] = field(default_factory=dict)
    tags: tuple[str, ...] = ()
    copies: tuple[Copy, ...] = ()
    moves_in: int = 0
    moves_out: int = 0
    ways: Mapping[str, Way] = field(default_factory=dict)   # to other hosts


@dataclass(frozen=True)
class DiskUse:
    """A disk of a running VM."""

    id: str
    size: int                   # bytes
    allocated: int              # bytes
    written: float = 0.0        # bytes/s that are new, lately
    points: Mapping[str, int] = field(default_factory=dict)  # id: changed


@dataclass(frozen=True)
class VmUse:
    """A VM as it runs now."""

    name: str
    host: str
    vcpus: int
    memory: int                 # bytes it can have
    touched: int                # bytes it has of its host
    demand: float = 0.0         # cores
    machine: str = ""           # type with version
    package: str = ""           # of its QEMU
    version: str = ""
    host_cpu: bool = False      # -cpu host
    huge: bool = False          # RAM in huge pages
    managed: str = ""           # "libvirt": not ours to move
    disks: tuple[DiskUse, ...] = ()
    filled: int = 0             # bytes of RAM that are not zero; 0: not known
    # Window in seconds: bytes of RAM written in it
    dirty: Mapping[str, int] = field(default_factory=dict)
    moving: str = ""            # id of the move it is in


def too_full(needs: Mapping[str, int], pools: Mapping[str, Pool]
             ) -> Iterator[tuple[list[str], int, Pool]]:
    """
    Yield (names, bytes needed, pool) of pools without room for @needs.

    Pools on one file system have its room together, and the least of what
    they may fill of it.
    """
    shared: dict[object, list[str]] = {}
    for name in sorted(set(needs) & set(pools)):
        shared.setdefault(pools[name].device or name, []).append(name)
    for names in shared.values():
        needed = sum(needs[name] for name in names)
        least = min((pools[name] for name in names),
                    key=lambda pool: pool.usable)
        if needed > least.usable:
            yield names, needed, least


def human(number: float) -> str:
    """Return a number of bytes for people: "3.1 GiB"."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if abs(number) < 1024:
            break
        number /= 1024
    else:
        unit = "TiB"
    return f"{number:.0f} B" if unit == "B" else f"{number:.1f} {unit}"
