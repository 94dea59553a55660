# SPDX-License-Identifier: GPL-2.0-or-later
"""A round of the record, decided again: what would another policy have done?

Pure: all that it takes is in what 'wsmctl explain plan N --json' prints.
"""

from dataclasses import dataclass
from typing import Any, Iterator, Mapping, Optional

from wsm.cli import outlook
from wsm.plan import kept, planner, shown
from wsm.plan.decision import Decision
from wsm.plan.estimate import Estimate
from wsm.plan.fleet import Fleet, Flight, Guest
from wsm.plan.grants import crossed, wires_of
from wsm.plan.learn import Past as Lesson
from wsm.plan.plain import BadData, from_plain
from wsm.plan.policy import Links, Policy

Json = Mapping[str, Any]
# What becomes of a step, by the list in which it is
WHEN = {"steps": "at once", "asked": "if a person agrees",
        "later": "after another move"}
# What data that make no sense may come to, deep in the planner
DAMAGE = (ArithmeticError, AttributeError, LookupError, RecursionError,
          TypeError, ValueError)


class NotKept(Exception):
    """What a decision was made of was not kept."""


@dataclass(frozen=True)
class Again:
    """A decision, and what it would be."""

    plan: int
    at: float
    rounds: int                 # that have come to it
    differs: tuple[str, ...]    # in words; none: it is the same
    # By its own policy, too: not all that it was made of was kept
    itself: bool

    def lines(self) -> Iterator[str]:
        """Yield what differs, for people."""
        yield from self.differs
        if self.itself and self.differs:
            yield ("but by its own policy it is not what was recorded, "
                   "either: not all that it was made of was kept, or the "
                   "controller was another version")


class Prices:
    """What moves would have cost; see planner.Cost."""

    def __init__(self, fleet: Fleet, links: Links,
                 lessons: tuple[Lesson, ...]) -> None:
        self._fleet, self._links, self._lessons = fleet, links, lessons
        self._rooms = {name: wire.room(links)
                       for name, wire in wires_of(fleet, links).items()}

    def __call__(self, guest: Guest, to: str) -> Estimate:
        """Return what a move would have cost, alone on its links."""
        nodes, here = self._fleet.nodes, guest.use.host
        rate = min((self._rooms[name] for name in crossed(
            Flight(guest.use.name, here, to, "", False), self._links)
            if name in self._rooms), default=0.0)
        return outlook.cost_of(outlook.Subject(
            guest.use, guest.spec, nodes[here].host, self._lessons),
            nodes[to].host, rate)


def decide(made: kept.Round, policy: Policy,
           lessons: tuple[Lesson, ...]) -> Decision:
    """Return what a policy makes of a round that was kept."""
    return planner.decide(made.fleet, policy, made.past, Prices(
        made.fleet, policy.links, lessons))


def steps_of(output: Json) -> dict[str, tuple[str, Json]]:
    """Return the steps of a decision by VM, each with when it begins."""
    found: dict[str, tuple[str, Json]] = {}
    for name, when in WHEN.items():
        for step in output[name]:
            found.setdefault(str(step["vm"]), (when, step))
    return found


def step_differs(vm: str, was: Optional[tuple[str, Json]],
                 now: Optional[tuple[str, Json]]) -> Iterator[str]:
    """Yield what is another for a VM."""
    if was is None and now is not None:
        when, step = now
        yield (f"{vm} goes from {step['from']} to {step['to']} {when}, which "
               f"was not decided: {step['why']}")
    elif was is not None and now is None:
        yield (f"{vm} does not go from {was[1]['from']} to {was[1]['to']}, as "
               f"was decided: {was[1]['why']}")
    elif was is not None and now is not None:
        if was[1]["to"] != now[1]["to"]:
            yield (f"{vm} goes to {now[1]['to']}, not to {was[1]['to']}: "
                   f"{now[1]['why']}")
        if was[0] != now[0]:
            yield f"{vm} goes {now[0]}, not {was[0]}: " + (
                now[1]["ask"] or was[1]["ask"] or now[1]["why"])


def differences(old: Json, new: Json) -> Iterator[str]:
    """
    Yield in words where a decision is another, of VMs in their order.

    Both as in shown.decision_json().  Figures, and why nothing could be done,
    are no decisions.
    """
    was, now = ({str(spot["key"]): str(spot["text"]) for spot in each["spots"]}
                for each in (old, new))
    for key in sorted(was.keys() - now):
        yield f"no hot spot ({key}), as was seen: {was[key]}"
    for key in sorted(now.keys() - was):
        yield f"a hot spot ({key}), which was not seen: {now[key]}"
    before, after = steps_of(old), steps_of(new)
    for vm in sorted(before.keys() | after):
        yield from step_differs(vm, before.get(vm), after.get(vm))
    for each in sorted(set(old["breakers"]) - set(new["breakers"])):
        yield f"it does not stop itself: {each}"
    for each in sorted(set(new["breakers"]) - set(old["breakers"])):
        yield f"it stops itself: {each}"


def again(answer: Any, policy: Optional[Policy] = None) -> Again:
    """
    Decide again what a controller has told of a plan.

    By @policy, else by its own.  Raises NotKept, BadData; whatever the data
    are, nothing else.
    """
    try:
        return _again(answer, policy)
    except DAMAGE as error:
        raise BadData("it is damaged, or no record of a plan: "
                      f"{type(error).__name__}: {str(error)[:200]}") from error


def _again(answer: Any, policy: Optional[Policy]) -> Again:
    recorded, = answer["decisions"]
    data, at = answer["input"], float(recorded["at"])
    if not 0.0 < at < 1e11:
        raise ValueError(f"at: {at} is no time in s after 1970")
    if data is None:
        raise NotKept(f"what plan {recorded['plan']} was made of was not kept")
    made = kept.restore(data)
    lessons = tuple(from_plain(Lesson, each)
                    for each in answer.get("lessons", ()))

    def by(wanted: Policy) -> tuple[str, ...]:
        return tuple(differences(recorded, shown.decision_json(decide(
            made, wanted, lessons))))

    own = by(made.policy)
    return Again(int(recorded["plan"]), at, int(recorded["rounds"]),
                 by(policy) if policy else own, bool(own))
