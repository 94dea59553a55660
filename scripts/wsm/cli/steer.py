# SPDX-License-Identifier: GPL-2.0-or-later
"""wsmctl plan, apply, explain, why-not, mode, pause, rule, report, audit."""

import argparse
import time
from typing import Any, Iterator, Mapping

from wsm.cli import daemons
from wsm.cli.home import CliError, Home
from wsm.cli.moment import clock, moment
from wsm.cli.terminal import say, say_json, table, tell
from wsm.plan.inventory import human

MODES = ("observe", "ask", "auto")
KINDS = ("pin", "not", "apart", "together", "prefer", "ask", "never")
WITH_HOSTS = ("pin", "not", "prefer")


def plan(home: Home, args: argparse.Namespace) -> int:
    """Show what would be done now; do nothing."""
    found = daemons.ask(home, "/plan")
    if args.json:
        say_json(found)
    else:
        for line in plan_lines(found):
            say(line)
    return 3 if found["steps"] or found["asked"] else 0


def plan_lines(found: Mapping[str, Any]) -> Iterator[str]:
    """Yield a plan for people."""
    yield f"plan {found['plan']}, mode {found['mode']}" + (
        ", paused" if found["paused"] else "") + (
        f", begins nothing for {found['waits']} s more"
        if found["waits"] else "")
    for step in found["steps"]:
        yield f"    {step['why']}"
    for step in found["asked"]:
        yield f"    only if you say so ({step['ask']}): {step['why']}"
    for step in found["later"]:
        yield f"    then, if it is still right: {step['why']}"
    for each in found["nothing"]:
        lines = each["lines"]
        yield f"    nothing is done: {lines[0]}"
        yield from (f"        {line}" for line in lines[1:])
    for each in found.get("errands", ()):
        yield "    " + errand_line(each)
    if not found["spots"]:
        yield f"    {found['text']}"
    if found["asked"] or found["steps"] and found["mode"] != "auto":
        yield f"'wsmctl apply {found['plan']}' carries it out"


def errand_line(each: Mapping[str, Any]) -> str:
    """Return what a VM is to do by a time."""
    if each["begins"] is None:
        return f"{each['text']}: no target: " + "; ".join(each["against"])
    return (f"from {clock(each['begins'])} on: {each['text']}"
            + (f"; late by {each['late']:.0f} s" if each["late"] else ""))


def apply(home: Home, args: argparse.Namespace) -> int:
    """Carry out a plan, if it is still right."""
    found = daemons.ask(home, "/apply", {"plan": args.plan, **(
        {"vm": args.vm} if args.vm else {})})
    if args.json:
        say_json(found)
    else:
        for step in found["begun"]:
            say(f"{step['vm']} begins to move from {step['from']} to "
                f"{step['to']}: 'wsmctl status'")
        if not found["begun"]:
            say("all of it is under way already")
    return 0


def show(args: argparse.Namespace, found: Mapping[str, Any]) -> None:
    """Show lines, and decisions of the record."""
    if args.json:
        say_json(found)
        return
    for line in found["lines"]:
        for each in line.splitlines():
            say(each)
    for each in found.get("decisions", []):
        say(f"plan {each['plan']}, {clock(each['at'])}"
            + (f" to {clock(each['until'])}, {each['rounds']} rounds"
               if each["rounds"] > 1 else "") + f", mode {each['mode']}:")
        for line in each["text"].splitlines():
            say(f"    {line}")


def when(args: argparse.Namespace) -> dict[str, Any]:
    """Return which round is asked about; none: now."""
    if args.at is not None:
        return {"at": str(moment(args.at, time.time()))}
    return {} if args.decision is None else {"decision": str(args.decision)}


def when_options(parser: argparse.ArgumentParser) -> None:
    """Describe which round is asked about."""
    group = parser.add_mutually_exclusive_group()
    group.add_argument("--at", metavar="TIME", help="as it was then: 14:03, "
                       "\"2026-11-28 14:03\", 10m (ago)")
    group.add_argument("--decision", type=int, metavar="N",
                       help="as it was when plan N was made")


