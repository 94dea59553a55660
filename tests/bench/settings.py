# SPDX-License-Identifier: GPL-2.0-or-later
"""What is measured: sizes, loads and times."""

from dataclasses import dataclass

from lib.image import GIB, MIB
from lib.vm import DiskConfig, MachineConfig

MEMORY_MIB = 256


@dataclass(frozen=True)
class Load:
    """Random 4 KiB guest writes."""
    name: str
    title: str
    writers: int
    rate: int           # per second, 0: as many as it can

    def words(self) -> dict[str, int]:
        return {'writers': self.writers, 'rate': self.rate, 'full': 1}


CALM = Load('100', '100 writes/s', 1, 100)
BUSY = Load('1500', '1500 writes/s', 4, 1500)
UNLIMITED = Load('unlimited', 'unlimited', 4, 0)
LOADS = (CALM, BUSY, UNLIMITED)


@dataclass(frozen=True)
class Settings:
    rounds: int = 3
    link_mbit: int = 160
    disk: int = 512 * MIB
    data: int = 256 * MIB
    thin_disk: int = 16 * GIB
    thin_data: int = 64 * MIB
    freeze_disks: tuple[int, ...] = (1 * GIB, 16 * GIB, 256 * GIB)
    freeze_data: int = 64 * MIB
    before_seconds: float = 8.0     # the rate of writes before
    back_writes: tuple[int, ...] = (16 * MIB, 64 * MIB)
    away_seconds: float = 30.0      # between the way there and back
    template_differs: float = 0.05  # share of the blocks
    count: float = 10.0             # seconds to count instructions
    give_up: float = 180.0          # seconds, waiting for any one event
    verify_all: bool = True         # also the part without data
    # Applications in a Debian guest
    app_memory: int = 320           # MiB
    app_link_mbit: int = 160
    app_warm_up: float = 4.0        # seconds of load before it is measured
    app_after: float = 5.0          # seconds of load after the move
    app_give_up: float = 3.0        # waiting; times disk / speed of the link
    app_transactions: int = 20      # of pgbench, per second
    app_requests: int = 80          # to the web server, per second
    app_iops: int = 300             # of fio, reads; and as many writes
    app_steps: int = 15             # of the build, per second

    @property
    def link_bytes(self) -> float:
        """Speed of the link in bytes per second."""
        return self.link_mbit * 1e6 / 8

    @property
    def app_link_bytes(self) -> float:
        return self.app_link_mbit * 1e6 / 8


def quick() -> Settings:
    """To see that everything works; the figures mean little."""
    return Settings(rounds=1, disk=64 * MIB, data=32 * MIB,
                    thin_disk=1 * GIB, thin_data=8 * MIB,
                    freeze_disks=(64 * MIB, 1 * GIB), freeze_data=16 * MIB,
                    before_seconds=2.0, back_writes=(2 * MIB, 8 * MIB),
                    away_seconds=4.0, count=2.0, verify_all=False,
                    app_link_mbit=1000, app_warm_up=3.0, app_after=3.0)


def machine(size: int, fmt: str = 'raw') -> MachineConfig:
    return MachineConfig((DiskConfig('vd0', fmt=fmt, size=size),),
                         memory=MEMORY_MIB)
