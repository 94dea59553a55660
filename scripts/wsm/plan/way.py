# SPDX-License-Identifier: GPL-2.0-or-later
"""How fast TCP can be on a way with a round trip and losses.

A connection has at most a window under way in each round trip, and with losses
no more than Mathis et al. (1997) say: MSS / (RTT sqrt(2 p / 3)).
"""

import math
from typing import Optional

from wsm.plan.grants import USEFUL
from wsm.plan.inventory import Host, Way

WINDOW = 3.0 * (1 << 20)        # bytes: what kernels let a connection have
SEGMENT = 1448                  # bytes
SURE = 3                        # losses that are no chance
CONNECTIONS = 2                 # that a move has: memory, and a channel of blocks


def between(one: Host, two: Host) -> Optional[Way]:
    """Return the way between two hosts, as the one that knows it newest says."""
    found = [way for way in (one.ways.get(two.name), two.ways.get(one.name))
             if way]
    return max(found, key=lambda way: way.at) if found else None


def loss(way: Way) -> float:
    """Return the part of the segments that are lost; 0: hardly any were."""
    return way.lost / max(way.sent, 1) if way.lost >= SURE else 0.0


def most(way: Way) -> float:
    """Return the bytes/s that a move can have on a way."""
    rtt = max(way.rtt, 1e-6)
    rate = WINDOW / rtt
    if part := loss(way):
        rate = min(rate, SEGMENT / rtt * math.sqrt(1.5 / part))
    return CONNECTIONS * rate


def text(way: Way) -> str:
    """Say what a way is like."""
    rate = most(way)
    return (f"round trip {1000 * way.rtt:.2f} ms, {way.lost} of {way.sent} "
            "segments were sent again: TCP carries "
            + ("what any link has" if rate > USEFUL else
               f"at most {rate * 8 / 1e6:.0f} Mbit/s"))
