# SPDX-License-Identifier: GPL-2.0-or-later
"""wsmctl migrate, cancel, recover."""

import argparse
import dataclasses
import getpass
import re
import signal
import time
from typing import Any, Callable, Optional

from wsm.cli import daemons, outlook, steer
from wsm.cli.agents import Agents, AgentSaid, NoAnswer
from wsm.cli.drive import Driver, resume
from wsm.cli.duly import Duly
from wsm.cli.home import CliError, Home, Move
from wsm.cli.terminal import Progress, say, say_json, tell
from wsm.plan import filters, outcome
from wsm.plan.estimate import Estimate
from wsm.plan.ends import Stage
from wsm.plan.inventory import human
from wsm.plan.pace import Due
from wsm.plan.plain import from_plain, to_plain
from wsm.plan.recovery import next_step

UNITS = {"": 1, "s": 1, "m": 60, "min": 60, "h": 3600}
RATES = {"": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30}


def duration(text: str) -> float:
    """Return seconds: "90", "10min", "2h", or until "06:30"."""
    clock = re.fullmatch(r"(\d\d?):(\d\d)", text)
    if clock:
        now = time.localtime()
        left = ((int(clock[1]) - now.tm_hour) * 3600
                + (int(clock[2]) - now.tm_min) * 60 - now.tm_sec)
        return float(left if left > 0 else left + 86400)
    found = re.fullmatch(r"(\d+(?:\.\d+)?)(s|m|min|h|)", text)
    if not found:
        raise argparse.ArgumentTypeError(
            f"{text!r} is no time: 90, 10min, 2h, 06:30")
    return float(found[1]) * UNITS[found[2]]


