# SPDX-License-Identifier: GPL-2.0-or-later
"""What an agent says its host and VMs have used lately."""

from dataclasses import dataclass, field
from typing import Mapping

from wsm.plan.ends import File
from wsm.plan.inventory import Host


@dataclass(frozen=True)
class VmSample:
    """A VM that is described at a host."""

    name: str
    runs: bool = False
    owner: File = File.NONE
    epoch: int = 0
    changed: int = 0            # when its description was, ns after 1970
    moving: str = ""            # id of its move
    peer: str = ""              # the other host of its last move
    cpu: float = 0.0            # cores: what ran, and what waited for a core
    wait: float = 0.0           # of them, what waited
    rx: float = 0.0             # bytes/s that come for it
    tx: float = 0.0
    disk: float = 0.0           # its part of the host's disk time
    swap: int = 0               # bytes of it that are swapped out
    resident: int = 0           # bytes
    lack_rx: float = 0.0        # bytes/s that it was promised, wants, and lacks
    lack_tx: float = 0.0
    latency: float = 0.0        # s, of its disks if that was promised, else 0


@dataclass(frozen=True)
class Samples:
    """One look at a host."""

    seq: int                    # of the look; an agent counts them
    seconds: float              # over which it is
    host: Host
    age: float = 0.0            # s since it was made
    cpu: float = 0.0            # cores that all of it wants
    steal: float = 0.0          # part of the time of its CPUs that it lacked
    rx: float = 0.0             # bytes/s
    tx: float = 0.0
    disk: float = 0.0           # part of the time in which a pool's disk works
    swap: float = 0.0           # bytes/s that are swapped out
    psi: Mapping[str, float] = field(default_factory=dict)  # "cpu.some": 0..1
    vms: tuple[VmSample, ...] = ()
