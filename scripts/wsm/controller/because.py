# SPDX-License-Identifier: GPL-2.0-or-later
"""Why something is done, and why not, in sentences with numbers."""

from itertools import islice
from typing import Any, Iterator, Sequence

from wsm.cli import outlook
from wsm.controller.ledger import Recorded
from wsm.controller.rounds import Controller, NotNow
from wsm.plan import errand, explain, planner, way
from wsm.plan.booked import Booked
from wsm.plan.decision import Decision
from wsm.plan.fleet import RESOURCES, Guest, Loads
from wsm.plan.inventory import human
from wsm.plan.weigh import Round

LOOKED = 500                    # decisions that are searched
SHOWN = 5                       # of them
WAYS = 20                       # to other hosts
WORDS = {"cpu": ("CPU", "cores"), "rx": ("received", "B/s"),
         "tx": ("sent", "B/s"), "disk": ("disk", "of its time")}


def figures(load: Loads, wanted: Sequence[str] = RESOURCES) -> str:
    """Return what something uses, for people."""
    words = []
    for name in wanted:
        title, unit = WORDS[name]
        now, peak = load[name].now, load[name].peak
        if peak > 0:
            words.append(
                f"{title} now {human(now)}/s, at most {human(peak)}/s in the "
                "last hour" if unit == "B/s" else
                f"{title} now {now:.2f} {unit}, at most {peak:.2f} in the "
                "last hour")
    return "; ".join(words) or "it uses nothing that was measured"


def guest_of(made: Controller, vm: str) -> Guest:
    """Return a VM; raise NotNow."""
    found = made.fleet.guests.get(vm)
    if found is None:
        raise NotNow(f"no VM {vm[:80]} is known that runs; there are: "
                     + (", ".join(sorted(made.fleet.guests)) or "none"))
    return found


def stays(made: Controller, guest: Guest) -> Iterator[str]:
    """Yield why a VM stays where it is for a while."""
    vm, now = guest.use.name, made.fleet.now
    if vm in made.executor.flights:
        flight = made.executor.flights[vm]
        yield f"it moves from {flight.source} to {flight.to} now"
    mode = guest.spec.placement.mode.value
    if mode != "auto":
        yield (f"its placement.mode is {mode}, by its description or a rule: "
               "'wsmctl rule list'")
    if (left := made.past.staying(vm) - now) > 0:
        yield f"its last move has failed, and it stays for {left:.0f} s more"
    until = made.past.cooling(vm, now, made.policy.calm)
    if until > now:
        yield (f"it has moved lately, and stays for {(until - now) / 60:.0f} "
               "min more unless need is great")


def named(made: Controller, word: str) -> list[Recorded]:
    """Return the last decisions that have to do with a VM or host."""
    return list(islice((
        each for each in made.ledger.newest(LOOKED)
        if any(word in (step["vm"], step["from"], step["to"])
               for step in each.output["steps"])
        or any(word in (spot["host"], spot["victim"])
               for spot in each.output["spots"])), SHOWN))


def recorded_json(found: Recorded) -> dict[str, Any]:
    """Return a decision of the record."""
    return {"plan": found.id, "at": found.at, "until": found.until,
            "rounds": found.rounds, "mode": found.mode, "text": found.text,
            **found.output}


def of_vm(made: Controller, name: str) -> dict[str, Any]:
    """Explain a VM; raise NotNow."""
    guest = guest_of(made, name)
    lines = [f"{name} is on {guest.use.host}: " + figures(guest.load),
             *stays(made, guest)]
    turns = errand.turns(planner.a_round(made.fleet, made.policy, made.past,
                                         made.cost))
    lines += errand.lines(turn for turn in turns if turn.errand.vm == name)
    for entry in made.journal.entries("vm = ?", name)[-SHOWN:]:
        move = entry.move
        lines.append(f"move {move.id[:8]} to {move.destination}: "
                     f"{move.result or 'under way'}: {entry.why}")
    return answer(made, name, lines)


def of_host(made: Controller, name: str) -> dict[str, Any]:
    """Explain a host; raise NotNow."""
    node = made.fleet.nodes.get(name)
    if node is None:
        raise NotNow(made.collector.silent.get(name)
                     or f"there is no host {name[:80]}")
    now = made.fleet.now
    lines = [f"{name} ({node.host.state.value}, "
             f"{node.capacity['cpu']:.1f} cores, {len(node.guests)} VMs): "
             + figures(node.load)]
    lines += islice(ways(made, name), WAYS)
    if not made.fleet.is_known(name, made.policy.hot.stale):
        lines.append("nothing was heard of it lately, so it takes and loses "
                     f"nothing: {made.collector.silent.get(name, '')}")
    if now - node.joined < made.policy.calm.young:
        lines.append(f"it has joined {(now - node.joined) / 60:.0f} min ago, "
                     "and takes no VM by itself yet")
    return answer(made, name, lines)


def ways(made: Controller, name: str) -> Iterator[str]:
    """Yield how far other hosts are, as far as that was measured."""
    nodes = made.fleet.nodes
    for other in sorted(set(nodes) - {name}):
        found = way.between(nodes[name].host, nodes[other].host)
        if found:
            yield f"to {other}: {way.text(found)}"


def answer(made: Controller, name: str, lines: list[str]) -> dict[str, Any]:
    """Return lines, and the decisions of the record that go with them."""
    found = named(made, name)
    if not found:
        lines.append("no decision of the record has to do with it")
    return {"lines": lines, "decisions": [recorded_json(each)
                                          for each in found]}


def fullest(booked: Booked) -> list[str]:
    """Return which hosts are fullest, and which is coolest."""
    found = sorted(((booked.fullest(name), name)
                    for name in booked.fleet.nodes), reverse=True)
    if not found:
        return []
    return ["fullest at their peaks of the last hour: " + ", ".join(
        f"{name} {full:.0%}" for full, name in found[:3])
        + f"; coolest: {found[-1][1]} {found[-1][0]:.0%}"]


def of_nothing(made: Controller) -> dict[str, Any]:
    """Explain why nothing is done, or what is."""
    last = made.ledger.decisions(1)
    lines = [made.problem] if made.problem else []
    lines += [each.text for each in last]
    lines += fullest(Booked(made.fleet))
    if wait := made.waits():
        lines.append(f"it begins nothing for {wait:.0f} s more, as it has "
                     "just started")
    return {"lines": lines, "decisions": [recorded_json(each)
                                          for each in last]}


def why_not(made: Controller, name: str, there: str) -> dict[str, Any]:
    """Say what speaks against a host for a VM; raise NotNow."""
    guest = guest_of(made, name)
    if there not in made.fleet.nodes:
        raise NotNow(f"nothing is known of host {there[:80]}")
    now = planner.a_round(made.fleet, made.policy, made.past, made.cost)
    return against(now, made.last or Decision(), guest, there)


def against(now: Round, decision: Decision, guest: Guest,
            there: str) -> dict[str, Any]:
    """Say what speaks against a host for a VM in a round."""
    name = guest.use.name
    fits = not list(explain.obstacles(now, name, there,
                                      explain.trouble(now, name)))
    return {"vm": name, "host": there, "fits": fits,
            "lines": explain.why_not(now, decision, name, there),
            "estimate": outlook.estimate_json(now.cost(guest, there))}
