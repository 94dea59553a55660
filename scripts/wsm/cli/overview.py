# SPDX-License-Identifier: GPL-2.0-or-later
"""wsmctl status, watch, history: hosts, VMs, moves."""

import argparse
import json
import sys
import time
from dataclasses import dataclass
from typing import Any, Mapping

from wsm.cli import hosts, machines, outlook
from wsm.cli.agents import Agents, AgentSaid, NoAnswer
from wsm.cli.home import CliError, Home, Move
from wsm.cli.terminal import columns, plain, say, say_json, table
from wsm.plan.inventory import Host, human
from wsm.plan.plain import to_plain

CLEAR = "\x1b[H\x1b[2J"


@dataclass(frozen=True)
class View:
    """All that one screen shows."""

    hosts: list[Host]
    vms: list[dict[str, Any]]
    silent: list[str]                               # who does not answer
    moves: list[tuple[Move, Mapping[str, Any]]]     # open ones, with figures


def look(home: Home) -> View:
    """Look at everything, as it is now."""
    agents = Agents(home)
    vms, silent = machines.every(agents)
    moves: list[tuple[Move, Mapping[str, Any]]] = []
    for move in home.open_moves():
        try:
            figures = agents[move.source].get(f"/move/{move.id}")["figures"]
        except (NoAnswer, AgentSaid) as error:
            figures = {"phase": str(error)}
        moves.append((move, figures))
    return View([outlook.host_now(agents, name) for name in agents.names()],
                vms, silent, moves)


def view_json(home: Home, view: View) -> dict[str, Any]:
    """Return a view for programs."""
    return {"hosts": [hosts.host_json(home, host) for host in view.hosts],
            "vms": view.vms, "silent": view.silent, "moves": [
                {**to_plain(move), "now": figures}
                for move, figures in view.moves]}


def move_lines(view: View) -> list[str]:
    """Return for people who does not answer, and what moves."""
    lines = [f"no answer: {each}" for each in view.silent]
    for move, figures in view.moves:
        lines.append(f"move {move.id[:8]}: {move.vm} {move.source} -> "
                     f"{move.destination}: {outlook.progress_line(figures, move)}")
        if move.text:
            lines.append(f"    a person is needed: {move.text}")
    return lines


def view_lines(view: View) -> list[str]:
    """Return a view for people."""
    return [*columns(hosts.host_rows(view.hosts)), "",
            *columns(machines.vm_rows(view.vms)), "", *move_lines(view)]


def status(home: Home, args: argparse.Namespace) -> int:
    """Show hosts, VMs and moves on one screen."""
    view = look(home)
    if args.json:
        say_json(view_json(home, view))
    else:
        for line in view_lines(view):
            say(line)
    return 5 if view.silent else 0


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
                text = "\n".join(map(plain, view_lines(view)))
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
    each = commands.add_parser("status", help="hosts, VMs and moves")
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
