# SPDX-License-Identifier: GPL-2.0-or-later
"""What is to be done in a move, given what both ends are doing.

Every pair of ends fits exactly one row of ROWS; a row's function says what
comes next.  Nobody remembers anything but the journal: whoever comes back
looks at both ends, asks next_step(), does it, and looks again.

QEMU's own law is above all: until the handover the guest is the source's,
after it the destination's.
"""

import enum
from dataclasses import dataclass
from typing import Callable, Optional

from wsm.plan.ends import End, File, Observed, Owner, Stage, Word

STILL = 15.0            # s without progress: the link is silent
ALARM = 60.0            # s after which a person is told
BACKOFF = (2.0, 4.0, 8.0, 16.0, 32.0, 60.0)


class Do(enum.Enum):
    """What an executor can do.  Each may be done again at any time."""

    WAIT = "wait"                       # look again after Step.wait
    BEGIN = "begin"                     # source: lock, facts
    PREPARE = "prepare"                 # destination: QEMU that waits
    PERFORM = "perform"                 # source: 'leaving', then migrate
    CANCEL = "cancel"                   # source: migrate_cancel
    KEEP = "keep"                       # source: file back to 'owner'
    CLEAN = "clean"                     # destination: end QEMU, keep images
    HAND_OVER = "hand-over"             # files: 'gone', 'owner'
    FINISH = "finish"                   # source: quit; destination: keys
    KILL_SOURCE = "kill-source"         # kill -9; destination has all
    BREAK_SOURCE = "break-source"       # yank
    BREAK_DESTINATION = "break-destination"     # migrate-pause
    RECOVER = "recover"                 # migrate-recover, migrate resume
    FENCE = "fence"                     # end the destination provably, token
    RESTART = "restart"                 # source: boot, wsm-adopt, cont
    CLOSE = "close"                     # journal: ended


@dataclass(frozen=True)
class Step:
    """What comes next."""

    do: tuple[Do, ...]
    owner: Owner
    text: str
    wait: float = 1.0           # s until the next look
    alarm: bool = False         # a person should know
    person: bool = False        # nothing goes on without one
    row: str = ""


# Functions of the rows.  Each is called only with ends that fit its row.


def early(seen: Observed) -> Step:
    """The guest is the source's and on its way."""
    if seen.cancel or seen.stage < Stage.PERFORMED:
        return Step((Do.CANCEL, Do.WAIT), Owner.SOURCE,
                    "the move is cancelled" if seen.cancel else
                    "a migration runs that no journal knows: it is cancelled")
    if seen.source.still > STILL:
        return Step((Do.CANCEL, Do.BREAK_SOURCE, Do.WAIT), Owner.SOURCE,
                    f"nothing has moved for {seen.source.still:.0f} s: the "
                    "link is silent, the move is cancelled")
    return Step((Do.WAIT,), Owner.SOURCE, "under way")


def failed(seen: Observed) -> Step:
    """The guest runs on at the source."""
    there = seen.destination.reason
    reason = "; ".join(filter(None, (
        seen.source.reason, there and f"the destination said: {there}")))
    return Step((Do.KEEP, Do.CLEAN, Do.CLOSE), Owner.SOURCE,
                "the guest runs on at the source: "
                + (reason or "no reason given"))


def failed_silent(seen: Observed) -> Step:
    """The same, but the destination cannot be cleaned yet."""
    return Step((Do.KEEP, Do.WAIT), Owner.SOURCE,
                "the guest runs on at the source; the destination does not "
                "answer and is cleaned when it does", wait=10.0,
                alarm=seen.destination.still > ALARM)


def before(seen: Observed) -> Step:
    """No migration has begun, and nothing is at the destination."""
    if seen.cancel or seen.stage >= Stage.PERFORMED:
        return Step((Do.KEEP, Do.CLEAN, Do.CLOSE), Owner.SOURCE,
                    "cancelled before it began" if seen.cancel else
                    "the migration never began, or its QEMUs were started "
                    "anew: the guest is at the source; "
                    + (seen.destination.reason or "no reason given"))
    if seen.stage < Stage.BEGUN:
        return Step((Do.BEGIN,), Owner.SOURCE, "look at the source", wait=0.0)
    return Step((Do.PREPARE,), Owner.SOURCE, "start QEMU at the destination",
                wait=0.0)


