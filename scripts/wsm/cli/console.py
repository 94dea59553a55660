# SPDX-License-Identifier: GPL-2.0-or-later
"""The program wsmctl: its command line and exit status."""

import argparse
import sys
from typing import Any, Mapping, Optional

from wsm import pki
from wsm.cli import (copies, daemons, drain, enrol, hosts, machines,
                     overview, relocate, simulate, steer)
from wsm.cli.agents import AgentSaid, NoAnswer
from wsm.cli.home import CliError, Home
from wsm.cli.terminal import plain, say_json
from wsm.plan.plain import BadData

STATUS = """\
exit status:
  0  done, or nothing to do     3  a dry run found something to do
  1  an error, or it stayed     4  blocked: the reasons are shown
  2  a wrong command line       5  somebody who must answer does not
"""


def arguments(words: list[str]) -> argparse.Namespace:
    """Return the parsed command line; --json may stand anywhere."""
    parser = argparse.ArgumentParser(
        prog="wsmctl", description="Move VMs between hosts, whole.",
        epilog=STATUS, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--home", metavar="FOLDER", help="of the cluster; "
                        "else $WSM_HOME, ~/.config/wsm")
    commands = parser.add_subparsers(dest="command", required=True)
    for module in (hosts, machines, overview, relocate, drain, copies,
                   simulate, enrol, steer):
        module.options(commands)
    as_json = "--json" in words
    args = parser.parse_args([word for word in words if word != "--json"])
    args.json = as_json
    return args


def main() -> int:
    """Run the program; return its exit status."""
    args = arguments(sys.argv[1:])
    home = Home(args.home)
    home.hosts_changed = lambda: spread(home)
    try:
        try:
            status: int = args.act(home, args)
        finally:
            home.leave()
        return status
    except CliError as error:
        return fail(str(error), error.status, args.json, error.more)
    except NoAnswer as error:
        return fail(str(error), 5, args.json)
    except (AgentSaid, BadData, pki.NoCertificate, OSError) as error:
        return fail(str(error), 1, args.json)
    except KeyboardInterrupt:
        return fail("interrupted", 1, args.json)


def spread(home: Home) -> None:
    """Tell the controllers of hosts that a verb has changed."""
    if not home.cluster.controllers:
        return
    try:
        daemons.tell_hosts(home)
    except CliError as error:
        print(plain(f"wsmctl: {error}: it does not know of that yet; 'wsmctl "
                    "controller sync'"), file=sys.stderr)


def fail(text: str, status: int, as_json: bool,
         more: Optional[Mapping[str, Any]] = None) -> int:
    """Tell what went wrong; return the exit status."""
    if as_json:
        say_json({**(more or {}), "error": text, "status": status})
    for line in text.splitlines():
        print("wsmctl: " + plain(line), file=sys.stderr)
    return status