def rate(text: str) -> int:
    """Return bytes per second: "20M"."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([kmg]?)", text.lower())
    if not found or float(found[1]) <= 0:
        raise argparse.ArgumentTypeError(
            f"{text!r} is no rate in bytes per second: 500k, 20M, 1G")
    return int(float(found[1]) * RATES[found[2]])


def milliseconds(text: str) -> float:
    """Return seconds: "300"."""
    if not text.isdigit() or not 0 < int(text) <= 10000:
        raise argparse.ArgumentTypeError(
            f"{text!r} are no milliseconds from 1 to 10000")
    return int(text) / 1000


class Interrupt:
    """Ctrl-C cancels in good order; the second one leaves the move alone."""

    def __init__(self, driver: Driver) -> None:
        self.driver = driver
        self.count = 0
        self.old: Any = None

    def __enter__(self) -> "Interrupt":
        self.old = signal.signal(signal.SIGINT, self.hear)
        return self

    def __exit__(self, *_: object) -> None:
        signal.signal(signal.SIGINT, self.old)

    def hear(self, _number: int, _frame: object) -> None:
        """Take in Ctrl-C."""
        self.count += 1
        if self.count == 1:
            self.driver.cancel("")
        else:
            self.driver.stop = True


def drive(home: Home, agents: Agents, move: Move, args: argparse.Namespace,
          subject: Optional[outlook.Subject] = None) -> Move:
    """Drive a move and show it; of @subject it is known what it needs."""
    progress = Progress(args.json)
    driver = Driver(home, agents, move, progress.show)
    if subject:
        driver.suit(outlook.disk_needs(subject), getattr(
            args, "downtime", None) or subject.spec.sla.downtime_most)
        if move.due:
            there = outlook.host_now(agents, move.destination, subject.spec)
            driver.pace = Duly(subject, there, Due(move.begun, move.due))
    driver.patient = subject is None or getattr(args, "wait", False)
    try:
        with Interrupt(driver):
            return resume(home, agents, move, progress.show, driver)
    finally:
        progress.done()


def result(move: Move, as_json: bool) -> int:
    """Tell how a move has ended; return the exit status."""
    if as_json:
        say_json(to_plain(move))
    elif move.result == "moved":
        say(f"{move.vm} runs on {move.destination}: {human(move.bytes)} in "
            f"{move.seconds:.1f} s (expected {human(move.expected_bytes)} in "
            f"{move.expected_seconds:.0f} s), it stood still for "
            f"{move.downtime_ms} ms")
    elif move.result == "cancelled":
        say(f"{move.vm} stays on {move.source}: it was cancelled; the next "
            "try goes on where this one was")
    elif move.result:
        say(f"{move.vm} stays on {move.source}: {move.text}")
    elif move.text:
        say(f"{move.vm}: {move.text}")
    else:
        say(f"move {move.id[:8]} of {move.vm} "
            + ("is being cancelled, and nobody waits for that"
               if move.cancel else "goes on by itself")
            + f": 'wsmctl status', 'wsmctl recover {move.vm}'")
    if not move.result and move.text:
        return 4
    return 0 if move.result == "moved" else 1


def carried(move: Move) -> bool:
    """Return whether a move has ended, and not because somebody said so."""
    return bool(move.result) and not (move.cancel and not move.reason)


def pick(agents: Agents, subject: outlook.Subject,
         args: argparse.Namespace) -> filters.Choice:
    """Return the host to which a VM moves; raise CliError."""
    found = outlook.choices(agents, subject, float(args.rate or 0))
    if args.to:
        agents.home.host(args.to)
        found = [each for each in found if each.host == args.to]
        forced = frozenset(args.force) - filters.FIRM
        if found[0].refusals and forced:
            left = tuple(each for each in found[0].refusals
                         if each.filter not in forced)
            there = outlook.host_now(agents, args.to, subject.spec)
            found = [dataclasses.replace(
                found[0], refusals=left,
                estimate=None if left else outlook.cost_of(subject, there))]
    if not found or found[0].refusals:
        lines = [line for each in found
                 for line in outlook.refusal_lines(each)]
        raise CliError(
            f"{subject.use.name} can go nowhere:\n    "
            + ("\n    ".join(lines) or "there is no other host"), 4,
            {"vm": subject.use.name, "hosts": [
                outlook.choice_json(each) for each in found]})
    return found[0]


def persist(home: Home, args: argparse.Namespace, name: str,
            once: Callable[[], Move]) -> Move:
    """Try, and again where that can help; return the last move."""
    tries = 0
    while True:
        move = once()
        tries += 1
        again = (outcome.retry(outcome.kind_of(move.text), tries)
                 if move.result == "stayed" and not move.reason else None)
        if again is None or tries > args.retries or home.cancel_wanted(
                move.id):
            return move
        if not args.json:
            result(move, False)
            say(f"{name}: once more in {again.wait:.0f} s")
        time.sleep(again.wait)


def migrate(home: Home, args: argparse.Namespace) -> int:
    """Move one VM, and try again where that can help."""
    if args.by_controller:
        return leave(home, args)
    agents = Agents(home)
    if args.dry_run:
        _, _, best, cost, speed = consider(agents, args)
        tell_plan(args, best, cost, speed)
        return 0
    due = time.time() + args.deadline if args.deadline else 0.0
    move = persist(home, args, args.name,
                   lambda: attempt(home, agents, args, due))
    return result(move, args.json)


def leave(home: Home, args: argparse.Namespace) -> int:
    """Let the controller move a VM, so that it has ended in time."""
    if not args.deadline or args.dry_run or args.force:
        raise CliError("--by-controller: with --deadline TIME, without "
                       "--dry-run and --force", 2)
    found = daemons.ask(home, "/errand", {
        "vm": args.name, "due": time.time() + args.deadline,
        **({"to": args.to} if args.to else {})})
    return tell(args.json, steer.errand_line(found)
                + f". 'wsmctl cancel {args.name}' takes it back", found)


def consider(agents: Agents, args: argparse.Namespace) -> tuple[
        str, outlook.Subject, filters.Choice, Estimate, float]:
    """Return (where it is, VM, best host, cost, rate); raise CliError."""
    where = agents.find_vm(args.name)
    subject = outlook.look_at(agents, args.name, where)
    best = pick(agents, subject, args)
    assert best.estimate
    speed, cost = float(args.rate or 0), best.estimate
    if args.deadline:
        there = outlook.host_now(agents, best.host, subject.spec)
        speed = outlook.deadline_rate(subject, there, args.deadline)
        cost = outlook.cost_of(subject, there, speed)
    return where, subject, best, cost, speed


def attempt(home: Home, agents: Agents, args: argparse.Namespace,
            due: float = 0.0) -> Move:
    """Move a VM once, so that it has ended when it is due."""
    where, subject, best, cost, speed = consider(agents, args)
    move = book(home, args.name, where, best.host, cost, speed, due=due)
    # What has failed once has less time, but is no less wanted
    args.deadline = None
    if not args.json:
        say(f"{args.name} moves from {where} to {best.host}: "
            + outlook.estimate_lines(cost)[0])
    return drive(home, agents, move, args, subject)


def book(home: Home, vm: str, source: str, destination: str, cost: Estimate,
         speed: float, drained: str = "", due: float = 0.0) -> Move:
    """Write a new move into the journal, as it is expected."""
    return home.new_move(outlook.new_move(
        vm, source, destination, cost, rate=int(speed), drained=drained,
        due=due))


def tell_plan(args: argparse.Namespace, best: filters.Choice,
              cost: Estimate, speed: float) -> None:
    """Show what a move would be."""
    if args.json:
        say_json({"vm": args.name, "to": best.host, "rate": int(speed),
                  "estimate": outlook.estimate_json(cost)})
        return
    say(f"{args.name} would move to {best.host}: "
        + outlook.estimate_lines(cost)[0])
    for line in outlook.estimate_lines(cost)[1:]:
        say(f"    {line}")
    if speed:
        say(f"    at {human(speed)}/s")


def cancel(home: Home, args: argparse.Namespace) -> int:
    """Cancel a move; whoever drives it sees it."""
    try:
        move = home.move(args.move)
    except CliError:
        if not home.cluster.controllers:
            raise
        found = daemons.ask(home, "/cancel", {"move": args.move})
        if not found["id"]:
            return tell(args.json, f"{found['vm']} stays: it had not begun to "
                        "move", found)
        return tell(args.json, f"move {found['id'][:8]} of {found['vm']} is "
                    "being cancelled by the controller", found)
    if move.ended:
        return tell(args.json, f"move {move.id[:8]} of {move.vm} has ended: "
                    f"{move.result}", to_plain(move))
    home.want_cancel(move.id)
    try:
        with home.locked(move.id):
            pass
    except CliError:
        return tell(args.json, f"move {move.id[:8]} of {move.vm} is being "
                    "cancelled by the wsmctl that drives it", to_plain(move))
    done = drive(home, Agents(home), home.move(move.id), args)
    return 0 if result(done, args.json) in (0, 1) else 1


def recover(home: Home, args: argparse.Namespace) -> int:
    """Go on with a VM's move that nobody drives, or do what a person wants."""
    found = [move for move in home.open_moves() if move.vm == args.name]
    if not found and home.cluster.controllers:
        found = [home.put_move(move) for move in controllers(home)
                 if move.vm == args.name and not move.ended]
    if not found:
        return tell(args.json, f"{args.name} is in no move that this journal "
                    "knows", {"vm": args.name, "moves": []})
    if args.from_source or args.keep:
        with home.locked(found[-1].id):
            return decide(home, Agents(home), found[-1], args)
    return result(drive(home, Agents(home), found[-1], args), args.json)