def ready(seen: Observed) -> Step:
    """The destination's QEMU waits for the guest."""
    if seen.cancel:
        return failed(seen)
    if seen.stage < Stage.PREPARED:
        return Step((Do.CLEAN,), Owner.SOURCE, "an old QEMU waits at the "
                    "destination: it is ended", wait=0.0)
    if not seen.destination.prepared:
        return Step((Do.PREPARE,), Owner.SOURCE, "go on to prepare the "
                    "destination", wait=0.0)
    return Step((Do.PERFORM,), Owner.SOURCE, "migrate", wait=0.0)


def before_silent(seen: Observed) -> Step:
    """No migration has begun, and the destination does not answer."""
    if seen.cancel and seen.stage < Stage.PREPARED:
        return Step((Do.KEEP, Do.CLOSE), Owner.SOURCE,
                    "cancelled before anything was made")
    if seen.cancel or seen.stage >= Stage.PERFORMED:
        return failed_silent(seen)
    return Step((Do.WAIT,), Owner.SOURCE, "the destination does not answer; "
                "the guest runs at the source, and nothing was sent",
                wait=2.0, alarm=True)


def finish(seen: Observed) -> Step:
    """The destination has all; the end waits until it knows that itself."""
    knows = seen.destination.word in (Word.COMPLETED, Word.HERE, Word.DEAD)
    return Step((Do.HAND_OVER, Do.FINISH, Do.CLOSE if knows else Do.WAIT),
                Owner.DESTINATION, "all is at the destination",
                alarm=not knows and seen.destination.still > ALARM)


def go_on_its_way(seen: Observed) -> Step:
    """The source has handed over, the destination does not know it yet."""
    still = max(seen.source.still, seen.destination.still)
    if still > STILL and seen.source.word is Word.PAUSED:
        return mend(seen, "the word of the handover has not arrived")
    return Step((Do.WAIT,), Owner.DESTINATION,
                "the guest is handed over; its word is on its way",
                alarm=still > ALARM)


def after(seen: Observed) -> Step:
    """The guest runs at the destination and its blocks come."""
    still = max(seen.source.still, seen.destination.still)
    if still > STILL and seen.destination.word is not Word.COMPLETED:
        return Step((Do.HAND_OVER, Do.BREAK_SOURCE, Do.BREAK_DESTINATION),
                    Owner.DESTINATION, f"nothing has moved for {still:.0f} s: "
                    "the silent connections are broken, to mend them")
    return Step((Do.HAND_OVER, Do.WAIT), Owner.DESTINATION,
                "the guest runs at the destination, missing blocks follow")


def nobody_needs_source(_seen: Observed) -> Step:
    """The destination has all, the source did not hear of it."""
    return Step((Do.HAND_OVER, Do.KILL_SOURCE, Do.FINISH, Do.CLOSE),
                Owner.DESTINATION, "all is at the destination; the source "
                "did not hear of it and is ended")


def mend(seen: Observed, why: str = "the link is broken") -> Step:
    """Connect the two again: for ever, and never end one of them."""
    wait = BACKOFF[min(seen.tries, len(BACKOFF) - 1)]
    do: tuple[Do, ...] = (Do.RECOVER,)
    if seen.source.word is Word.POSTCOPY:
        do = (Do.BREAK_SOURCE, *do)
    if seen.destination.word is Word.POSTCOPY:
        do = (Do.BREAK_DESTINATION, *do)
    if seen.destination.word in (Word.POSTCOPY, Word.PAUSED):
        do = (Do.HAND_OVER, *do)
    return Step(do, Owner.DESTINATION, f"{why}: try {seen.tries + 1}",
                wait=wait, alarm=seen.tries >= len(BACKOFF))


def broken(seen: Observed) -> Step:
    """The guest runs at the destination, the connection is broken."""
    return mend(seen)


def lost(seen: Observed) -> Step:
    """The destination is gone after the handover."""
    return Step((Do.WAIT,), Owner.UNCLEAR,
                "the destination has ended after the handover: memory, and "
                "what was written since, is lost. The source's disks are as "
                "of the handover: 'wsmctl recover VM --from-source "
                "--accept-loss' boots them. "
                + seen.destination.reason, wait=60.0, alarm=True, person=True)


def wait_for_destination(_seen: Observed) -> Step:
    """The destination does not answer after the handover."""
    return Step((Do.WAIT,), Owner.DESTINATION, "the destination does not "
                "answer; the guest is its own", wait=5.0, alarm=True)


