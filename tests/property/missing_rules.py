# SPDX-License-Identifier: GPL-2.0-or-later
"""All that can happen to a destination's image and its map of missing blocks.

A model of the rules by which a guest's disk survives a crash in post-copy
(docs/records.md), small enough to try everything: two blocks, some writes of
the guest, arrivals, flushes and checkpoints in steps, the commit of the map,
the end of the filter; and in each state a crash, with each outcome of what was
not yet durable.  Then each block must have what the guest last flushed, or
something newer: never the stale content that was there before.  After the
crash another process goes on.

What breaks a rule is a mutant: the search must find it.
"""

import enum
import itertools
from collections import deque
from typing import Iterator, NamedTuple, Optional

BLOCKS = (0, 1)
ALL = frozenset(BLOCKS)
SOURCE, STALE = "source", "stale"

Blocks = frozenset[int]
Values = tuple[str, ...]                        # one for each block


class Rule(enum.Enum):
    """What a mutant does not obey."""

    DATA_FIRST = "a mark follows the flush of its data"
    MARKS_FROM_BEFORE = "what is marked was written before that flush began"
    MARK_DURABLE = "a mark is durable before the guest's flush is answered"
    NOTE_WRITES = "a write to a block that is not marked makes the flush mark"
    NO_FUA = "a write with FUA is one with a flush, which marks"
    COMMIT_FIRST = "no flush is answered before the map is durable"
    MARK_ALL = "the filter goes when all is marked"
    READ_MAP = "another process believes the map alone"


class Step(enum.Enum):
    """How far a flush or a checkpoint is."""

    DATA = 1            # the image is being flushed
    TAKE = 2            # of a mutant: now look at what to mark
    APPEND = 3          # the mark is to be written
    MAP = 4             # the map is being flushed


class Flush(NamedTuple):
    """One that is on its way."""

    step: Step
    by_guest: bool
    marks: Blocks
    covers: tuple[int, ...]     # of each block, the number of its newest value


class Commit(enum.Enum):
    """Is the map there?"""

    NO = 0
    WRITTEN = 1
    DURABLE = 2


class State(NamedTuple):
    """Everything."""

    disk: Values = (STALE, STALE)               # durable
    pending: tuple[tuple[int, str], ...] = ()   # written to it since, in order
    missing: Blocks = ALL                       # in memory
    unmarked: Blocks = frozenset()
    urgent: bool = False                        # the next flush must mark
    commit: Commit = Commit.NO
    marked: Blocks = frozenset()                # durable
    appended: tuple[Blocks, ...] = ()           # written to the map since
    flush: Optional[Flush] = None
    # What a block may have: as flushed, and what the guest wrote since
    legal: tuple[Values, ...] = ((SOURCE,), (SOURCE,))
    writes: int = 0
    dropped: bool = False                       # the filter is gone
    life: int = 1


class Violation(NamedTuple):
    """A block that has what it must not have."""

    steps: tuple[str, ...]
    block: int
    found: str
    legal: Values


