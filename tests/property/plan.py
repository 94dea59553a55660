# SPDX-License-Identifier: GPL-2.0-or-later
"""What shall happen in one migration."""

import random
from dataclasses import dataclass
from typing import Any

from dev.rig.image import MIB
from tests.property.world import World

ENDS = ('complete',) * 8 + ('cancel', 'kill-source', 'kill-dest')


@dataclass
class Plan:
    """What shall happen; drawn before it happens, so that it can again."""
    target: int
    end: str
    paused: bool
    points: int                 # option sync-points
    wish: str
    options: dict[str, Any]
    hold: bool                  # write in pre-copy
    delay: float                # until the end, if it is not complete
    late: bool                  # read and write in post-copy
    kill_after: bool            # the source's QEMU, instead of quit


def draw(world: World, rng: random.Random) -> Plan:
    late = rng.random() < 0.3
    hold = late or rng.random() < 0.2
    end = rng.choice(ENDS)
    slow = hold or end != 'complete'
    # What is written in pre-copy is left for post-copy if that may be much
    residue = 60000 if late else rng.choice((1, 1000, 60000))
    # Mostly back to where it came from, or where something was done
    target = rng.choice(world.others())
    if rng.random() < 0.7 and world.likely != world.here:
        target = world.likely
    return Plan(
        target=target, end=end,
        paused=rng.random() < 0.15,
        points=rng.choice((8, 8, 8, 8, 3, 2, 1, 0)),
        wish=rng.choice(('auto',) * 8 + ('full', 'content')),
        options={'granularity': rng.choice(world.grains),
                 'channels': rng.choice((1, 2, 2, 5)),
                 'bandwidth': MIB if slow else 0,
                 'max_residue': residue,
                 'x_push_delay': rng.choice((50, 500)) if late else 0},
        hold=hold, delay=rng.choice((0, 0.02, 0.1, 0.3)), late=late,
        kill_after=rng.random() < 0.15)
