# SPDX-License-Identifier: GPL-2.0-or-later
"""A model of two hosts and a move, for a check of all that can happen.

A World is what both QEMUs really do.  They go on by themselves, links break,
processes are killed at any moment.  A controller sees the ends (or one of them
as silent, or not both in the same moment), and does any part of what
next_step() says before it is killed itself.
"""

import dataclasses
import itertools
from typing import Any, Callable, Iterator

from wsm.plan.ends import End, File, Observed, Stage, Word
from wsm.plan.recovery import Do, next_step

AFTER = (Word.POSTCOPY, Word.PAUSED)
RUNS_HERE = (Word.HERE, Word.PRE, Word.FAILED)
RUNS_THERE = (*AFTER, Word.COMPLETED, Word.HERE)


class Harm(Exception):
    """Something that must never happen."""


class Refused(Exception):
    """An agent sees that it must not do this; the rest of a step is left."""


@dataclasses.dataclass(frozen=True)
class World:
    """Both hosts and the journal, as they are."""

    source: Word = Word.HERE
    destination: Word = Word.DEAD
    here: File = File.OWNER
    there: File = File.NONE
    stage: Stage = Stage.BOOKED
    prepared: bool = False
    go: bool = False            # decided: the guest is the destination's
    in_flight: bool = False     # GO lies in the socket
    missing: bool = False       # the destination lacks blocks
    watched: bool = True        # its agent saw all events of the destination
    ended: bool = False         # closed, or in a person's hands

    def but(self, **more: Any) -> "World":
        """Return it with some things changed."""
        return dataclasses.replace(self, **more)

    def never_ran(self) -> bool:
        """Return whether the destination's agent can say so."""
        return self.watched and not (self.go and not self.in_flight)

    def seen(self, silent: str = "", still: bool = False,
             cancel: bool = False) -> Observed:
        """Return what a controller sees, of one end perhaps nothing."""
        seconds = 20.0 if still else 0.0
        source = End(self.source, self.here, still=seconds)
        destination = End(
            self.destination, self.there, prepared=self.prepared,
            whole=not self.missing, missing=int(self.missing),
            never_ran=self.never_ran(), still=seconds)
        return Observed(End(Word.SILENT) if silent == "s" else source,
                        End(Word.SILENT) if silent == "d" else destination,
                        self.stage, cancel)

    def source_runs(self) -> bool:
        """Return whether the guest can run at the source."""
        return self.source in RUNS_HERE

    def destination_runs(self) -> bool:
        """Return whether the guest can run at the destination."""
        return self.destination in RUNS_THERE


def goes_on(world: World) -> list[World]:
    """Return what QEMU can do next by itself, when nothing breaks."""
    pair = (world.source, world.destination)
    if pair == (Word.PRE, Word.PRE):
        return [world.but(source=Word.FREEZE, destination=Word.FREEZE,
                          missing=True)]
    if pair == (Word.FREEZE, Word.FREEZE):
        return [world.but(source=Word.POSTCOPY, go=True, in_flight=True)]
    if world.in_flight and world.destination is Word.FREEZE:
        return [world.but(destination=Word.POSTCOPY, in_flight=False)]
    if world.source in (Word.PRE, Word.FREEZE):
        return [world.but(source=Word.FAILED)] if world.destination in (
            Word.DEAD, Word.FAILED) else []
    return ends_well(world)


def ends_well(world: World) -> list[World]:
    """Return how post-copy goes on."""
    pair = (world.source, world.destination)
    if world.source in AFTER and world.destination in AFTER and world.missing:
        return [world.but(missing=False)]   # blocks come by their channels
    if pair == (Word.POSTCOPY, Word.POSTCOPY):
        return [world.but(destination=Word.COMPLETED)]
    if pair == (Word.POSTCOPY, Word.COMPLETED):
        return [world.but(source=Word.COMPLETED)]
    if (world.destination in AFTER and not world.missing
            and world.source in (Word.DEAD, Word.COMPLETED)):
        return [world.but(destination=Word.COMPLETED)]
    return []


def breaks(world: World) -> Iterator[World]:
    """Yield what can go wrong next."""
    source, destination = world.source, world.destination
    if source in (Word.PRE, Word.FREEZE):
        yield world.but(source=Word.FAILED, destination=(
            Word.DEAD if destination is Word.PRE else destination))
    if source is Word.POSTCOPY:
        yield world.but(source=Word.PAUSED)
    if destination is Word.POSTCOPY:
        yield world.but(destination=Word.PAUSED)
    if source is not Word.DEAD:
        dead = world.but(source=Word.DEAD)
        if destination is Word.PRE and source is not Word.HERE:
            yield dead.but(destination=Word.DEAD)
        yield dead.but(destination=Word.PAUSED) if (
            destination is Word.POSTCOPY) else dead
    if destination is not Word.DEAD:
        yield world.but(
            destination=Word.DEAD, in_flight=False,
            source=Word.PAUSED if source is Word.POSTCOPY else source)
    if world.watched:
        yield world.but(watched=False)
    # The destination's agent follows what its QEMU says by itself
    if world.destination_runs() and world.there is File.INCOMING:
        yield world.but(there=File.OWNER)


# What can be done.  An agent refuses what its own QEMU speaks against.


def prepare(world: World) -> World:
    """Start the destination, or go on to."""
    return world.but(
        stage=max(world.stage, Stage.PREPARED), prepared=True,
        there=File.INCOMING, destination=Word.PRE
        if world.destination is Word.DEAD else world.destination)


