# SPDX-License-Identifier: GPL-2.0-or-later
"""wsmctl vm ...: describe, look at, start and stop VMs."""

import argparse
import secrets
import uuid
from typing import Any

from wsm.cli.agents import Agents, AgentSaid, NoAnswer
from wsm.cli.home import CliError, Home
from wsm.cli.outlook import disk_needs, look_at
from wsm.cli.terminal import say, say_json, table, tell
from wsm.plan import spec
from wsm.plan.inventory import human


def adopt(home: Home, args: argparse.Namespace) -> int:
    """Describe a QEMU that runs, and take care of it."""
    if args.qmp and not args.qmp.startswith("/"):
        raise CliError(f"--qmp {args.qmp}: a path at {args.host} begins with "
                       "/", 2)
    agent = Agents(home)[args.host]
    if args.qmp and "adopt-qmp" not in agent.get("/hello").get("can", []):
        raise CliError(f"the agent of {agent.name} is older and does not know "
                       "--qmp: install the new one there, or use --pid")
    found = agent.order("/vm/adopt", name=args.name or "", pid=args.pid or 0,
                        qmp=args.qmp or "", dry_run=args.dry_run)
    refused = [each for each in found["findings"]
               if each["level"] == "refused"]
    if args.json:
        say_json(found)
        return 4 if refused else 0
    for each in found["findings"]:
        say(f"{each['level']}: {each['text']} [{each['rule']}]")
    if refused:
        return 4
    if args.dry_run:
        print(found["toml"], end="")
    else:
        say(f"{found['spec']['name']} is a VM of {args.host} now; nothing was "
            "changed in its QEMU")
    return 0


def every(agents: Agents) -> tuple[list[dict[str, Any]], list[str]]:
    """Return (VMs of all hosts, hosts that do not answer, or not this)."""
    found, silent = [], []
    for host in agents.names():
        try:
            found += agents[host].get("/vms")["vms"]
        except (AgentSaid, NoAnswer) as error:
            silent.append(str(error))
    return found, silent


def listing(home: Home, args: argparse.Namespace) -> int:
    """List all VMs."""
    found, silent = every(Agents(home))
    if args.json:
        say_json({"vms": found, "silent": silent})
    else:
        table(vm_rows(found))
        for vm in found:
            if vm.get("problem"):
                say(f"damaged: {vm['host']}: {vm['problem']}; if {vm['name']} "
                    "runs, 'wsmctl vm forget' and 'vm adopt' write it anew")
        for each in silent:
            say(f"no answer: {each}")
    return 5 if silent else 0


def vm_rows(found: list[dict[str, Any]]) -> list[tuple[str, ...]]:
    """Return VMs for people, with a head."""
    return [("VM", "HOST", "STATE", "OWNER", "MOVE"), *(
        (vm["name"], vm["host"], "runs" if vm["runs"] else "off",
         vm["owner"], vm["moving"][:8] or "-")
        for vm in sorted(found, key=lambda vm: str(vm["name"])))]


def show(home: Home, args: argparse.Namespace) -> int:
    """Show one VM."""
    agents = Agents(home)
    where = agents.find_vm(args.name)
    found = agents[where].get(f"/vm/{args.name}", timeout=60.0)
    if args.json:
        say_json(found)
        return 0
    say(f"# {args.name} on {where}, "
        + ("runs" if found["runs"] else "does not run"))
    use = found.get("use", {})
    if use:
        say(f"# {use.get('demand', 0):.2f} cores, {human(use['touched'])} of "
            "memory in use")
    for disk in use.get("disks", []):
        say(f"# disk {disk['id']}: {human(disk['allocated'])} of "
            f"{human(disk['size'])} in use")
    print(spec.dumps(spec.from_json(found["spec"])), end="")
    return 0


def simple(verb: str) -> Any:
    """Return what does one thing with a VM where it is."""
    def act(home: Home, args: argparse.Namespace) -> int:
        agents = Agents(home)
        where = agents.find_vm(args.name)
        agents[where].order(f"/vm/{verb}", name=args.name,
                            force=getattr(args, "force", False))
        return tell(args.json, f"{args.name} on {where}: {verb}: done",
                    {"vm": args.name, "host": where, "done": verb})

    return act


def check(home: Home, args: argparse.Namespace) -> int:
    """Start the destination's QEMU on blank images, compare, and end it."""
    agents = Agents(home)
    where = agents.find_vm(args.name)
    if args.to == where:
        raise CliError(f"{args.name} is on {where} already", 2)
    subject = look_at(agents, args.name, where)
    move = str(uuid.uuid4())
    source, destination = agents[where], agents[args.to]
    facts = source.order(f"/move/{move}/begin", vm=args.name, peer=args.to)
    problem = ""
    try:
        destination.order(
            f"/move/{move}/prepare", spec=facts["spec"], peer=where,
            vm_epoch=facts["epoch"], fingerprint=facts["fingerprint"],
            key=secrets.token_hex(32), needs=disk_needs(subject))
    except AgentSaid as error:
        problem = str(error)
    finally:
        for agent, verb in ((destination, "clean"), (source, "keep")):
            try:
                agent.order(f"/move/{move}/{verb}")
            except AgentSaid as error:
                if not error.no_move():
                    raise
    if args.json:
        say_json({"vm": args.name, "to": args.to, "fits": not problem,
                  "problem": problem})
    else:
        say(problem or f"{args.name} can move from {where} to {args.to}: the "
            "same machine, and room for it")
    return 4 if problem else 0


def options(commands: Any) -> None:
    """Describe these verbs."""
    parser = commands.add_parser("vm", help="adopt, list, show, check, start, "
                                 "stop, forget")
    verbs = parser.add_subparsers(dest="verb", required=True)
    each = verbs.add_parser("adopt", help="take care of a QEMU that runs")
    each.add_argument("host")
    each.add_argument("name", nargs="?", help="as in its -name; with --pid "
                      "or --qmp the name that it gets")
    which = each.add_mutually_exclusive_group()
    which.add_argument("--pid", type=int, help="of its process")
    which.add_argument("--qmp", metavar="PATH", help="of a monitor of it that "
                       "nobody else uses, at the host")
    each.add_argument("--dry-run", action="store_true",
                      help="only show the description")
    each.set_defaults(act=adopt)
    each = verbs.add_parser("list", help="all VMs")
    each.set_defaults(act=listing)
    each = verbs.add_parser("check", help="whether it could move there")
    each.add_argument("name")
    each.add_argument("--to", required=True, metavar="HOST")
    each.set_defaults(act=check)
    for verb, what, act in (
            ("show", "its description and use", show),
            ("start", "boot it", simple("start")),
            ("stop", "press its power button", simple("stop")),
            ("forget", "drop its description; QEMU and images stay",
             simple("forget"))):
        each = verbs.add_parser(verb, help=what)
        each.add_argument("name")
        if verb == "stop":
            each.add_argument("--force", action="store_true",
                              help="end it at once")
        each.set_defaults(act=act)
