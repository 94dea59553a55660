# SPDX-License-Identifier: GPL-2.0-or-later
"""What a round of decisions comes to, in sentences with numbers."""

from dataclasses import dataclass, field
from typing import Mapping

from wsm.plan.detect import Spot
from wsm.plan.estimate import Estimate
from wsm.plan.fleet import Flight
from wsm.plan.inventory import human


@dataclass(frozen=True)
class Step:
    """A VM is to go there."""

    vm: str
    source: str
    to: str
    spot: str                   # key of the hot spot that it is for
    hard: bool
    estimate: Estimate
    score: float
    why: str                    # one sentence, with numbers
    goal: float = float("inf")  # what the spot must be at most then
    ask: str = ""               # why a person must agree; "": nobody need
    after: tuple[str, ...] = ()     # VMs that must have moved before
    due: float = 0.0            # when it must have ended; 0: any time

    @property
    def reason(self) -> str:
        """The class of the reason: "host.cpu", "drain"."""
        return self.spot.split()[0]

    def flight(self) -> Flight:
        """Return what it is when it has begun."""
        return Flight(self.vm, self.source, self.to, self.spot, self.hard,
                      self.goal, self.estimate.bytes, self.due)


def price(cost: Estimate) -> str:
    """Return what a move costs, in words."""
    whole = sum(basis.hashed or basis.data for basis in cost.bases)
    kinds = {basis.kind for basis in cost.bases}
    way = ""
    if kinds == {"sync-point"}:
        way = " (the way back: only what has changed)"
    elif "content" in kinds:
        way = f" (an old image is compared, {human(whole)})"
    return (f"{human(cost.bytes)}{way}, about {cost.seconds:.0f} s, pause "
            f"about {cost.downtime * 1000:.0f} ms")


class Reasons:
    """Why VMs and hosts were not taken: how often each, and one example."""

    def __init__(self) -> None:
        self.count: dict[str, int] = {}
        self.example: dict[str, str] = {}

    def note(self, name: str, text: str) -> None:
        """Count one."""
        self.count[name] = self.count.get(name, 0) + 1
        self.example.setdefault(name, text)

    def is_new(self, name: str) -> bool:
        """Whether there is no example yet; count one if there is."""
        if name not in self.count:
            return True
        self.count[name] += 1
        return False


@dataclass(frozen=True)
class Nothing:
    """A hot spot for which nothing is done, and why."""

    spot: Spot
    reasons: Mapping[str, int]  # how many VMs and hosts each spoke against
    examples: Mapping[str, str] = field(default_factory=dict)

    def text(self) -> str:
        """Say it."""
        why = ", ".join(f"{name} ({count})" for name, count in sorted(
            self.reasons.items(), key=lambda each: (-each[1], each[0])))
        return f"{self.spot.text()}: no target: {why or 'no VM there'}"

    def lines(self) -> list[str]:
        """Say it, with an example of each reason."""
        return [self.text(), *(f"{name}, {self.reasons[name]} times; "
                               f"for example {text}" for name, text
                               in sorted(self.examples.items()))]


@dataclass(frozen=True)
class Decision:
    """What a round came to."""

    spots: tuple[Spot, ...] = ()
    steps: tuple[Step, ...] = ()    # may begin now, all of them
    nothing: tuple[Nothing, ...] = ()
    asked: tuple[Step, ...] = ()    # may begin now if a person agrees
    later: tuple[Step, ...] = ()    # what is meant to follow; decided anew then
    breakers: tuple[str, ...] = ()  # what is open, in words
    calm: str = ""                  # why there is nothing to do

    def text(self) -> str:
        """Say all of it."""
        lines = [step.why for step in self.steps]
        lines += [f"{step.ask}: {step.why}" for step in self.asked]
        lines += [each.text() for each in self.nothing]
        return "\n".join(lines) or self.calm

    def heat(self) -> Mapping[str, float]:
        """Return what Past.note_heat() wants to be told."""
        return {spot.key: spot.seen or spot.now for spot in self.spots}
