# SPDX-License-Identifier: GPL-2.0-or-later
"""wsmctl image list, image gc: old copies of disks."""

import argparse
import sys
import time
from dataclasses import dataclass
from typing import Any

from wsm.cli import machines
from wsm.cli.agents import Agents, AgentSaid, NoAnswer
from wsm.cli.home import Home
from wsm.cli.terminal import plain, say, say_json, table, tell
from wsm.plan.inventory import Copy, human
from wsm.plan.plain import from_plain, to_plain

DAY = 86400


@dataclass(frozen=True)
class Found:
    """An old copy, and why it may not be removed."""

    host: str
    copy: Copy
    keep: str


def why_keep(copy: Copy, host: str, vms: list[dict[str, Any]],
             silent: list[str], days: float) -> str:
    """Return why a copy must stay, "" if it need not."""
    homes = [vm for vm in vms if vm["name"] == copy.vm
             and vm["owner"] == "owner"]
    if copy.state not in ("handed-over", "incomplete"):
        return f"it is '{copy.state}'"
    if len(homes) != 1 or homes[0]["host"] == host:
        return f"{copy.vm} is not seen elsewhere" + (
            ": not all hosts answer" if silent else "")
    if homes[0]["moving"]:
        return f"{copy.vm} is in a move"
    if not homes[0]["runs"]:
        return f"{copy.vm} does not run at {homes[0]['host']}"
    age = (time.time() - copy.since) / DAY
    if age < days:
        return f"it is {age:.1f} days old, kept for {days:g}"
    return ""


@dataclass(frozen=True)
class Seen:
    """All old copies, and what keeps some from being seen."""

    copies: list[Found]
    silent: list[str]           # hosts that do not answer
    damaged: list[str]          # what is wrong at hosts that do

    def tell(self, as_json: bool) -> None:
        """Say what was not seen; beside the JSON if there is one."""
        for line in ([f"no answer: {each}: its copies stay"
                      for each in self.silent]
                     + [f"damaged: {each}" for each in self.damaged]):
            print(plain(line), file=sys.stderr if as_json else sys.stdout,
                  flush=True)

    def status(self, good: int = 0) -> int:
        """Return the exit status."""
        return 5 if self.silent else 1 if self.damaged else good


def find(agents: Agents, days: float) -> Seen:
    """Look for old copies everywhere; what is damaged stops nothing."""
    vms, silent = machines.every(agents)
    found, damaged = [], []
    for host in agents.names():
        try:
            answer = agents[host].get("/images", 60.0)
        except NoAnswer:
            continue            # told by those who were asked for VMs
        except AgentSaid as error:
            damaged.append(str(error))
            continue
        damaged += [f"{host}: {each}" for each in answer.get("damaged", [])]
        for image in answer["images"]:
            copy = from_plain(Copy, image)
            found.append(Found(host, copy, why_keep(copy, host, vms, silent,
                                                    days)))
    return Seen(found, silent, damaged)


def listing(home: Home, args: argparse.Namespace) -> int:
    """List old copies."""
    seen = find(Agents(home), args.keep)
    rows = [("HOST", "VM", "DISK", "SIZE", "STATE", "KEPT BECAUSE")]
    rows += [(each.host, each.copy.vm, each.copy.disk,
              human(each.copy.allocated), each.copy.state, each.keep or "-")
             for each in seen.copies]
    if args.json:
        say_json([{"host": each.host, "keep": each.keep,
                   **to_plain(each.copy)} for each in seen.copies])
    else:
        table(rows)
    seen.tell(args.json)
    return seen.status()


def collect(home: Home, args: argparse.Namespace) -> int:
    """Remove old copies that nobody needs."""
    agents = Agents(home)
    seen = find(agents, args.keep)
    freed = [each for each in seen.copies if not each.keep]
    total = sum(each.copy.allocated for each in freed)
    for each in freed:
        if not args.json:
            say(f"{each.host}: {each.copy.path}: "
                f"{human(each.copy.allocated)}")
        if not args.dry_run:
            agents[each.host].order("/image/remove", vm=each.copy.vm,
                                    disk=each.copy.disk)
    tell(args.json, f"{human(total)} " + (
        "could be freed" if args.dry_run else "were freed"), {
            "bytes": total, "dry-run": args.dry_run, "images": [
                {"host": each.host, **to_plain(each.copy)}
                for each in freed]})
    seen.tell(args.json)
    return seen.status(3 if args.dry_run and freed else 0)


def options(commands: Any) -> None:
    """Describe these verbs."""
    parser = commands.add_parser("image", help="old copies of disks")
    verbs = parser.add_subparsers(dest="verb", required=True)
    for verb, what, act in (
            ("list", "those that are there", listing),
            ("gc", "remove those that nobody needs", collect)):
        each = verbs.add_parser(verb, help=what)
        each.add_argument("--keep", type=float, default=14.0, metavar="DAYS",
                          help="how long they are kept for the way back")
        if verb == "gc":
            each.add_argument("--dry-run", action="store_true")
        each.set_defaults(act=act)
