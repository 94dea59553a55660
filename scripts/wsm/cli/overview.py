# SPDX-License-Identifier: GPL-2.0-or-later
"""wsmctl status, watch, history: hosts, VMs, moves."""

import argparse
import json
import shutil
import sys
import time
from dataclasses import dataclass
from typing import Any, Callable, Mapping, Optional, Sequence, TypeVar

from wsm.cli import hosts, machines, outlook
from wsm.cli.agents import Agents, AgentSaid, NoAnswer
from wsm.cli.home import CliError, Home, Move
from wsm.cli.terminal import columns, plain, say, say_json, table
from wsm.plan.inventory import Host, HostState, human
from wsm.plan.plain import to_plain

CLEAR = "\x1b[H\x1b[2J"
PARTS = ("hosts", "vms")    # what status shows; moves are the VMs'
HEAD = 1                    # lines above a table
T = TypeVar("T")


@dataclass(frozen=True)
class View:
    """All that one screen shows."""

    hosts: list[Host]
    vms: list[dict[str, Any]]
    silent: list[str]                               # who does not answer
    moves: list[tuple[Move, Mapping[str, Any]]]     # open ones, with figures


def look(home: Home, what: Sequence[str] = PARTS) -> View:
    """Look at everything, or some of PARTS, as it is now."""
    agents = Agents(home)
    found = [outlook.host_now(agents, name) for name in agents.names()
             if "hosts" in what]
    if "vms" not in what:
        return View(found, [], [host.name for host in found
                                if host.state is HostState.UNKNOWN], [])
    vms, silent = machines.every(agents)
    moves: list[tuple[Move, Mapping[str, Any]]] = []
    for move in home.open_moves():
        try:
            figures = agents[move.source].get(f"/move/{move.id}")["figures"]
        except (NoAnswer, AgentSaid) as error:
            figures = {"phase": str(error)}
        moves.append((move, figures))
    return View(found, vms, silent, moves)


def view_json(home: Home, view: View, what: Sequence[str] = PARTS
              ) -> dict[str, Any]:
    """Return a view for programs; of @what it was made."""
    made: dict[str, Any] = {"silent": view.silent}
    if "hosts" in what:
        made["hosts"] = [hosts.host_json(home, host) for host in view.hosts]
    if "vms" in what:
        made |= {"vms": view.vms, "moves": [
            {**to_plain(move), "now": figures}
            for move, figures in view.moves]}
    return made


def move_lines(view: View) -> list[str]:
    """Return for people who does not answer, and what moves."""
    lines = [f"no answer: {each}" for each in view.silent]
    for move, figures in view.moves:
        lines.append(f"move {move.id[:8]}: {move.vm} {move.source} -> "
                     f"{move.destination}: {outlook.progress_line(figures, move)}")
        if move.text:
            lines.append(f"    a person is needed: {move.text}")
    return lines


