# SPDX-License-Identifier: GPL-2.0-or-later
"""What shall happen in one migration."""

import random
from dataclasses import dataclass, field
from typing import Any

from dev.rig.image import MIB
from tests.property.world import World

ENDS = ('complete',) * 8 + ('cancel', 'kill-source', 'kill-dest') + (
    'crash',) * 2
LIVES = 3                       # of a destination that is killed, at most
MISCHIEF = ('cut', 'damage', 'remove', 'exchange', 'of_another', 'torn',
            'older', 'beside_source')


@dataclass
class Life:
    """How a killed destination goes on."""
    offline: bool               # wsm-finish, not wsm-rejoin
    serve: bool                 # the source's images, though it may live
    runs: bool                  # the guest boots before all is there
    killed: bool                # again
    delay: float                # until then, if nothing else tells


@dataclass
class CrashPlan:
    """What shall happen if a side is killed in post-copy."""
    who: str
    committed: bool             # not before the maps are
    rounds: int                 # that the guest writes and flushes
    loose: bool                 # one more, which is not flushed
    give_up: bool               # what was written at the destination
    lives: list[Life]           # the last one is not killed
    mischief: list[list[str]]   # before each life, with the maps


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
    provoke: bool               # try it with images that it must not write to
    crash: CrashPlan = field(repr=False)


def draw_crash(rng: random.Random) -> CrashPlan:
    """Whatever happens, all of it is drawn."""
    lives = [Life(offline=rng.random() < 0.25, serve=rng.random() < 0.5,
                  runs=rng.random() < 0.5, killed=rng.random() < 0.4,
                  delay=rng.choice((0, 0.3, 0.6)))
             for _ in range(LIVES)]
    number = next((number for number, life in enumerate(lives, 1)
                   if not life.killed), LIVES)
    lives[number - 1].killed = False
    return CrashPlan(
        who=rng.choice(('destination', 'destination', 'source', 'both')),
        committed=rng.random() < 0.8, rounds=rng.choice((0, 1, 2, 4)),
        loose=rng.random() < 0.6, give_up=rng.random() < 0.15,
        lives=lives[:number],
        mischief=[rng.sample(MISCHIEF, rng.choice((1, 2, 3)))
                  for _ in range(LIVES)])


def draw(world: World, rng: random.Random) -> Plan:
    end = rng.choice(ENDS)
    late = rng.random() < 0.3 or end == 'crash'
    hold = late or rng.random() < 0.2
    slow = hold or end != 'complete'
    # What is written in pre-copy is left for post-copy if that may be much
    residue = 60000 if late else rng.choice((1, 1000, 60000))
    # Mostly back to where it came from, or where something was done
    target = rng.choice(world.others())
    if rng.random() < 0.7 and world.likely != world.here:
        target = world.likely
    push_delay = rng.choice((50, 500))
    return Plan(
        target=target, end=end,
        # What is missing later is what it writes in pre-copy
        paused=rng.random() < 0.15 and end != 'crash',
        points=rng.choice((8, 8, 8, 8, 3, 2, 1, 0)),
        wish=rng.choice(('auto',) * 8 + ('full', 'content')),
        options={'granularity': rng.choice(world.grains),
                 'channels': rng.choice((1, 2, 2, 5)),
                 'bandwidth': MIB if slow else 0,
                 'max_residue': residue,
                 'x_push_delay': (5000 if end == 'crash' else
                                  push_delay if late else 0)},
        hold=hold, delay=rng.choice((0, 0.02, 0.1, 0.3)), late=late,
        kill_after=rng.random() < 0.15, provoke=rng.random() < 0.5,
        crash=draw_crash(rng))
