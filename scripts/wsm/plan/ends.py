# SPDX-License-Identifier: GPL-2.0-or-later
"""The two ends of a move, as they are observed."""

import enum
from dataclasses import dataclass


class Word(enum.Enum):
    """What one end is doing: exactly one of these."""

    HERE = "here"               # QEMU answers, and knows no such move
    PRE = "pre"                 # setup to ram-precopy; it waits for a source
    FREEZE = "freeze"
    FAILED = "failed"           # or cancelled, before a handover
    POSTCOPY = "postcopy"
    PAUSED = "paused"           # after the handover, its connection is broken
    COMPLETED = "completed"
    DEAD = "dead"               # no QEMU; the agent says so
    SILENT = "silent"           # host, agent, or QEMU's monitor: no answer


class File(enum.Enum):
    """What owner.json says."""

    NONE = "none"
    OWNER = "owner"
    LEAVING = "leaving"
    INCOMING = "incoming"
    GONE = "gone"


class Stage(enum.IntEnum):
    """The last step that the journal has: each is written before it begins."""

    BOOKED = 0
    BEGUN = 1
    PREPARED = 2
    PERFORMED = 3
    ENDED = 4


class Owner(enum.Enum):
    """Who has the guest."""

    SOURCE = "source"
    DESTINATION = "destination"
    UNCLEAR = "unclear"         # one of them, or lost: a person must look
    BOTH = "both"               # two guests: must not be


@dataclass(frozen=True)
class End:
    """One end, seen once."""

    word: Word
    file: File = File.NONE
    epoch: int = 0
    prepared: bool = False      # the destination: compared, and listening
    shut: bool = False          # the guest has ended by its own or an order
    still: float = 0.0          # s without progress; 0: it moves, or is limited
    connected: bool = False     # channel 0
    whole: bool = False         # no record says that its images are not
    never_ran: bool = False     # the agent saw all its events: no postcopy
    missing: int = 0            # bytes that the destination lacks
    reason: str = ""            # error of QEMU, with its last words


@dataclass(frozen=True)
class Observed:
    """Both ends, and what the journal says."""

    source: End
    destination: End
    stage: Stage = Stage.BOOKED
    cancel: bool = False        # somebody wants no move any more
    tries: int = 0              # times that a broken link was mended


# Phases of query-wsm until the decision
EARLY = ("setup", "disk-precopy", "ram-precopy")
ENDED = ("failed", "cancelled")
PAUSES = ("postcopy-paused", "postcopy-recover-setup", "postcopy-recover")


def word_of(role: str, phase: str, phases: tuple[str, ...], status: str,
            mine: bool = True) -> Word:
    """Return the word for what query-wsm and query-migrate say.

    @mine tells whether its session is that of this move; @status is that of
    query-migrate.
    """
    if status in PAUSES and phase == "postcopy":
        return Word.PAUSED
    if role == "none" or phase == "none" or not mine:
        return Word.PRE if mine and status == "setup" else Word.HERE
    if phase in ENDED:
        return Word.PAUSED if "postcopy" in phases else Word.FAILED
    return Word.PRE if phase in EARLY else Word(phase)