def explain(home: Home, args: argparse.Namespace) -> int:
    """Say why, from the record."""
    if (args.what == "nothing") == bool(args.name):
        raise CliError("explain nothing, explain vm NAME, explain host NAME, "
                       "explain plan NUMBER", 2)
    query = {args.what: args.name} if args.name else {}
    show(args, daemons.ask(home, "/explain", **query, **when(args)))
    return 0


def why_not(home: Home, args: argparse.Namespace) -> int:
    """Say what speaks against a host for a VM."""
    show(args, daemons.ask(home, "/why-not", vm=args.vm, host=args.host,
                           **when(args)))
    return 0


def mode(home: Home, args: argparse.Namespace) -> int:
    """Show or set what is done with decisions."""
    if args.mode:
        found = daemons.ask(home, "/mode", {"mode": args.mode})
        return tell(args.json, f"mode {found['mode']}", found)
    found = daemons.ask(home, "/state")
    shown = {name: found[name] for name in ("mode", "paused", "waits",
                                            "alarms", "name")}
    if args.json:
        say_json(shown)
        return 0
    say(f"mode {found['mode']}, by {found['name']}"
        + (", paused" if found["paused"] else ""))
    for alarm in found["alarms"]:
        say(f"alarm since {clock(alarm['since'])}: {alarm['text']}")
    return 0


def pause(home: Home, args: argparse.Namespace) -> int:
    """Begin nothing any more, or go on; what moves goes on."""
    found = daemons.ask(home, "/pause", {"on": not args.off})
    return tell(args.json, "it begins nothing any more; what is under way "
                "goes on" if found["paused"] else "it goes on", found)


def rule_add(home: Home, args: argparse.Namespace) -> int:
    """Add a rule."""
    body: dict[str, Any] = {"kind": args.kind, "vms": args.names}
    if args.kind in WITH_HOSTS:
        body.update(vms=args.names[:1], hosts=args.names[1:])
    for name in ("most", "per", "weight"):
        if getattr(args, name) is not None:
            body[name] = getattr(args, name)
    found = daemons.ask(home, "/rules", body)
    return tell(args.json, f"rule {found['id']}: {found['text']}", found)


def rule_list(home: Home, args: argparse.Namespace) -> int:
    """List the rules."""
    found = daemons.ask(home, "/rules")
    if args.json:
        say_json(found)
        return 0
    table([("RULE", "WHAT", "BY", "SINCE"), *(
        (str(each["id"]), each["text"], each.get("who", ""),
         clock(each.get("at", 0))) for each in found["rules"])])
    return 0


def rule_remove(home: Home, args: argparse.Namespace) -> int:
    """Remove a rule."""
    daemons.ask(home, "/rules/remove", {"id": args.id})
    return tell(args.json, f"rule {args.id} is gone", {"id": args.id})


def report(home: Home, args: argparse.Namespace) -> int:
    """Show what was done in the last days, and how good it was."""
    found = daemons.ask(home, "/report", days=str(args.last))
    if args.json:
        say_json(found)
        return 0
    say(f"since {clock(found['since'])}: {found['rounds']} rounds, "
        f"{found['rounds-with-hot-spots']} of them with hot spots")
    say("moves: " + (", ".join(f"{count} {name}" for name, count in sorted(
        found["moves"].items())) or "none") + f"; {human(found['bytes'])}")
    for name, count in sorted(found["for"].items()):
        say(f"    {count} for {name}")
    say(f"helped: {found['cooled']}, did not: {found['not-cooled']}; again "
        f"within an hour: {found['again-in-an-hour']}, back within 6 hours: "
        f"{found['back-in-6-hours']}")
    for name, title in (("seconds", "seconds"), ("bytes-ratio", "bytes")):
        if found[name]:
            say(f"{title} took {found[name]['median']:.2f} of what was "
                f"expected (nine of ten: {found[name]['most']:.2f})")
    say(f"longest pause of a guest: {found['downtime-ms-most']} ms")
    return 0


