# SPDX-License-Identifier: GPL-2.0-or-later
"""When a host is too full, and how much may be done about it.

All figures that are a matter of opinion are here and nowhere else.  They can
be set in policy.toml, by the same names.
"""

from dataclasses import dataclass, fields

from wsm.plan import toml
from wsm.plan.plain import BadData


@dataclass(frozen=True)
class Limit:
    """Of a figure of a host, as a part of its capacity."""

    limit: float                # over it: hot
    hard: float                 # over it: hot without a forecast
    release: float              # under it: no longer


@dataclass(frozen=True)
class Limits:
    """Of the resources that VMs share on a host."""

    cpu: Limit = Limit(0.80, 1.00, 0.70)
    rx: Limit = Limit(0.80, 0.95, 0.70)
    tx: Limit = Limit(0.80, 0.95, 0.70)
    disk: Limit = Limit(0.90, 1.00, 0.70)


@dataclass(frozen=True)
class Weights:
    """What it is worth to help a VM of a class."""

    gold: float = 4.0
    silver: float = 2.0
    bronze: float = 1.0


@dataclass(frozen=True)
class Hot:
    """When it is too hot."""

    over: int = 3               # samples over the limit,
    of: int = 5                 # of so many
    limits: Limits = Limits()
    swap: float = float(1 << 20)        # bytes/s that a host swaps out,
    swap_hard: float = float(8 << 20)
    stale: float = 3.0          # intervals without a sample: nothing is known


@dataclass(frozen=True)
class Relief:
    """Which VM goes, and where."""

    after: float = 0.65         # how full the destination may be at its peak,
    busy: float = 0.95          # or, if the source is fuller than this,
    gap: float = 0.20           # by so much less full than the source
    least: float = 0.02         # part of the host that a move must free
    min_score: float = 0.0002
    coolest: int = 8            # hosts that are looked at for each VM
    pause: float = 120.0        # s between two moves for one hot spot
    back: float = 7200.0        # s in which no VM goes back where it was
    weights: Weights = Weights()


@dataclass(frozen=True)
class Calm:
    """What keeps it from moving too much."""

    cooling: float = 1800.0     # s in which a VM that moved stays
    longest: float = 28800.0    # s, after it was doubled for each move within
    memory: float = 21600.0     # so many s
    share: float = 0.05         # of all VMs an hour
    flying: float = 0.01        # of all VMs at once, but at least
    at_once: int = 2
    young: float = 900.0        # s in which a new host takes nothing


@dataclass(frozen=True)
class Policy:
    """All of it."""

    interval: float = 10.0      # s between samples
    hot: Hot = Hot()
    relief: Relief = Relief()
    calm: Calm = Calm()


def loads(text: str) -> Policy:
    """Return the policy in the TOML @text; raise BadData."""
    policy = toml.loads(Policy, text)
    hot = policy.hot
    if not 1 <= hot.over <= hot.of:
        raise BadData(f"hot: over = {hot.over} of {hot.of} samples can never "
                      "be")
    for name in (each.name for each in fields(Limits)):
        each = getattr(hot.limits, name)
        if not each.release < each.limit <= each.hard:
            raise BadData(f"hot.limits.{name}: release {each.release}, limit "
                          f"{each.limit} and hard {each.hard} must rise")
    return policy