def controllers(home: Home) -> list[Move]:
    """Return the moves of the controller; looking at both ends is enough."""
    return [from_plain(Move, {name: value for name, value in each.items()
                              if name not in ("spot", "why")})
            for each in daemons.ask(home, "/moves")["moves"]]


def decide(home: Home, agents: Agents, move: Move,
           args: argparse.Namespace) -> int:
    """Do what a person has decided after a loss."""
    step = next_step(Driver(home, agents, move, lambda *_: None).observe())
    wanted = ("destination lost", "blocks lost", "both dead") if (
        args.from_source) else ("blocks lost",)
    if not step.person and not args.i_know:
        raise CliError(f"nothing is lost for good: {step.text}. 'wsmctl "
                       f"recover {move.vm}' goes on", 4)
    if step.row not in wanted and args.i_know != move.destination:
        raise CliError(
            f"{move.vm} is in row '{step.row}': {step.text}. If "
            f"{move.destination} is gone for good, say so with --i-know "
            f"{move.destination}", 4)
    if not args.accept_loss:
        raise CliError(f"{step.text}. If you accept that: --accept-loss", 4)
    path = f"/move/{move.id}"
    if args.keep:
        agents[move.destination].order(f"{path}/settle")
        where, text = move.destination, "kept with blocks missing"
    else:
        # What may run there ends first, unless a person knows that it has
        try:
            agents[move.destination].order(f"{path}/give-up")
        except NoAnswer:
            if args.i_know != move.destination:
                raise
        except AgentSaid as error:
            if not error.no_move():
                raise
        agents[move.source].order(f"{path}/take-back", token={
            "vm": move.vm, "method": "operator", "host": move.destination,
            "by": getpass.getuser()})
        where, text = move.source, "taken back as of the handover"
    move = home.put_move(dataclasses.replace(
        move, ended=time.time(), stage=int(Stage.ENDED), text=text,
        result="moved" if args.keep else "stayed"))
    return tell(args.json, f"{move.vm} is {where}'s: {text}", to_plain(move))


def options(commands: Any) -> None:
    """Describe these verbs."""
    each = commands.add_parser("migrate", help="move a VM to another host")
    each.add_argument("name")
    each.add_argument("--to", metavar="HOST", help="default: the best one")
    each.add_argument("--dry-run", action="store_true",
                      help="only say what it would be")
    pace = each.add_mutually_exclusive_group()
    pace.add_argument("--deadline", type=duration, metavar="TIME",
                      help="as gently as possible, but done in or at TIME")
    pace.add_argument("--rate", type=rate, help="at most so many bytes/s")
    each.add_argument("--force", action="append", default=[],
                      metavar="FILTER", help="although this filter refuses")
    each.add_argument("--by-controller", action="store_true",
                      help="with --deadline: the controller begins it, as "
                      "late as is wise")
    each.add_argument("--downtime", type=milliseconds, metavar="MS",
                      help="how long the guest may stand still; default: "
                      "its sla.downtime_ms_max, or that of its class")
    each.add_argument("--wait", action="store_true", help="go on although "
                      "its memory does not converge")
    each.add_argument("--retries", type=int, default=2, help="after failures "
                      "for which the next try may do better; default 2")
    each.set_defaults(act=migrate)
    each = commands.add_parser("cancel", help="cancel a move")
    each.add_argument("move", help="its id, the begin of it, or the VM")
    each.set_defaults(act=cancel)
    each = commands.add_parser("recover", help="go on with a VM's move")
    each.add_argument("name")
    each.add_argument("--from-source", action="store_true",
                      help="the destination is lost: boot the source's disks, "
                      "as of the handover")
    each.add_argument("--keep", action="store_true",
                      help="the source is lost: keep what has arrived")
    each.add_argument("--accept-loss", action="store_true")
    each.add_argument("--i-know", metavar="HOST", default="",
                      help="that HOST is dead for good")
    each.set_defaults(act=recover)
