# SPDX-License-Identifier: GPL-2.0-or-later
"""What may happen in a scene: an event is a verb, a name and values."""

import dataclasses
from typing import Callable, Sequence

from wsm.plan.fleet import Errand
from wsm.plan.inventory import HostState
from wsm.plan.past import Past
from wsm.plan.plain import BadData
from wsm.plan.ruling import Rule, RuleKind
from wsm.sim.simworld import World

Words = Sequence[str]


def freeze(made: World, host: str, _words: Words) -> None:
    """Nothing more is heard of a host."""
    made.silent.add(host)


def thaw(made: World, host: str, _words: Words) -> None:
    """It is heard of again."""
    made.silent.discard(host)


def report(made: World, host: str, words: Words) -> None:
    """One sample is what somebody says."""
    made.fleet.take(host, words[0], float(words[1]))


def lie(made: World, host: str, words: Words) -> None:
    """All samples of a host's resource are so from now on."""
    made.lies[host, words[0]] = float(words[1])


def fail(made: World, host: str, _words: Words) -> None:
    """A host dies: nothing is heard of it, its moves fail."""
    made.silent.add(host)
    made.dead.add(host)
    for vm, flight in list(made.fleet.flights.items()):
        if host in (flight.source, flight.to):
            made.break_move(vm)


def change(made: World, host: str, state: HostState) -> None:
    """A host takes VMs, or not."""
    node = made.fleet.nodes[host]
    node.host = dataclasses.replace(node.host, state=state)


def clock(made: World, host: str, words: Words) -> None:
    """The clock of a host jumps."""
    node = made.fleet.nodes[host]
    node.host = dataclasses.replace(node.host, clock_off=float(words[0]))


def restart(made: World, _name: str, _words: Words) -> None:
    """A controller starts that remembers nothing."""
    made.past = Past()


def rule(made: World, kind: str, words: Words) -> None:
    """A rule is made: KIND VM,VM [HOST,HOST]."""
    made.fleet.rules += (Rule(RuleKind(kind), tuple(words[0].split(",")),
                              tuple(words[1].split(",")) if words[1:]
                              else ()),)


def errand(made: World, vm: str, words: Words) -> None:
    """A person wants a VM elsewhere: VM S [HOST], within so many seconds."""
    now, host = made.fleet.now, made.fleet.guests[vm].use.host
    to = "".join(words[1:])
    made.fleet.errands += (Errand(vm, now + float(words[0]), to,
                                  "" if to else host),)


def drain_by(made: World, host: str, words: Words) -> None:
    """A host must be empty within so many seconds."""
    change(made, host, HostState.DRAINING)
    made.fleet.dues = {host: made.fleet.now + float(words[0])}


EVENTS: dict[str, Callable[[World, str, Words], None]] = {
    "freeze-sensor": freeze,
    "thaw-sensor": thaw,
    "report": report,
    "lie": lie,
    "fail": fail,
    "drain": lambda made, host, _: change(made, host, HostState.DRAINING),
    "cordon": lambda made, host, _: change(made, host, HostState.CORDONED),
    "uncordon": lambda made, host, _: change(made, host, HostState.ACTIVE),
    "drain-by": drain_by,
    "errand": errand,
    "clock": clock,
    "restart-controller": restart,
    "rule": rule,
    "end-vm": lambda made, vm, _: made.end(vm),
    "fail-moves": lambda made, vm, _: made.broken.add(vm),
    "mend-moves": lambda made, vm, _: made.broken.discard(vm),
}
FREE = ("restart-controller", "rule")   # their word is no name


def act(made: World, event: str) -> None:
    """Let something happen; raise BadData."""
    what, name, *words = [*event.split(), ""]
    if what not in EVENTS:
        raise BadData(f"events: {what!r} is none of {', '.join(EVENTS)}")
    if what not in FREE and name not in made.fleet.nodes \
            and name not in made.fleet.guests:
        raise BadData(f"events: there is no host or VM {name}")
    EVENTS[what](made, name, words[:-1])