class Model:
    """The rules, or all but @broken."""

    def __init__(self, broken: Optional[Rule], writes: int,
                 lives: int) -> None:
        self.broken, self.writes, self.lives = broken, writes, lives

    def obeys(self, rule: Rule) -> bool:
        """Return whether it does."""
        return rule is not self.broken

    # The guest and the source

    def written(self, s: State, block: int) -> State:
        """The guest has written all of @block."""
        value = f"write {s.writes}"
        arrived = block not in s.missing
        unmarked = s.unmarked if arrived or s.dropped else s.unmarked | {block}
        noted = block in unmarked and (
            not arrived or self.obeys(Rule.NOTE_WRITES))
        legal = tuple(values + (value,) if b == block else values
                      for b, values in zip(BLOCKS, s.legal))
        return s._replace(
            pending=s.pending + ((block, value),), unmarked=unmarked,
            missing=s.missing - {block}, urgent=s.urgent or noted,
            legal=legal, writes=s.writes + 1)

    def fua(self, s: State, block: int) -> State:
        """Of a mutant: the same, durable and answered, but not marked."""
        s = self.written(s, block)
        value = s.pending[-1][1]
        return s._replace(
            disk=tuple(value if b == block else old
                       for b, old in zip(BLOCKS, s.disk)),
            pending=tuple(p for p in s.pending if p[0] != block),
            legal=tuple((value,) if b == block else values
                        for b, values in zip(BLOCKS, s.legal)))

    def requests(self, s: State) -> Iterator[tuple[str, State]]:
        """Yield what guest and source can do."""
        for block in BLOCKS:
            if block in s.missing:
                yield f"{block} arrives", s._replace(
                    pending=s.pending + ((block, SOURCE),),
                    missing=s.missing - {block},
                    unmarked=s.unmarked | {block})
            if s.writes < self.writes:
                yield f"{block} is written", self.written(s, block)
                if not self.obeys(Rule.NO_FUA) and s.commit is Commit.DURABLE:
                    yield f"{block} is written, FUA", self.fua(s, block)

    # Flushes

    def begin(self, s: State, by_guest: bool) -> State:
        """A flush of the guest begins, or a checkpoint."""
        marks: Blocks = frozenset()
        late = not self.obeys(Rule.MARKS_FROM_BEFORE)
        if (s.urgent or not by_guest) and not late:
            marks = s.unmarked
        covers = tuple(len(values) - 1 for values in s.legal)
        s = s._replace(flush=Flush(Step.DATA, by_guest, marks, covers))
        if marks:
            s = s._replace(unmarked=s.unmarked - marks, urgent=False)
            if not self.obeys(Rule.DATA_FIRST):
                s = s._replace(appended=s.appended + (marks,))
        return s

    def answer(self, s: State) -> State:
        """It has ended: what it covers is flushed."""
        assert s.flush
        if s.flush.by_guest:
            s = s._replace(legal=tuple(
                values[n:] if n < len(values) else values
                for values, n in zip(s.legal, s.flush.covers)))
        return s._replace(flush=None)

    def go_on(self, s: State, flush: Flush) -> Iterator[tuple[str, State]]:
        """Yield what can become of a flush."""
        if flush.step is Step.DATA:
            disk = dict(enumerate(s.disk)) | dict(s.pending)
            late = not self.obeys(Rule.MARKS_FROM_BEFORE)
            s = s._replace(disk=tuple(disk[b] for b in BLOCKS), pending=(),
                           flush=flush._replace(
                               step=Step.TAKE if late else Step.APPEND))
            yield "image flushed", self.answer(s) if s.dropped else s
        elif flush.step is Step.TAKE:
            take = s.urgent or not flush.by_guest
            marks = s.unmarked if take else frozenset()
            yield "marks taken", s._replace(
                unmarked=s.unmarked - marks, urgent=s.urgent and not take,
                flush=flush._replace(step=Step.APPEND, marks=marks))
        elif flush.step is Step.APPEND:
            yield from self.append(s, flush)
        else:
            marked = s.marked.union(*s.appended)
            yield "map flushed", self.answer(s._replace(marked=marked,
                                                        appended=()))

    def append(self, s: State, flush: Flush) -> Iterator[tuple[str, State]]:
        """Yield what can become of one whose mark is to be written."""
        if s.commit is not Commit.DURABLE:
            if not self.obeys(Rule.COMMIT_FIRST):
                yield "answered without a map", self.answer(s._replace(
                    unmarked=s.unmarked | flush.marks, urgent=True))
            return                              # it waits
        if flush.marks and self.obeys(Rule.DATA_FIRST):
            s = s._replace(appended=s.appended + (flush.marks,))
        if not self.obeys(Rule.MARK_DURABLE):
            yield "mark written, answered", self.answer(s)
        else:
            yield "mark written", s._replace(
                flush=flush._replace(step=Step.MAP))

    # The life of a process

    def next(self, s: State) -> Iterator[tuple[str, State]]:
        """Yield all that can happen next, but for crashes."""
        if s.commit is Commit.NO:
            yield "map written", s._replace(commit=Commit.WRITTEN)
        elif s.commit is Commit.WRITTEN:
            yield "map committed", s._replace(commit=Commit.DURABLE)
        yield from self.requests(s)
        if s.flush:
            yield from self.go_on(s, s.flush)
            return
        yield "guest flushes", self.begin(s, True)
        if s.unmarked and s.commit is Commit.DURABLE:
            yield "checkpoint", self.begin(s, False)
        done = not s.missing and (
            not s.unmarked or not self.obeys(Rule.MARK_ALL))
        if done and s.commit is Commit.DURABLE and not s.dropped:
            yield "filter dropped", s._replace(
                dropped=True, unmarked=frozenset(), urgent=False)

    def crash(self, s: State) -> set[tuple[Values, Optional[Blocks]]]:
        """Return what may be on disk then: contents, and marks or no map."""
        choices = [{s.disk[block]} | {value for b, value in s.pending
                                      if b == block} for block in BLOCKS]
        maps: list[Optional[Blocks]] = []
        if s.commit is not Commit.DURABLE:
            maps.append(None)
        if s.commit is not Commit.NO:
            maps += [s.marked.union(*s.appended[:n])
                     for n in range(len(s.appended) + 1)]
        return set(itertools.product(itertools.product(*choices), maps))

    def restart(self, s: State, disk: Values, marked: Blocks) -> State:
        """Another process goes on; the guest boots from what it finds."""
        missing = ALL - marked
        if not self.obeys(Rule.READ_MAP):
            missing &= s.missing
        return State(disk=disk, missing=missing, commit=Commit.DURABLE,
                     marked=marked, writes=s.writes, life=s.life + 1,
                     legal=tuple((value,) for value in found(disk, marked)))


def found(disk: Values, marked: Optional[Blocks]) -> Values:
    """Return what the guest finds in the end."""
    if marked is None:
        return (SOURCE,) * len(BLOCKS)          # the source's image is its disk
    return tuple(disk[block] if block in marked else SOURCE
                 for block in BLOCKS)


def wrong(s: State, outcome: Values) -> Optional[int]:
    """Return a block that must not be so, if any."""
    for block in BLOCKS:
        if outcome[block] not in s.legal[block]:
            return block
    return None


def search(broken: Optional[Rule], writes: int,
           lives: int) -> tuple[int, Optional[Violation]]:
    """Try everything: return the number of states, and what is wrong."""
    model = Model(broken, writes, lives)
    todo: deque[State] = deque([State()])
    # How each was reached: the one before, and by what
    seen: dict[State, Optional[tuple[State, str]]] = {State(): None}

    def trail(state: State) -> tuple[str, ...]:
        steps = []
        while (before := seen[state]) is not None:
            state, step = before
            steps.append(step)
        return tuple(reversed(steps))

    while todo:
        state = todo.popleft()
        following = list(model.next(state))
        for disk, marked in model.crash(state):
            outcome = found(disk, marked)
            block = wrong(state, outcome)
            if block is not None:
                return len(seen), Violation(trail(state), block,
                                            outcome[block],
                                            state.legal[block])
            if marked is not None and state.life < lives:
                following.append((f"crash: {disk}, marked {sorted(marked)}",
                                  model.restart(state, disk, marked)))
        for step, after in following:
            if after not in seen:
                seen[after] = state, step
                todo.append(after)
    return len(seen), None
