# SPDX-License-Identifier: GPL-2.0-or-later
"""wsmctl drain: empty a host, and fill it again."""

import argparse
import dataclasses
import functools
import math
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Iterator

from wsm.cli import daemons, outlook
from wsm.cli.agents import Agents, NoAnswer
from wsm.cli.home import CliError, Home, HostEntry, Move
from wsm.cli.relocate import (book, carried, drive, duration, persist, rate,
                              result)
from wsm.cli.terminal import say, say_json, tell
from wsm.plan import filters
from wsm.plan.estimate import rate_for
from wsm.plan.inventory import Host, HostState, human
from wsm.plan.plain import to_plain

LOOKS = 8                   # VMs that are looked at at once
MARGIN = 0.05               # of the time to a deadline, for what goes wrong


@dataclass(frozen=True)
class Leg:
    """One move of many."""

    subject: outlook.Subject
    source: str
    there: Host

    @property
    def vm(self) -> str:
        """The VM."""
        return self.subject.use.name

    def cost(self, speed: float) -> Any:
        """Return what it costs at a rate, 0: all that the link has."""
        return outlook.cost_of(self.subject, self.there, speed)


@dataclass(frozen=True)
class Plan:
    """All moves of a drain or of its way back."""

    host: str
    legs: tuple[Leg, ...]
    stay: tuple[tuple[str, tuple[filters.Choice, ...]], ...] = ()
    off: tuple[str, ...] = ()

    def seconds(self, speed: float, done: int = 0) -> float:
        """Return how long all but the first @done take."""
        return float(sum(leg.cost(speed).seconds for leg in self.legs[done:]))


def look_at_all(home: Home, places: list[tuple[str, str]],
                names: list[str]) -> Iterator[tuple[outlook.Subject,
                                                    dict[str, Host]]]:
    """Yield each (VM, host) of @places, and the hosts @names as it sees them."""
    def look(place: tuple[str, str]) -> tuple[outlook.Subject,
                                              dict[str, Host]]:
        agents = Agents(home)           # connections of this thread alone
        subject = outlook.look_at(agents, *place)
        return subject, {name: outlook.host_now(agents, name, subject.spec)
                         for name in names if name != place[1]}

    if len(places) > 1:
        print(f"looking at {len(places)} VMs", file=sys.stderr, flush=True)
    with ThreadPoolExecutor(LOOKS) as pool:
        yield from pool.map(look, places)


def plan_away(home: Home, agents: Agents, name: str) -> Plan:
    """Return where each VM of a host goes."""
    try:
        vms = [vm for vm in agents[name].get("/vms")["vms"]
               if vm["owner"] == "owner"]
    except NoAnswer as error:
        raise CliError(str(error), 5) from error
    names = [each for each in agents.names() if each != name]
    seen = {subject.use.name: (subject, hosts) for subject, hosts
            in look_at_all(home, [(vm["name"], name) for vm in vms
                                  if vm["runs"]], names)}
    # Copies are looked up for each VM; the rest of a host is one reading
    hosts = [dataclasses.replace(host, copies=tuple(
        copy for _, there in seen.values() for copy in there[host.name].copies
    )) for host in next(iter(seen.values()))[1].values()] if seen else []

    def cost(wish: filters.Wish, host: Host) -> Any:
        return outlook.cost_of(seen[wish.use.name][0], host)

    found = filters.drain([outlook.wish_of(subject) for subject, _
                           in seen.values()], hosts, cost)
    return Plan(name, tuple(
        Leg(seen[step.vm][0], name, seen[step.vm][1][step.to])
        for step in found.steps), found.stay,
        tuple(vm["name"] for vm in vms if not vm["runs"]))


def drained(moves: list[Move], name: str) -> dict[str, str]:
    """Return the VMs that a drain moved away and nobody since: their hosts."""
    last = {move.vm: move for move in moves if move.result == "moved"}
    return {vm: move.destination for vm, move in sorted(last.items())
            if move.drained == name and move.source == name}


def plan_back(home: Home, name: str) -> Plan:
    """Return the moves that bring back what drains have moved away."""
    legs: list[Leg] = []
    stay: list[tuple[str, tuple[filters.Choice, ...]]] = []
    room: dict[str, Host] = {}
    places = sorted(drained(home.moves(), name).items())
    for subject, hosts in look_at_all(home, places, [name]):
        there = dataclasses.replace(
            room.get(name, hosts[name]), copies=hosts[name].copies)
        if there.state is HostState.DRAINING:
            there = dataclasses.replace(there, state=HostState.ACTIVE)
        wish = outlook.wish_of(subject)
        found = filters.choose(wish, [there], functools.partial(
            outlook.cost_of, subject))[0]
        if found.refusals:
            stay.append((subject.use.name, (found,)))
        else:
            legs.append(Leg(subject, subject.here.name, there))
            room[name] = filters.with_vm(wish, there)
    legs.sort(key=lambda leg: (round(leg.cost(0).seconds), leg.vm))
    return Plan(name, tuple(legs), tuple(stay))