def source_gone(_seen: Observed) -> Step:
    """The source has ended and is not needed."""
    return Step((Do.HAND_OVER, Do.FINISH, Do.CLOSE), Owner.DESTINATION,
                "all is at the destination; the source has ended already")


def blocks_lost(seen: Observed) -> Step:
    """The source has ended, and the destination lacks blocks."""
    if not seen.destination.missing:
        return Step((Do.HAND_OVER, Do.WAIT), Owner.DESTINATION, "the source "
                    "has ended and is not needed: the destination completes")
    return Step((Do.HAND_OVER, Do.WAIT), Owner.DESTINATION,
                f"the source has ended, and {seen.destination.missing} bytes "
                "of the disks are only in its images. The guest runs at the "
                "destination until it reads one of them. 'wsm-serve' of all "
                "of these images, at their host, gives it the rest; 'wsmctl "
                "recover VM' says what else can be done",
                wait=60.0, alarm=True, person=True)


def memory_lost(seen: Observed) -> Step:
    """The source has ended before the handover: its disks are whole."""
    if seen.destination.file is File.OWNER:
        return person("the source has ended, and the destination's file says "
                      "that the guest is there, but its QEMU does not")
    if seen.source.shut or seen.stage < Stage.PERFORMED:
        return Step((Do.FENCE, Do.KEEP, Do.CLEAN, Do.CLOSE), Owner.SOURCE,
                    "the guest has ended at the source before it moved")
    return Step((Do.FENCE, Do.RESTART, Do.CLEAN, Do.CLOSE), Owner.SOURCE,
                "the source has ended before the handover: its memory is "
                "lost, its disks are not; it is booted again")


def both_dead(seen: Observed) -> Step:
    """No QEMU is left: the files decide."""
    there = seen.destination
    if there.file is File.OWNER:
        if there.whole:
            return Step((Do.FINISH, Do.CLOSE), Owner.DESTINATION,
                        "the guest was the destination's and has ended there")
        return person("the guest was the destination's and has ended there "
                      "before all blocks had come. The rest is in the "
                      "source's images: 'wsm-serve' of all of these gives it "
                      "to 'wsm-finish' of the destination's. Keep both")
    if seen.stage < Stage.PERFORMED:
        return Step((Do.KEEP, Do.CLEAN, Do.CLOSE), Owner.SOURCE,
                    "the guest has ended at the source before it moved")
    if seen.source.file is File.OWNER and there.file in (File.NONE, File.GONE):
        return Step((Do.CLEAN, Do.CLOSE), Owner.SOURCE,
                    "the guest was the source's and has ended there")
    if there.never_ran and there.file in (File.INCOMING, File.GONE, File.NONE):
        return memory_lost(seen)
    return person("both QEMUs have ended, and nobody saw whether the guest "
                  "was handed over")


def runs_there(_seen: Observed) -> Step:
    """The source does not answer; the guest is the destination's."""
    return Step((Do.HAND_OVER, Do.WAIT), Owner.DESTINATION,
                "the guest runs at the destination; the source does not "
                "answer", wait=5.0, alarm=True)


def source_or_nowhere(seen: Observed) -> Step:
    """The source does not answer; nothing may be started."""
    if seen.stage < Stage.PERFORMED and seen.destination.word is Word.DEAD:
        return Step((Do.CLEAN, Do.WAIT), Owner.SOURCE, "the source does not "
                    "answer; nothing was begun", wait=5.0, alarm=True)
    return Step((Do.WAIT,), Owner.UNCLEAR, "the source does not answer: the "
                "guest is there or nowhere. Nothing is started elsewhere",
                wait=5.0, alarm=True)


def nobody_answers(_seen: Observed) -> Step:
    """Nothing can be known."""
    return Step((Do.WAIT,), Owner.UNCLEAR, "too little answers to know where "
                "the guest is; nothing is started", wait=5.0, alarm=True)


def booted_there(seen: Observed) -> Step:
    """The source has ended; the destination runs it without a move."""
    if seen.destination.file is File.OWNER:
        return Step((Do.FINISH, Do.CLOSE), Owner.DESTINATION,
                    "the guest is the destination's, and was started anew")
    return person("a QEMU of this VM runs at the destination, but nobody gave "
                  "it the guest")


