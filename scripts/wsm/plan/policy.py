# SPDX-License-Identifier: GPL-2.0-or-later
"""When a host is too full, and how much may be done about it.

All figures that are a matter of opinion are here and nowhere else.  They can
be set in policy.toml, by the same names.
"""

from dataclasses import dataclass, field, fields
from typing import Mapping

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
    # Of signs: see fleet.SIGNS
    wait: Limit = Limit(0.10, 0.30, 0.05)
    memory: Limit = Limit(0.92, 0.98, 0.90)
    stall: Limit = Limit(0.05, 0.20, 0.00)
    latency: Limit = Limit(0.030, 0.100, 0.020)


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
    # Of the way from limit to hard: if the peak of the last hour did not come
    # so far, a move would help nobody; 0: any host over its limit
    near: float = 0.5
    lasting: float = 30.0       # s over hard: no more samples are waited for
    limits: Limits = Limits()
    swap: float = float(1 << 20)        # bytes/s that a host swaps out,
    swap_hard: float = float(8 << 20)
    health: float = 0.3         # under it, a host is emptied
    stale: float = 3.0          # intervals without a sample: nothing is known

    @property
    def newest(self) -> int:
        """Of so many of the newest samples one is over, or it is not hot."""
        return self.of - self.over + 1


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
    spots: int = 40             # hot spots that are looked at in a round
    swaps: int = 64             # of VMs of two hosts that are tried; 0: none
    swap_least: float = 0.10    # part of the host that a swap must free
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
    bytes_a_day: float = 0.0    # through the link of a host; 0: as many


@dataclass(frozen=True)
class Breaker:
    """When no more moves begin but with a person's consent."""

    span: float = 3600.0        # s in which moves fail, or calm.memory:
    uncooled: int = 3           # moves that did not cool a host in calm.memory
    cools: float = 300.0        # s after a move in which it must have
    failed: float = 0.10        # part of all moves that failed,
    failures: int = 3           # and at least so many
    back: int = 2               # times that a VM came back within calm.memory


@dataclass(frozen=True)
class Drain:
    """How a host is emptied."""

    tries: int = 20             # orders in which its VMs are placed
    after: float = 0.80         # how full a host may become for it
    fast: int = 20000           # Mbit/s of links that carry two moves at once


@dataclass(frozen=True)
class Balance:
    """Moves that are for no hot spot."""

    on: bool = False
    gap: float = 0.25           # of the fullest and the emptiest host,
    minutes: int = 30           # in each of so many
    gain: float = 0.10          # part of it that a move must close
    flying: int = 2


@dataclass(frozen=True)
class Pack:
    """Empty hosts, so that they can be switched off."""

    on: bool = False
    spare: int = 2              # hosts without which all must fit,
    room: float = 0.20          # with so much room
    pause: float = 1800.0       # s between two hosts


@dataclass(frozen=True)
class Shared:
    """A link that more hosts share."""

    mbit: float
    hosts: tuple[str, ...]      # behind it: a move in or out goes through


@dataclass(frozen=True)
class Links:
    """How moves share links."""

    share: float = 0.80         # of a link, for all moves
    least: float = 0.05         # and so much although others use it all
    queue: float = 0.25         # of a link: a move for which less is left waits
    postcopy: float = 4.0       # weight of a move whose guest runs there,
    gold: float = 2.0           # of one that helps a gold VM; others: 1
    shared: Mapping[str, Shared] = field(default_factory=dict)


@dataclass(frozen=True)
class Deadline:
    """When a move with a deadline begins by itself."""

    slack: float = 3.0          # times what it takes at full speed before that,
    spare: float = 60.0         # and at least so many s longer than it takes


@dataclass(frozen=True)
class Policy:
    """All of it."""

    interval: float = 10.0      # s between samples
    hot: Hot = Hot()
    relief: Relief = Relief()
    calm: Calm = Calm()
    breaker: Breaker = Breaker()
    drain: Drain = Drain()
    balance: Balance = Balance()
    pack: Pack = Pack()
    links: Links = Links()
    deadline: Deadline = Deadline()


def loads(text: str) -> Policy:
    """Return the policy in the TOML @text; raise BadData."""
    policy = toml.loads(Policy, text)
    hot = policy.hot
    if not 1 <= hot.over <= hot.of:
        raise BadData(f"hot: over = {hot.over} of {hot.of} samples can never "
                      "be")
    if not 0.0 <= hot.near <= 1.0:
        raise BadData(f"hot: near = {hot.near} is a part of the way from "
                      "limit to hard, 0 to 1")
    for name in (each.name for each in fields(Limits)):
        each = getattr(hot.limits, name)
        if not each.release < each.limit <= each.hard:
            raise BadData(f"hot.limits.{name}: release {each.release}, limit "
                          f"{each.limit} and hard {each.hard} must rise")
    check_links(policy.links)
    if policy.deadline.slack < 1 or policy.deadline.spare < 0:
        raise BadData(f"deadline: slack = {policy.deadline.slack} is at least "
                      f"1, spare = {policy.deadline.spare} at least 0")
    return policy


def check_links(links: Links) -> None:
    """Raise BadData if moves would get nothing, or more than there is."""
    if not 0 < links.least <= links.share <= 1 or not 0 <= links.queue <= 1:
        raise BadData(f"links: least {links.least} and share {links.share} "
                      f"must rise, from more than 0 to 1, and queue "
                      f"{links.queue} is a part, too")
    if min(links.postcopy, links.gold) <= 0:
        raise BadData(f"links: postcopy {links.postcopy} and gold "
                      f"{links.gold} are weights, more than 0")
    for name, link in links.shared.items():
        if link.mbit <= 0:
            raise BadData(f"links.shared.{name}: mbit = {link.mbit}: more "
                          "than 0 is needed")