def speed_for(plan: Plan, seconds: float, done: int = 0) -> float:
    """Return the gentlest rate for what is left; 0: all that there is."""
    full = max((outlook.link_of(leg.subject.here, leg.there,
                                past=leg.subject.past).rate
                for leg in plan.legs[done:]), default=0.0)
    found = rate_for(lambda speed: plan.seconds(speed, done), full,
                     seconds * (1 - MARGIN), outlook.LEAST_RATE)
    return 0.0 if found >= full else found


def speed_of(plan: Plan, args: argparse.Namespace) -> float:
    """Return the rate of a plan; raise CliError if that is too late."""
    if not args.deadline or not plan.legs:
        return float(args.rate or 0)
    best = plan.seconds(0)
    if best > args.deadline:
        raise CliError(
            f"{len(plan.legs)} moves take about {outlook.seconds_text(best)} "
            "at full speed, longer than "
            f"{outlook.seconds_text(args.deadline)}: a later --deadline, or "
            "move some before", 4)
    return speed_for(plan, args.deadline)


def tell_plan(plan: Plan, speed: float) -> None:
    """Show what will be done."""
    for leg in plan.legs:
        say(f"{leg.vm} to {leg.there.name}: "
            + outlook.estimate_lines(leg.cost(speed))[0])
    for name, choices in plan.stay:
        say(f"{name} can go nowhere:")
        for choice in choices:
            for line in outlook.refusal_lines(choice):
                say(f"    {line}")
    for name in plan.off:
        say(f"{name} is off and stays")
    if plan.legs:
        costs = [leg.cost(speed) for leg in plan.legs]
        say(f"in all {len(costs)} moves, "
            f"{human(sum(each.bytes for each in costs))} in about "
            + outlook.seconds_text(plan.seconds(speed))
            + (f" at {human(speed)}/s" if speed else ""))


def plan_json(plan: Plan, speed: float) -> dict[str, Any]:
    """Return a plan for programs."""
    seconds = plan.seconds(speed)
    return {"host": plan.host, "rate": int(speed),
            "seconds": seconds if math.isfinite(seconds) else None,
            "steps": [{"vm": leg.vm, "from": leg.source,
                       "to": leg.there.name, "estimate":
                       outlook.estimate_json(leg.cost(speed))}
                      for leg in plan.legs],
            "stay": [{"vm": name, "hosts": [
                outlook.choice_json(choice) for choice in choices]}
                for name, choices in plan.stay], "off": list(plan.off)}


def stop(home: Home, args: argparse.Namespace) -> int:
    """End a drain; what it moves comes back to rest where it was."""
    for move in home.open_moves():
        if move.drained == args.name:
            home.want_cancel(move.id)
    home.put_host(args.name, HostEntry(home.host(args.name).address))
    return tell(args.json, f"{args.name} is not drained any more, and takes "
                "VMs again", {"host": args.name, "state": "active"})


def drain(home: Home, args: argparse.Namespace) -> int:
    """Empty a host, or bring back what was there."""
    if args.by_controller:
        return leave(home, args)
    entry = home.host(args.name)
    if args.cancel:
        return stop(home, args)
    end = time.time() + (args.deadline or 0)
    agents = Agents(home)
    plan = (plan_back(home, args.name) if args.back
            else plan_away(home, agents, args.name))
    speed = speed_of(plan, args)
    if not args.json:
        tell_plan(plan, speed)
    if plan.stay and not args.partial:
        raise CliError("nothing was begun; --partial moves the others", 4,
                       plan_json(plan, speed))
    if args.dry_run:
        if args.json:
            say_json(plan_json(plan, speed))
        return 3 if plan.legs else 0
    home.put_host(args.name, HostEntry(
        entry.address, "active" if args.back else "draining"))
    done = run(home, agents, plan, args, end)
    return tell_end(plan, done, args)


def leave(home: Home, args: argparse.Namespace) -> int:
    """Let the controller empty a host, or not any more."""
    if args.back or args.rate or args.dry_run or args.partial:
        raise CliError("--by-controller: with --deadline or --cancel, without "
                       "others; 'wsmctl plan' says what it does", 2)
    on = not args.cancel
    found = daemons.ask(home, "/drain", {
        "host": args.name, "on": on, "due": time.time() + args.deadline
        if on and args.deadline else 0})
    return tell(args.json, f"the controller empties {args.name}"
                + (", and begins as late as is wise" if found["due"] else "")
                + f": 'wsmctl plan'; 'wsmctl drain {args.name} --by-controller "
                "--cancel' takes it back" if on else
                f"{args.name} is not emptied any more", found)