def perform(world: World) -> World:
    """Begin the migration."""
    if world.source is not Word.HERE or not world.prepared:
        raise Refused("there is nothing to begin with")
    return world.but(stage=Stage.PERFORMED, here=File.LEAVING,
                     source=Word.PRE)


def cancel_it(world: World) -> World:
    """Cancel; QEMU refuses it after the handover."""
    return world.but(source=Word.FAILED) if world.source in (
        Word.PRE, Word.FREEZE) else world


def keep(world: World) -> World:
    """The source's file says that it owns the guest."""
    if world.source in (*AFTER, Word.COMPLETED):
        raise Refused("it has handed the guest over")
    if world.go:
        raise Harm("the source keeps a guest that was handed over")
    return world.but(here=File.OWNER)


def clean(world: World) -> World:
    """End the destination."""
    if world.destination_runs():
        raise Refused("it runs the guest")
    return world.but(destination=Word.DEAD, in_flight=False, there=File.GONE,
                     prepared=False)


def hand_over(world: World) -> World:
    """Both files say that the guest is the destination's."""
    if world.source in (Word.HERE, Word.PRE, Word.FREEZE, Word.FAILED):
        raise Refused("the guest is here")
    if not world.go:
        raise Harm("files say that it was handed over, and it was not")
    return world.but(here=File.GONE, there=File.OWNER)


def end_source(world: World) -> World:
    """End the source."""
    if world.source is not Word.DEAD and (world.missing or not world.go):
        raise Harm("the source is ended and has blocks that are missing")
    return world.but(source=Word.DEAD)


def recover(world: World) -> World:
    """Connect both again."""
    if world.source not in AFTER:
        return world
    there = world.destination
    return world.but(
        source=Word.POSTCOPY,
        in_flight=world.in_flight or there is Word.FREEZE,
        destination=Word.POSTCOPY if there is Word.PAUSED else there)


def fence(world: World) -> World:
    """End the destination, and be sure that it never ran."""
    if world.destination_runs():
        raise Refused("it runs the guest")
    if world.destination is Word.DEAD and not world.never_ran():
        raise Refused("it has ended, and nobody saw whether it ran")
    if world.in_flight:
        # What lay in the socket was read before the end: it ran
        return world.but(destination=Word.DEAD, in_flight=False, ended=True)
    return world.but(destination=Word.DEAD, there=File.GONE)


def restart(world: World) -> World:
    """Boot the source."""
    if world.destination_runs() or world.in_flight:
        raise Harm("the source boots and the destination can run")
    return world.but(source=Word.HERE, here=File.OWNER)


def close(world: World) -> World:
    """Write into the journal that the move has ended."""
    owners = [world.here, world.there].count(File.OWNER)
    if owners != 1:
        raise Harm(f"closed with {owners} owners")
    return world.but(ended=True, stage=Stage.ENDED)


ACTIONS: dict[Do, Callable[[World], World]] = {
    Do.WAIT: lambda world: world,
    Do.BEGIN: lambda world: world.but(stage=Stage.BEGUN),
    Do.PREPARE: prepare,
    Do.PERFORM: perform,
    Do.CANCEL: cancel_it,
    Do.KEEP: keep,
    Do.CLEAN: clean,
    Do.HAND_OVER: hand_over,
    Do.FINISH: end_source,
    Do.KILL_SOURCE: end_source,
    Do.BREAK_SOURCE: lambda world: world.but(source=Word.PAUSED) if (
        world.source is Word.POSTCOPY) else world,
    Do.BREAK_DESTINATION: lambda world: world.but(
        destination=Word.PAUSED) if (
            world.destination is Word.POSTCOPY) else world,
    Do.RECOVER: recover,
    Do.FENCE: fence,
    Do.RESTART: restart,
    Do.CLOSE: close,
}


def looks(world: World) -> Iterator[tuple[World, Observed, bool]]:
    """
    Yield (what is, what is seen, whether that is how it is).

    The two ends are not looked at in the same moment: one may go on, or
    break, between the two looks.
    """
    for silent, still, cancel in itertools.product(
            ("", "s", "d"), (False, True), (False, True)):
        seen = world.seen(silent, still, cancel)
        yield world, seen, not silent
        for later in (*goes_on(world), *breaks(world)):
            then = later.seen(silent, still, cancel)
            yield later, dataclasses.replace(
                seen, destination=then.destination), False
            yield later, dataclasses.replace(seen, source=then.source), False


def controlled(world: World) -> Iterator[World]:
    """Yield what a controller can make of it, killed at any moment."""
    for now, seen, fresh in looks(world):
        step = next_step(seen)
        for do in step.do:
            if now.ended:
                break
            try:
                now = ACTIONS[do](now)
            except Refused as why:
                if fresh and do is not Do.PERFORM:
                    raise Harm(f"{why}: {do} of {step} in {now}") from why
                break
            except Harm as harm:
                raise Harm(f"{harm}: {do} of {step} in {now}") from harm
            yield now
        if step.person:
            yield now.but(ended=True)


def all_worlds() -> set[World]:
    """Return every state that can come about; raise Harm."""
    found: set[World] = set()
    todo = [World()]
    while todo:
        world = todo.pop()
        if world in found:
            continue
        found.add(world)
        if not world.ended:
            todo += [*goes_on(world), *breaks(world), *controlled(world)]
    return found
