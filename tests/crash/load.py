# SPDX-License-Identifier: GPL-2.0-or-later
"""The guest is told what to write."""

from dev.rig.guest import Guest
from tests.crash.flushed import Rounds
from tests.crash.sectors import SECTOR


def begin_rounds(guest: Guest, plan: Rounds, pace: int) -> None:
    """Fill the disks, and begin to write so many rounds a second."""
    for disk, count in enumerate(plan.filled):
        if count:
            guest.fill(disk, 0, count * SECTOR)
    for disk in range(len(plan.sectors)):
        start, count = plan.region(disk)
        guest.region(disk, start * SECTOR, count * SECTOR)
    guest.start(rounds=plan.writes, seed=plan.seed, pace=pace)