def audit(home: Home, args: argparse.Namespace) -> int:
    """Show who did what, or see whether that was changed."""
    if args.verify:
        found = daemons.ask(home, "/audit/verify", timeout=60.0)
        if found["wrong"]:
            raise CliError(f"row {found['wrong']} of {found['rows']} is not "
                           "as it was written", 1, found)
        return tell(args.json, f"all {found['rows']} rows are as they were "
                    f"written; the last is {found['last'][:16]}...", found)
    found = daemons.ask(home, "/audit", last=str(args.last))
    if args.json:
        say_json(found)
        return 0
    for each in reversed(found["entries"]):
        say(f"{each['seq']}  {clock(each['at'])}  {each['who']}: "
            f"{each['what']} " + ", ".join(
                f"{name} {value}" for name, value in
                each.get("data", {}).items()))
    return 0


def options(commands: Any) -> None:
    """Describe these verbs."""
    each = commands.add_parser("plan", help="what the controller would do now")
    each.set_defaults(act=plan)
    each = commands.add_parser("apply", help="let it do that")
    each.add_argument("plan", type=int)
    each.add_argument("--vm", help="only this VM's step")
    each.set_defaults(act=apply)
    each = commands.add_parser("explain", help="why, from the record")
    each.add_argument("what", choices=("vm", "host", "plan", "nothing"))
    each.add_argument("name", nargs="?", default="")
    when_options(each)
    each.set_defaults(act=explain)
    each = commands.add_parser("why-not", help="why a VM does not go there")
    each.add_argument("vm")
    each.add_argument("host")
    when_options(each)
    each.set_defaults(act=why_not)
    each = commands.add_parser("mode", help="show or set what is done with "
                               "decisions: only recorded, asked, carried out")
    each.add_argument("mode", nargs="?", choices=MODES)
    each.set_defaults(act=mode)
    each = commands.add_parser("pause", help="let the controller begin "
                               "nothing")
    each.add_argument("--off", action="store_true", help="let it go on")
    each.set_defaults(act=pause)
    rule_options(commands)
    each = commands.add_parser("report", help="what was done, and how good")
    each.add_argument("--last", type=int, default=7, metavar="DAYS")
    each.set_defaults(act=report)
    each = commands.add_parser("audit", help="who did what")
    each.add_argument("verify", nargs="?", choices=("verify",),
                      help="whether it is as it was written")
    each.add_argument("--last", type=int, default=50, metavar="N")
    each.set_defaults(act=audit)


def rule_options(commands: Any) -> None:
    """Describe the verbs of rules."""
    rules = commands.add_parser("rule", help="where VMs may run").add_subparsers(
        dest="verb", required=True)
    each = rules.add_parser("add", help="pin, not, prefer VM HOST...: on these "
                            "only, on none of them, rather on them; apart, "
                            "together VM VM...; ask, never VM...: not by "
                            "itself, not at all")
    each.add_argument("kind", choices=KINDS)
    each.add_argument("names", nargs="+", metavar="NAME")
    each.add_argument("--most", type=int, metavar="N",
                      help="apart: so many at one place; default 1")
    each.add_argument("--per", metavar="WHAT", help="apart: a place is a "
                      "host, or what a tag names, as rack in rack:r1")
    each.add_argument("--weight", type=float, metavar="W",
                      help="prefer: 0 to 1, how much it counts; default 0.5")
    each.set_defaults(act=rule_add)
    each = rules.add_parser("list")
    each.set_defaults(act=rule_list)
    each = rules.add_parser("remove")
    each.add_argument("id", type=int)
    each.set_defaults(act=rule_remove)
