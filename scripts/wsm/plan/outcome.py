# SPDX-License-Identifier: GPL-2.0-or-later
"""What a failed attempt means, and what a guest that never converges gets."""

import enum
import re
from dataclasses import dataclass
from typing import Optional, Sequence

RETRY_WAIT = (30.0, 120.0)      # s
LADDER = (1.0, 1.5, 2.0, 3.0)   # times the first downtime-limit
LAST_WORDS = 8192               # bytes of stderr that are read


class Kind(enum.Enum):
    """Classes of failures."""

    CONFIG = "config"           # the same again fails again
    SPACE = "space"             # another host may do
    NETWORK = "network"         # another host may do
    LINK = "link"               # the same again may do
    CANCELLED = "cancelled"


PATTERNS = (
    (Kind.CANCELLED, r"cancel"),
    (Kind.SPACE, r"no space left|enospc|disk quota|too full|not enough space"),
    (Kind.CONFIG, r"uuid|machine type|whole-system|gives up|refuses|unknown "
     r"ramblock|size|length mismatch|device|could not open|permission denied|"
     r"is read-only|missing|not supported|invalid|property|wsm-adopt"),
    (Kind.NETWORK, r"connection refused|no route|unreachable|resolve|"
     r"address already in use|handshake|tls|certificate"),
    (Kind.LINK, r"reset by peer|broken pipe|timed out|eof|input/output|"
     r"connection|channel|silent"),
)


def kind_of(reason: str, last_words: str = "") -> Kind:
    """
    Return the class of a failure.

    The reason is often only in what the destination said last: the source
    then sees no more than a connection that broke.
    """
    for text in (last_words.lower(), reason.lower()):
        for kind, pattern in PATTERNS:
            if re.search(pattern, text):
                return kind
    return Kind.LINK


@dataclass(frozen=True)
class Retry:
    """Whether and how to try again."""

    wait: float                 # s
    elsewhere: bool


def retry(kind: Kind, tries: int) -> Optional[Retry]:
    """Return what to do after @tries failed attempts, None to give up."""
    if kind in (Kind.CONFIG, Kind.CANCELLED) or tries > len(RETRY_WAIT):
        return None
    return Retry(RETRY_WAIT[tries - 1], kind in (Kind.SPACE, Kind.NETWORK))


class Push(enum.Enum):
    """What helps memory that does not converge."""

    WAIT = "wait"
    DOWNTIME = "downtime"
    THROTTLE = "auto-converge"
    POSTCOPY = "postcopy-ram"
    CANCEL = "cancel"


def converge(left: Sequence[int], downtime: float, most: float, used: int,
             throttle: bool, postcopy: bool) -> tuple[Push, float]:
    """
    Return (what to do, downtime-limit in s) for memory in its rounds.

    @left is what was left after each round, @used how many of these things
    were done since.  It does not converge if two rounds did not shrink it.
    """
    if len(left) < 3 or not left[-1] >= left[-2] >= left[-3]:
        return Push.WAIT, downtime
    steps = [min(downtime * each, most) for each in LADDER[1:]]
    steps = [each for number, each in enumerate(steps)
             if each > ([downtime] + steps)[number]]
    if used < len(steps):
        return Push.DOWNTIME, steps[used]
    last = steps[-1] if steps else downtime
    more = [push for push, allowed in ((Push.THROTTLE, throttle),
                                       (Push.POSTCOPY, postcopy)) if allowed]
    number = used - len(steps)
    return (more[number] if number < len(more) else Push.CANCEL), last
