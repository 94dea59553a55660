# SPDX-License-Identifier: GPL-2.0-or-later
"""wsmctl sim replay: what another policy would have made of what happened."""

import argparse
import dataclasses
import functools
import json
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Callable, Iterator, Optional

from wsm.cli import daemons
from wsm.cli.again import Again, NotKept, again
from wsm.cli.home import CliError, Home
from wsm.cli.moment import clock, moment
from wsm.cli.terminal import say, say_json
from wsm.plan import policy
from wsm.plan.plain import BadData

LONG = 60.0                     # s for a record of a large fleet
Source = tuple[str, Callable[[], Any]]  # its name, and what reads it


@dataclass
class Told:
    """What was found."""

    found: list[Again] = field(default_factory=list)
    bad: dict[str, str] = field(default_factory=dict)   # what, and why
    without: int = 0            # of which it was not kept what they were made of

    @property
    def differ(self) -> int:
        """How many are another now."""
        return sum(bool(each.differs) for each in self.found)

    def status(self) -> int:
        """Return the exit status."""
        return 3 if self.differ else 1 if self.bad else 0

    def text(self) -> str:
        """Say it in a line."""
        return (f"{len(self.found)} plans were decided again, {self.differ} "
                "of them come out otherwise" + (
                    f"; {len(self.bad)} could not be read" if self.bad else "")
                + (f"; of {self.without} more it was not kept what they were "
                   "made of" if self.without else ""))


def from_file(name: str) -> Any:
    """Return what is in a file; raise BadData, OSError."""
    try:
        return json.loads(Path(name).read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise BadData(f"no JSON: {str(error)[:200]}") from error


def from_controller(home: Home, number: int) -> Source:
    """Return a plan of the record."""
    return f"plan {number}", lambda: daemons.ask(
        home, "/explain", timeout=LONG, plan=str(number))


def sources(home: Home, args: argparse.Namespace, told: Told
            ) -> Iterator[Source]:
    """Yield what is to be decided again; count what cannot."""
    for name in args.file:
        yield name, functools.partial(from_file, name)
    if args.decision is not None:
        yield from_controller(home, args.decision)
    if args.file or args.decision is not None:
        return
    since = moment(args.last, time.time())
    for each in daemons.ask(home, "/decisions", timeout=LONG,
                            since=str(since))["decisions"]:
        if each["kept"]:
            yield from_controller(home, int(each["plan"]))
        else:
            told.without += 1


def revisit(source: Source, wanted: Optional[policy.Policy],
            told: Told) -> Optional[Again]:
    """Decide one again; note what was found, raise CliError if nobody answers."""
    name, read = source
    try:
        one = again(read(), wanted)
    except NotKept:
        told.without += 1
        return None
    except BadData as error:
        told.bad[name] = str(error)
        return None
    except CliError as error:
        if error.status == 5:
            raise
        told.bad[name] = str(error)     # forgotten meanwhile, or damaged there
        return None
    told.found.append(one)
    return one


def show(one: Again) -> None:
    """Say what is another."""
    say(f"plan {one.plan}, "
        + clock(one.at)
        + (f", {one.rounds} rounds" if one.rounds > 1 else "") + ":")
    for line in one.lines():
        say(f"    {line}")


def replay(home: Home, args: argparse.Namespace) -> int:
    """Decide recorded rounds again, and say what comes out otherwise."""
    if args.file and (args.decision is not None or args.last != "24h"):
        raise CliError("files, or --decision, or --last: one of them", 2)
    wanted = policy.loads(Path(args.policy).read_text(encoding="utf-8")
                          ) if args.policy else None
    told = Told()
    for source in sources(home, args, told):
        one = revisit(source, wanted, told)
        if args.json:
            continue
        if one and one.differs:
            show(one)
        elif source[0] in told.bad:
            say(f"{source[0]}: {told.bad[source[0]]}")
    if args.json:
        say_json({"plans": [dataclasses.asdict(each) for each in told.found],
                  "bad": told.bad, "without": told.without})
    else:
        say(told.text())
    return told.status()


def options(verbs: Any) -> None:
    """Describe this verb of "sim"."""
    each = verbs.add_parser("replay", help="what the controller has decided, "
                            "decided again: by another policy, say")
    each.add_argument("file", nargs="*", metavar="FILE",
                      help="as 'wsmctl explain plan N --json' prints it; "
                      "default: the controller is asked")
    group = each.add_mutually_exclusive_group()
    group.add_argument("--decision", type=int, metavar="N", help="plan N")
    group.add_argument("--last", default="24h", metavar="TIME",
                       help="what was decided since then; default: 24h")
    each.add_argument("--policy", metavar="FILE",
                      help="default: that by which each was decided")
    each.set_defaults(act=replay)