def move_leg(home: Home, agents: Agents, leg: Leg, speed: float,
             args: argparse.Namespace, due: float = 0.0) -> Move:
    """Move one VM once, so that it has ended when it is due."""
    move = book(home, leg.vm, leg.source, leg.there.name, leg.cost(speed),
                speed, args.name, due)
    return drive(home, agents, move, args, leg.subject)


def run(home: Home, agents: Agents, plan: Plan, args: argparse.Namespace,
        end: float) -> list[Move]:
    """Move one after the other; return the moves that were made."""
    done: list[Move] = []
    for number, leg in enumerate(plan.legs):
        speed, due = float(args.rate or 0), 0.0
        if args.deadline:
            now = time.time()
            speed = speed_for(plan, end - now, number)
            due = now + turn(plan, speed, number) * (end - now)
        if not args.json:
            say(f"[{number + 1}/{len(plan.legs)}] {leg.vm} to "
                f"{leg.there.name}: "
                + outlook.estimate_lines(leg.cost(speed))[0])
        move = persist(home, args, leg.vm, functools.partial(
            move_leg, home, agents, leg, speed, args, due))
        done.append(move)
        if not args.json:
            result(move, False)
        if not carried(move) or not going_on(home, plan.host, args.back):
            break
    return done


def turn(plan: Plan, speed: float, number: int) -> float:
    """Return which part of the time that is left one move has."""
    whole = plan.seconds(speed, number)
    own = float(plan.legs[number].cost(speed).seconds)
    return own / whole if 0 < own <= whole < math.inf else 1.0


def going_on(home: Home, name: str, back: bool) -> bool:
    """Return whether nobody has said that it is enough."""
    wanted = "active" if back else "draining"
    return home.host(name).state == wanted


def tell_end(plan: Plan, done: list[Move], args: argparse.Namespace) -> int:
    """Tell how it has ended; return the exit status."""
    moved = [move for move in done if move.result == "moved"]
    left = len(plan.legs) + len(plan.stay) - len(moved)
    if args.json:
        say_json({**plan_json(plan, float(args.rate or 0)), "left": left,
                  "moves": [to_plain(move) for move in done]})
    else:
        say(f"{len(moved)} moves, {human(sum(m.bytes for m in moved))} in "
            f"{sum(move.seconds for move in moved):.0f} s (expected "
            f"{human(sum(move.expected_bytes for move in moved))} in "
            f"{sum(move.expected_seconds for move in moved):.0f} s), longest "
            f"pause {max((m.downtime_ms for m in moved), default=0)} ms")
        if args.back:
            say(f"{args.name} has its VMs again" if not left else
                f"{left} VMs are not back on {args.name}")
        elif left:
            say(f"{left} VMs are still on {args.name}; the same command goes "
                f"on, 'wsmctl drain {args.name} --cancel' gives it up")
        else:
            say(f"{args.name} is empty" + (
                f" but for {', '.join(plan.off)}" if plan.off else "")
                + f"; it takes no VMs until 'wsmctl drain {args.name} "
                "--back', or '--cancel'")
    return 1 if left > len(plan.stay) else 4 if left else 0


def options(commands: Any) -> None:
    """Describe this verb."""
    each = commands.add_parser("drain", help="move all VMs away from a host, "
                               "one after the other, the shortest first")
    each.add_argument("name", metavar="host")
    each.add_argument("--dry-run", action="store_true",
                      help="only say what it would be")
    each.add_argument("--partial", action="store_true",
                      help="although some can go nowhere")
    pace = each.add_mutually_exclusive_group()
    pace.add_argument("--rate", type=rate, help="at most so many bytes/s")
    pace.add_argument("--deadline", type=duration, metavar="TIME",
                      help="as gently as possible, but the last one is done "
                      "in or at TIME")
    what = each.add_mutually_exclusive_group()
    what.add_argument("--cancel", action="store_true", help="end a drain: "
                      "VMs stay where they are, and the host takes VMs")
    what.add_argument("--back", action="store_true", help="the host takes "
                      "VMs again, and those that it was drained of come back")
    each.add_argument("--by-controller", action="store_true",
                      help="the controller does it; with --deadline it begins "
                      "as late as is wise")
    each.add_argument("--wait", action="store_true", help="go on although "
                      "a guest's memory does not converge")
    each.set_defaults(act=drain, retries=2)
