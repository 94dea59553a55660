# SPDX-License-Identifier: GPL-2.0-or-later
"""Verbs of wsmctl: what the planner would do with hosts that are not there."""

import argparse
import dataclasses
import json
import math
from pathlib import Path
from typing import Any, Callable

from wsm.cli import revisit
from wsm.cli.home import CliError, Home
from wsm.cli.terminal import say, say_json, table, tell
from wsm.plan import policy
from wsm.plan.inventory import GIB, human
from wsm.sim import crowd, drawing, gen, replay, rules, scenario, trace
from wsm.sim.simworld import World


def policy_of(args: argparse.Namespace, interval: float) -> policy.Policy:
    """Return the policy in the file that was named, or the default one."""
    text = Path(args.policy).read_text(encoding="utf-8") if args.policy else ""
    return dataclasses.replace(policy.loads(text), interval=interval)


def run(_home: Home, args: argparse.Namespace) -> int:
    """Let scenes happen, and say what was not as they expect."""
    told, bad = {}, 0
    for name in args.scene:
        one = scenario.loads(Path(name).read_text(encoding="utf-8"))
        story = scenario.play(one, policy_of(args, 10.0))
        missed = [text for each in one.expect
                  for text in scenario.misses(each, story)]
        bad += bool(missed)
        told[name] = {
            "moves": [{"at": at, "vm": step.vm, "to": step.to,
                       "why": step.why} for at, step in story.moves],
            "end": story.last.text(), "misses": missed}
        if not args.json:
            say(f"{name}: {one.about}")
            for at, step in story.moves:
                say(f"    {at:.0f} s: {step.why}")
            say(f"    in the end: {story.last.text()}")
            for text in missed:
                say(f"    NOT AS EXPECTED: {text}")
    if args.json:
        say_json(told)
    return 1 if bad else 0


def figures(world: World) -> dict[str, float]:
    """Return what a rule has come to."""
    tally, days = world.tally, world.fleet.now / 86400

    def unmet(*names: str) -> float:
        wanted = math.fsum(tally.wanted[name] for name in names)
        return 100 * math.fsum(tally.unmet[name] for name in names) / max(
            wanted, 1e-9)

    return {"unmet_percent": unmet("cpu"),
            "net_unmet_percent": unmet("rx", "tx"),
            "hurt_percent": 100 * tally.hurt / max(tally.vm_steps, 1),
            "moves_a_day": tally.moves / days,
            "gib_a_day": tally.bytes / GIB / days,
            "again": tally.again, "back": tally.back,
            "longest_minutes": tally.longest * trace.STEP / 60}


def begun(args: argparse.Namespace,
          seed: int) -> tuple[float, Callable[[], World]]:
    """Return the end of the days that are compared, and what begins them."""
    if isinstance(args.load, Path):
        fleet = gen.read(args.load)
        return fleet.steps * fleet.step, lambda: gen.course(fleet)
    data = (trace.read(Path(args.trace)) if args.trace
            else trace.made(args.vms, args.days, seed))
    return data.steps * trace.STEP, lambda: replay.world(
        data, args.hosts, args.load, seed)


def load_of(text: str) -> float | Path:
    """Return a part of all hosts, or the name of a file of 'sim gen'."""
    try:
        return float(text)
    except ValueError:
        return Path(text)


def crowd_of(args: argparse.Namespace) -> World:
    """Return a fleet that is made up, or in a file of 'sim gen'."""
    if isinstance(args.load, Path):
        return gen.crowded(gen.read(args.load), args.seed)
    return crowd.world(args.hosts, args.vms, args.seed, args.load)


def generate(_home: Home, args: argparse.Namespace) -> int:
    """Write a fleet with loads into a file."""
    if not 0 < args.load < 1 or min(args.hosts, args.vms) < 1 or (
            args.days * 86400 < trace.STEP):
        raise CliError("at least a host, a VM and 5 minutes, and --load "
                       "between 0 and 1 are needed", 2)
    lines = gen.write(Path(args.out), gen.made(
        args.hosts, args.vms, args.days, args.seed, args.load))
    return tell(args.json, f"{args.out}: {lines} lines; 'wsmctl sim compare "
                f"--load {args.out}'", {"file": args.out, "lines": lines})


def compare(_home: Home, args: argparse.Namespace) -> int:
    """Let rules move the same VMs through the same days."""
    known = rules.rules(policy_of(args, trace.STEP))
    wrong = [name for name in args.rule if name not in known]
    if wrong:
        raise CliError(f"there is no rule {wrong[0]}; there are "
                       + ", ".join(known), 2)
    found: dict[str, dict[str, float]] = {}
    for path in args.known:
        found.update(json.loads(Path(path).read_text(encoding="utf-8")))
    for seed in range(args.seed, args.seed + args.seeds):
        end, begin = begun(args, seed)
        for name in args.rule or known:
            world = begin()
            rule = rules.rules(policy_of(args, world.fleet.interval))[name]
            while world.fleet.now < end:
                world.step()
                rule(world)
            found[f"{name} {seed}"] = figures(world)
    if args.svg and found:
        Path(args.svg).write_text(drawing.svg(found, args.title),
                                  encoding="utf-8")
    if args.json:
        say_json(found)
    else:
        head = ("rule", "seed", "unmet %", "net %", "hurt %", "moves/day",
                "GiB/day", "again", "back", "longest")
        table([head] + [(
            *name.split(), f"{one['unmet_percent']:.3f}",
            f"{one['net_unmet_percent']:.3f}", f"{one['hurt_percent']:.2f}",
            f"{one['moves_a_day']:.0f}",
            f"{one['gib_a_day']:.0f}", f"{one['again']:.0f}",
            f"{one['back']:.0f}", f"{one['longest_minutes']:.0f} min")
            for name, one in found.items()])
        say_medians(found)
    return 0


