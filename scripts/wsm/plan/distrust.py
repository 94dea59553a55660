# SPDX-License-Identifier: GPL-2.0-or-later
"""Pairs of hosts between which the network is bad: no move begins there.

Only a host that is to be emptied, or is about to fail, is left nevertheless.
"""

import re
from collections import Counter
from dataclasses import dataclass
from typing import Iterable, Iterator

from wsm.plan.fleet import Fleet
from wsm.plan.inventory import HostState
from wsm.plan.outcome import PATTERNS, Kind, kind_of
from wsm.plan.policy import Hot
from wsm.plan.ruling import Rule, RuleKind

SPAN = 600.0                    # s in which
CUTS = 3                        # so many cuts are too many
NET = (Kind.NETWORK, Kind.LINK)


@dataclass(frozen=True)
class Cut:
    """A connection of a move has broken, or none could be made."""

    at: float                   # s
    one: str
    two: str


def is_cut(reason: str) -> bool:
    """Return whether a move has failed by its network, as far as is said."""
    text = reason.lower()
    return kind_of(text) in NET and any(
        kind in NET and re.search(pattern, text)
        for kind, pattern in PATTERNS)


def bad(cuts: Iterable[Cut], now: float) -> dict[tuple[str, str], str]:
    """Return the pairs, in the order of names, and what is said of them."""
    count = Counter((min(cut.one, cut.two), max(cut.one, cut.two))
                    for cut in cuts if now - SPAN < cut.at)
    return {(one, two): f"the network between {one} and {two} is bad: "
            f"{number} cuts in {SPAN / 60:.0f} minutes"
            for (one, two), number in sorted(count.items())
            if number >= CUTS}


def rules(fleet: Fleet, pairs: dict[tuple[str, str], str],
          hot: Hot) -> Iterator[Rule]:
    """Yield rules that keep VMs from these ways."""
    for pair, words in pairs.items():
        for here, there in (pair, pair[::-1]):
            node = fleet.nodes.get(here)
            if node is None or node.host.state is HostState.DRAINING:
                continue
            health = node.signs.get("health")
            vms = tuple(sorted(node.guests - set(fleet.flights)))
            if vms and (health is None or health.now >= hot.health):
                yield Rule(RuleKind.NOT, vms, (there,), words=words)