def split(_seen: Observed) -> Step:
    """Two QEMUs may run the guest."""
    return Step((Do.WAIT,), Owner.BOTH, "SPLIT: both hosts have a QEMU that "
                "may run this guest. Nothing is done for this VM until a "
                "person has ended one of them", wait=60.0, alarm=True,
                person=True)


def booted_there_silent(_seen: Observed) -> Step:
    """The destination runs the VM without a move, the source is silent."""
    return Step((Do.WAIT,), Owner.UNCLEAR, "a QEMU of this VM runs at the "
                "destination without a move, and the source does not answer",
                wait=60.0, alarm=True, person=True)


def person(text: str) -> Step:
    """Return a step that a person must take."""
    return Step((Do.WAIT,), Owner.UNCLEAR, f"{text}. A person must decide: "
                "'wsmctl recover VM'", wait=60.0, alarm=True, person=True)


@dataclass(frozen=True)
class Row:
    """A row of the table."""

    name: str
    source: frozenset[Word]
    destination: frozenset[Word]
    act: Callable[[Observed], Step]

    def fits(self, source: Word, destination: Word) -> bool:
        """Return whether a pair of ends is in this row."""
        return source in self.source and destination in self.destination


def words(text: str) -> frozenset[Word]:
    """Return the words in "pre freeze"; "*" is any, "-here" takes one out."""
    found = set(Word) if "*" in text else set()
    for each in text.replace("*", "").split():
        if each.startswith("-"):
            found.discard(Word(each[1:]))
        else:
            found.add(Word(each))
    return frozenset(found)


def row(name: str, source: str, destination: str,
        act: Callable[[Observed], Step]) -> Row:
    """Return a row."""
    return Row(name, words(source), words(destination), act)


ROWS = (
    # Nothing has begun, as far as the source's QEMU knows
    row("before", "here", "dead", before),
    row("ready", "here", "pre", ready),
    row("before, destination useless", "here", "failed", failed),
    row("before, destination silent", "here", "silent", before_silent),
    # The guest is the source's
    row("early", "pre freeze", "* -here", early),
    row("failed", "failed", "* -here -silent", failed),
    row("failed, destination silent", "failed", "silent", failed_silent),
    # All is there
    row("completed", "completed", "*", finish),
    row("source did not hear", "paused", "completed", nobody_needs_source),
    # The guest is the destination's, and the source is needed
    row("GO on its way", "postcopy paused", "pre freeze", go_on_its_way),
    row("after", "postcopy", "postcopy completed", after),
    row("link broken", "postcopy", "paused", broken),
    row("link broken, source knows", "paused", "postcopy paused", broken),
    row("destination lost", "postcopy paused", "dead failed", lost),
    row("destination silent", "postcopy paused", "silent",
        wait_for_destination),
    # The source has ended
    row("source not needed", "dead", "completed", source_gone),
    row("blocks lost", "dead", "postcopy paused", blocks_lost),
    row("memory lost", "dead", "pre freeze failed", memory_lost),
    row("both dead", "dead", "dead", both_dead),
    row("started there", "dead", "here", booted_there),
    # The source does not answer
    row("source silent after", "silent", "postcopy paused completed",
        runs_there),
    row("source silent before", "silent", "pre freeze failed dead",
        source_or_nowhere),
    row("started there, source silent", "silent", "here",
        booted_there_silent),
    row("nobody answers", "dead silent", "silent", nobody_answers),
    # Two that may run
    row("split", "here pre freeze failed postcopy paused", "here", split),
    # Also one in 'freeze': the word that lets it run may lie in its socket
    row("split after", "here", "freeze postcopy paused completed", split),
)


def row_of(source: Word, destination: Word) -> Row:
    """Return the one row for a pair of ends."""
    found: Optional[Row] = None
    for each in ROWS:
        if each.fits(source, destination):
            assert found is None, f"{found} and {each}"
            found = each
    assert found is not None, f"no row for {source}, {destination}"
    return found


def next_step(seen: Observed) -> Step:
    """Return what is to be done."""
    found = row_of(seen.source.word, seen.destination.word)
    step = found.act(seen)
    return Step(step.do, step.owner, step.text, step.wait, step.alarm,
                step.person, found.name)


def may_boot(here: End) -> bool:
    """Return whether an agent may boot its VM: only an owner's."""
    return here.word is Word.DEAD and here.file is File.OWNER