def view_lines(view: View, what: Sequence[str] = PARTS,
               most: Optional[int] = None) -> list[str]:
    """
    Return a view for people, of @most lines if that can be.

    What moves and who does not answer is always there; of VMs and hosts,
    those that are as they should be are left out first.
    """
    moves = move_lines(view)
    some_hosts, some_vms = view.hosts, view.vms
    if most is not None:
        room = max(0, most - len(moves) - 2)
        those = min(len(some_hosts) + HEAD, max(
            room // 2, room - len(some_vms) - HEAD))
        some_hosts = first(some_hosts, those, lambda host:
                           host.state is HostState.ACTIVE)
        some_vms = first(some_vms, room - those, is_calm)
    lines = []
    if "hosts" in what:
        lines += [*columns(hosts.host_rows(some_hosts)),
                  *more(view.hosts, some_hosts, "--hosts"), ""]
    if "vms" in what:
        lines += [*columns(machines.vm_rows(some_vms)),
                  *more(view.vms, some_vms, "--vms"), ""]
    return lines + moves


def is_calm(vm: Mapping[str, Any]) -> bool:
    """Return whether a VM runs where it belongs, and stays."""
    return bool(vm["runs"] and vm["owner"] == "owner" and not vm["moving"])


def first(things: list[T], lines: int, calm: Callable[[T], bool]) -> list[T]:
    """Return as many as fit into so many lines with a head, calm ones last."""
    if len(things) + HEAD <= lines:
        return things
    chosen = sorted(things, key=calm)[:max(0, lines - HEAD - 1)]
    return [each for each in things if each in chosen]


def more(things: Sequence[Any], some: Sequence[Any], option: str
         ) -> list[str]:
    """Return a line that says how many of @things are not among @some."""
    left = len(things) - len(some)
    return [f"... and {left} more: wsmctl status {option}"] if left else []


def status(home: Home, args: argparse.Namespace) -> int:
    """Show hosts, VMs and moves; on one screen, if all of it is wanted."""
    what = args.what or PARTS
    view = look(home, what)
    if args.json:
        say_json(view_json(home, view, what))
    else:
        for line in view_lines(view, what, None if args.what else height()):
            say(line)
    return 5 if view.silent else 0


def height() -> Optional[int]:
    """Return the lines of the terminal but that of the prompt; None: none."""
    return (shutil.get_terminal_size().lines - 1 if sys.stdout.isatty()
            else None)


def watch(home: Home, args: argparse.Namespace) -> int:
    """Show the same again and again, until Ctrl-C."""
    if args.every <= 0:
        raise CliError(f"--every {args.every:g}: more than 0 seconds", 2)
    live = sys.stdout.isatty() and not args.json
    last: list[str] = []
    try:
        while True:
            view = look(home)
            if args.json:
                print(json.dumps(view_json(home, view), sort_keys=True),
                      flush=True)
            elif live:
                lines = view_lines(view, most=(height() or 24) - 1)
                text = "\n".join(map(plain, lines))
                print(f"{CLEAR}{time.strftime('%H:%M:%S')}\n{text}",
                      flush=True)
            else:
                last = news(last, view)
            time.sleep(args.every)
    except KeyboardInterrupt:
        return 0


def gist(line: str) -> str:
    """Return what of a line is news: no speed, no time."""
    words = line.split(", ")
    return ", ".join(words[:2] if words[1:2] and "%" in words[1]
                     else words[:1])


def news(last: list[str], view: View) -> list[str]:
    """Say what was not there the last time; return the gist of all."""
    lines = [f"{vm['name']} on {vm['host']}: "
             f"{'runs' if vm['runs'] else 'off'} and {vm['owner']}"
             for vm in view.vms] + move_lines(view)
    for line in lines:
        if gist(line) not in last:
            say(f"{time.strftime('%H:%M:%S')} {line}")
    return [gist(line) for line in lines]


def history(home: Home, args: argparse.Namespace) -> int:
    """List the moves of this journal."""
    moves = home.moves()[-args.last:] if args.last > 0 else home.moves()
    if args.json:
        say_json([to_plain(move) for move in moves])
        return 0
    rows = [("MOVE", "VM", "FROM", "TO", "BEGUN", "RESULT", "SECONDS",
             "EXPECTED", "BYTES", "EXPECTED", "PAUSE")]
    for move in moves:
        rows.append((
            move.id[:8], move.vm, move.source, move.destination,
            time.strftime("%Y-%m-%d %H:%M", time.localtime(move.begun)),
            move.result or "open", f"{move.seconds:.1f}",
            f"{move.expected_seconds:.1f}", human(move.bytes),
            human(move.expected_bytes), f"{move.downtime_ms} ms"))
    table(rows)
    return 0


def options(commands: Any) -> None:
    """Describe these verbs."""
    each = commands.add_parser("status", help="hosts, VMs and moves, on one "
                               "screen")
    for name, text in (("hosts", "all hosts"), ("vms", "all VMs, and moves")):
        each.add_argument(f"--{name}", dest="what", action="append_const",
                          const=name, help=f"only {text}, however many")
    each.set_defaults(act=status)
    each = commands.add_parser("watch", help="the same, until Ctrl-C; where "
                               "there is no terminal, lines that are new")
    each.add_argument("--every", type=float, default=2.0, metavar="S",
                      help="seconds between looks; default 2")
    each.set_defaults(act=watch)
    each = commands.add_parser("history", help="the moves of this journal")
    each.add_argument("--last", type=int, default=20, metavar="N",
                      help="so many; default 20, 0: all")
    each.set_defaults(act=history)