def say_medians(found: drawing.Found) -> None:
    """Say what each rule has come to over its seeds."""
    columns = {"unmet %": ("unmet_percent", 3), "hurt %": ("hurt_percent", 3),
               "moves/day": ("moves_a_day", 1), "GiB/day": ("gib_a_day", 0),
               "again": ("again", 0)}
    told = {name: drawing.spreads(found, figure)
            for name, (figure, _) in columns.items()}
    seeds = drawing.by_rule(found)
    if len(found) > len(seeds):
        say("")
        table([("rule", "seeds", *columns)] + [(
            rule, str(len(each)), *(told[name][rule].text(digits)
                                    for name, (_, digits) in columns.items()))
            for rule, each in seeds.items()])


def scale(_home: Home, args: argparse.Namespace) -> int:
    """Say how long a round of a large fleet takes."""
    world = crowd_of(args)
    hosts, vms = len(world.fleet.nodes), len(world.fleet.guests)
    found = crowd.measure(world, args.rounds, args.hot)
    if args.json:
        say_json(dataclasses.asdict(found))
    else:
        say(f"{hosts} hosts, {vms} VMs, {found.hot:.0f} of them hot, "
            f"{args.rounds} rounds, {found.moves} moves: a round takes "
            f"{found.median:.3f} s of a CPU (p99 {found.p99:.3f}, most "
            f"{found.most:.3f}), {human(found.memory)} of memory; "
            f"{found.samples:.0f} samples of VMs are taken in a second")
    return 0


def grow(_home: Home, args: argparse.Namespace) -> int:
    """Say how much a controller's store grows."""
    try:
        # pylint: disable-next=import-outside-toplevel
        from wsm.cli import growth
    except ImportError as error:
        raise CliError("this needs the controller's modules, of the package "
                       f"qemu-wsm-controller: {error}") from error
    world = crowd_of(args)
    hosts, vms = len(world.fleet.nodes), len(world.fleet.guests)
    found = growth.measure(world, args.rounds, args.moves)
    if args.json:
        say_json(dataclasses.asdict(found))
    else:
        say(f"{hosts} hosts, {vms} VMs, {found.spots} hot in the "
            f"end, {found.rounds} rounds, {found.records} records: "
            f"{found.record:.0f} bytes each, and {found.input} for what one "
            "was made of. In a day, if each round is another record, "
            f"{found.records_day / 1e6:.1f} MB, and at most "
            f"{found.inputs_day / 1e6:.1f} MB: {found.day / 1e6:.1f} MB")
    return 0


def options(commands: Any) -> None:
    """Describe these verbs."""
    parser = commands.add_parser(
        "sim", help="what the planner would do with invented hosts")
    verbs = parser.add_subparsers(dest="verb", required=True)
    each = verbs.add_parser("run", help="let scenes happen")
    each.add_argument("scene", nargs="+", metavar="FILE")
    each.add_argument("--policy", metavar="FILE")
    each.set_defaults(act=run)
    each = verbs.add_parser("gen", help="write a fleet with loads, the same "
                            "for a seed")
    each.add_argument("--out", metavar="FILE", required=True,
                      help="packed if it ends in .xz")
    each.add_argument("--hosts", type=int, default=10)
    each.add_argument("--vms", type=int, default=200)
    each.add_argument("--days", type=float, default=2.0)
    each.add_argument("--load", type=float, default=0.55)
    each.add_argument("--seed", type=int, default=1)
    each.set_defaults(act=generate)
    each = verbs.add_parser("compare", help="the same days with other rules")
    each.add_argument("--trace", metavar="FILE",
                      help="of loads; default: an invented one")
    each.add_argument("--vms", type=int, default=200, help="invented ones")
    each.add_argument("--days", type=float, default=2.0)
    each.add_argument("--hosts", type=int, default=10)
    each.add_argument("--load", type=load_of, default=0.55, help="what part "
                      "of the hosts is used in the mean, or a FILE of 'sim "
                      "gen' with hosts, VMs and loads")
    each.add_argument("--seed", type=int, default=1)
    each.add_argument("--seeds", type=int, default=1, help="how many")
    each.add_argument("--rule", action="append", default=[])
    each.add_argument("--known", action="append", default=[], metavar="FILE",
                      help="what --json has said before, to be shown with it")
    each.add_argument("--svg", metavar="FILE", help="draw it")
    each.add_argument("--title", default="What lacked of the wanted CPU time",
                      help="of the drawing")
    each.add_argument("--policy", metavar="FILE")
    each.set_defaults(act=compare)
    each = verbs.add_parser("scale", help="how long a round takes")
    each.add_argument("--hosts", type=int, default=5000)
    each.add_argument("--vms", type=int, default=100000)
    each.add_argument("--load", type=load_of, default=crowd.LOAD,
                      help="what part is used, or a FILE of 'sim gen'")
    each.add_argument("--hot", type=float, default=0.02,
                      help="what part of the hosts is too hot, at least")
    each.add_argument("--rounds", type=int, default=200)
    each.add_argument("--seed", type=int, default=1)
    each.set_defaults(act=scale)
    each = verbs.add_parser("growth", help="how much a controller's store "
                            "grows")
    each.add_argument("--hosts", type=int, default=100)
    each.add_argument("--vms", type=int, default=2000)
    each.add_argument("--load", type=load_of, default=crowd.LOAD,
                      help="what part is used, or a FILE of 'sim gen'")
    each.add_argument("--rounds", type=int, default=60)
    each.add_argument("--seed", type=int, default=1)
    each.add_argument("--moves", action="store_true",
                      help="make them: it cools down")
    each.set_defaults(act=grow)
    revisit.options(verbs)
