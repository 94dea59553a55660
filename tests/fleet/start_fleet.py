# SPDX-License-Identifier: GPL-2.0-or-later
"""Start agents that are not there, so that a real controller can be tried.

    wsmctl sim gen --hosts 50 --vms 1000 --out /tmp/fleet.xz
    tests/fleet/run /tmp/fleet.xz --folder /tmp/fleet

The folder has the cluster then; what is said first starts a controller for it.
"""

import argparse
import asyncio
import shlex
from pathlib import Path

from wsm.cli.home import Home
from wsm.sim import gen

from tests.fleet import doors


async def run(fleet: doors.Fleet, home: Home, folder: Path) -> None:
    """Serve until told to end."""
    await doors.serve(fleet, home, folder)
    print(f"{len(fleet.names)} agents listen", flush=True)
    await asyncio.Event().wait()


def main() -> int:
    """Run the program; return its exit status."""
    parser = argparse.ArgumentParser(prog="tests/fleet/run")
    parser.add_argument("file", type=Path, help="of 'wsmctl sim gen'")
    parser.add_argument("--folder", type=Path, required=True,
                        help="for the cluster; is made")
    parser.add_argument("--port", type=int, default=7444,
                        help="of the controller")
    parser.add_argument("--speed", type=float, default=1.0,
                        help="how much faster the days of the file go")
    parser.add_argument("--broken", action="append", default=[], metavar="VM",
                        help="whose moves fail")
    args = parser.parse_args()
    args.folder.mkdir(parents=True)
    home, found = Home(str(args.folder / "home")), gen.read(args.file)
    home.init("fleet")
    words = doors.controller(home, args.folder, args.port)
    print(f"{shlex.join(words)} &\nexport WSM_HOME={home.folder}\n"
          "wsmctl controller sync; wsmctl mode auto; wsmctl plan", flush=True)
    try:
        asyncio.run(run(doors.Fleet(
            tuple(host.host for host in found.hosts), file=found,
            speed=args.speed, broken=set(args.broken)), home, args.folder))
    except KeyboardInterrupt:
        pass
    return 0
