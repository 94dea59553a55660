# SPDX-License-Identifier: GPL-2.0-or-later
"""What is measured: sizes, loads and times."""

from dataclasses import dataclass

from dev.rig.image import GIB, MIB
from dev.rig.vm import DiskConfig, MachineConfig

MEMORY_MIB = 256


@dataclass(frozen=True)
class Load:
    """4 KiB guest writes at random places, or one after another."""
    name: str
    title: str
    writers: int        # 0: an idle guest
    rate: int           # per second, 0: as many as it can
    sequential: bool = False

    def words(self) -> dict[str, int]:
        return {'writers': self.writers, 'rate': self.rate, 'full': 1,
                'seq': int(self.sequential)}


IDLE = Load('idle', 'none', 0, 0)
CALM = Load('100', '100 writes/s', 1, 100)
BUSY = Load('1500', '1500 writes/s', 4, 1500)
UNLIMITED = Load('unlimited', 'unlimited', 4, 0)
SEQUENTIAL = Load('sequential', '1500 sequential writes/s', 1, 1500, True)
LOADS = (IDLE, CALM, BUSY, UNLIMITED, SEQUENTIAL)


@dataclass(frozen=True)
class Settings:
    rounds: int = 2
    link_mbit: int = 160
    links_mbit: tuple[int, ...] = (80, 320, 1280)
    disk: int = 512 * MIB
    data: int = 256 * MIB
    thin_disk: int = 16 * GIB
    thin_data: int = 64 * MIB
    before_seconds: float = 5.0     # the rate of writes before
    back_writes: tuple[int, ...] = (16 * MIB, 64 * MIB)
    away_seconds: float = 30.0      # between the way there and back
    template_differs: float = 0.05  # share of the blocks
    count: float = 10.0             # seconds to count instructions
    cpu_data: int = 512 * MIB       # to move, for what that takes
    pull_data: int = 256 * MIB      # to read from while it is missing
    pull_precopy: int = 16          # seconds, in which it is written anew
    pull_seconds: float = 6.0       # of that, on an idle link
    give_up: float = 60.0           # seconds, waiting for any one event
    verify_all: bool = True         # also the part without data
    scale_sizes: tuple[int, ...] = (1 * GIB, 16 * GIB, 256 * GIB, 1024 * GIB)
    scale_data: int = 64 * MIB
    scale_disks: tuple[int, ...] = (1, 4, 16)
    scale_channels: tuple[int, ...] = (1, 2, 4, 8)
    scale_memory: tuple[int, ...] = (256, 1024, 2048)   # MiB
    scale_trip_ms: int = 50         # round trip of a link that is far
    delay_trips_ms: tuple[int, ...] = (0, 10, 50, 150)
    delay_loss: float = 0.0001      # share of the frames, at scale_trip_ms
    delay_data: int = 32 * MIB
    delay_give_up: float = 45.0     # a mirror may never become ready
    # With the maps of missing blocks and without
    crash_data: int = 64 * MIB      # to move, for the freeze
    crash_pairs: int = 12           # of moves
    crash_precopy: int = 30         # seconds of the one pass
    crash_seconds: float = 30.0     # of post-copy, with PostgreSQL
    crash_transactions: int = 2000  # of pgbench, per second: all it can
    # Applications in a Debian guest
    app_memory: int = 320           # MiB
    app_link_mbit: int = 160
    app_warm_up: float = 15.0       # seconds of load; QEMU translates the code
    app_before: float = 20.0        # seconds of load that are measured
    app_after: float = 5.0          # seconds of load after the move
    app_give_up: float = 3.0        # waiting; times disk / speed of the link
    app_transactions: int = 12      # of pgbench, per second
    app_requests: int = 60          # to the web server, per second
    app_iops: int = 300             # of fio, reads; and as many writes
    app_steps: int = 8              # of the build, per second
    # The paper's workloads, in the same guest with more packages
    paper_link_mbit: int = 1000     # as the paper's
    paper_pages: int = 10           # of the web site, per second
    paper_video_kbit: int = 2000    # per second
    paper_bonnie_mib: int = 192     # its file
    paper_away: float = 30.0        # seconds between the way there and back
    paper_cost_mib: int = 320       # its file, where tracking is measured
    paper_cost_chars: int = 1       # MiB that are written byte by byte
    paper_pairs: int = 6            # of runs with and without it
    # Memory by reference, in the same guest without the paper's packages
    memory_guests: int = 6          # siblings
    memory_links_mbit: tuple[int, ...] = (160, 1000)
    memory_trips_ms: tuple[int, ...] = (20, 50, 100)    # round trips
    memory_away: float = 240.0      # seconds, until a guest moves back
    memory_give_up: float = 180.0   # seconds, waiting for any one event
    memory_reads_kib: int = 4096    # per second, of a guest that reads files

    @property
    def few_rounds(self) -> int:
        """Of sections that take long and whose figures vary little."""
        return (self.rounds + 1) // 2

    @property
    def many_rounds(self) -> int:
        """Of measurements that take little time and vary much."""
        return 2 * self.rounds - 1

    @property
    def link_bytes(self) -> float:
        """Speed of the link in bytes per second."""
        return self.link_mbit * 1e6 / 8

    @property
    def app_link_bytes(self) -> float:
        return self.app_link_mbit * 1e6 / 8


def quick() -> Settings:
    """To see that everything works; the figures mean little."""
    return Settings(rounds=1, links_mbit=(80, 640),
                    disk=64 * MIB, data=32 * MIB,
                    thin_disk=1 * GIB, thin_data=8 * MIB,
                    before_seconds=2.0, back_writes=(2 * MIB, 8 * MIB),
                    away_seconds=4.0, count=2.0, give_up=20.0,
                    verify_all=False, cpu_data=64 * MIB,
                    pull_data=32 * MIB, pull_precopy=4, pull_seconds=2.0,
                    scale_sizes=(1 * GIB, 16 * GIB), scale_data=16 * MIB,
                    scale_disks=(1, 4), scale_channels=(1, 4),
                    scale_memory=(256, 512), delay_trips_ms=(0, 50),
                    delay_data=16 * MIB, delay_give_up=20.0,
                    crash_data=16 * MIB, crash_pairs=1, crash_precopy=5,
                    crash_seconds=5.0,
                    app_link_mbit=1000, app_warm_up=3.0, app_before=3.0,
                    app_after=3.0, paper_bonnie_mib=64, paper_away=5.0,
                    paper_cost_mib=192, paper_pairs=2, memory_guests=2,
                    memory_away=20.0,
                    memory_trips_ms=(20,))


def machine(size: int, fmt: str = 'raw') -> MachineConfig:
    return MachineConfig((DiskConfig('vd0', fmt=fmt, size=size),),
                         memory=MEMORY_MIB)
