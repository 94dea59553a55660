# SPDX-License-Identifier: GPL-2.0-or-later
"""Tests of a real controller daemon with agents that are not there, by HTTPS."""

import shutil
import socket
import subprocess
import sys
import time
import unittest
from typing import Any

from tests.scripts.certified import Certified
from tests.scripts.typed import typed

try:
    # pylint: disable=ungrouped-imports
    from wsm.plan.ruling import Rule
    from wsm.sim.gen import FleetFile, FleetHost, FleetVm
    from tests.fleet import doors
    from tests.scripts.controller.doorstep import PRESENT, Loop
except ImportError:
    PRESENT = False

GIB = 1 << 30
TIMEOUT = 240.0
POLICY = """
interval = 1.0
[calm]
young = 0.0
share = 1.0
at_once = 4
"""


@unittest.skipUnless(PRESENT and shutil.which("openssl"),
                     "python3-aiohttp, python3-prometheus-client are needed")
class FleetTest(Certified):
    """Six hosts, of which one is too hot."""

    def setUp(self) -> None:
        self.loop = Loop()
        self.addCleanup(self.loop.close)
        hosts = [FleetHost(f"h{number}", 8, 64 * GIB) for number in range(6)]
        vms = [FleetVm(f"v{number}", "h0" if number < 4 else f"h{number}", 4,
                       4 * GIB, 20 * GIB, (600 if number < 4 else 50,))
               for number in range(6)]
        self.fleet = doors.Fleet(
            tuple(host.host for host in hosts), broken={"v0"},
            file=FleetFile(300.0, 1, hosts, vms, list[Rule]()))
        runners = self.loop.run(doors.serve(self.fleet, self.home,
                                             self.folder))
        for runner in runners:
            self.addCleanup(lambda each=runner: self.loop.run(each.cleanup()))
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        words = doors.controller(self.home, self.folder, port, POLICY)
        log = (self.folder / "log").open("wb")
        self.addCleanup(log.close)
        # pylint: disable-next=consider-using-with
        self.daemon = subprocess.Popen([sys.executable, *words], stdout=log,
                                       stderr=log)
        self.addCleanup(self.end)

    def end(self) -> None:
        """End the daemon in good order."""
        self.daemon.terminate()
        self.daemon.wait(TIMEOUT)

    def ctl(self, *words: str) -> tuple[int, str]:
        """Type a command."""
        return typed("--home", str(self.home.folder), *words)

    def wait(self, condition: Any, what: str) -> None:
        """Wait for the daemon."""
        end = time.monotonic() + TIMEOUT
        while not condition():
            self.assertLess(time.monotonic(), end, what + (
                self.folder / "log").read_text("utf-8", "replace")[-3000:])
            time.sleep(0.2)

    def test_moves(self) -> None:
        """Orders arrive, moves take their time; where one fails another goes."""
        self.wait(lambda: self.ctl("controller", "sync")[0] == 0, "no answer")
        self.wait(lambda: self.ctl("mode", "auto")[0] == 0, "no mode")
        self.wait(lambda: [vm for vm in ("v1", "v2", "v3")
                           if self.fleet.vms[vm].host != "h0"], "no move")
        self.assertEqual(self.fleet.vms["v0"].host, "h0")
        orders = self.fleet.orders
        moved = next(vm for vm in ("v1", "v2", "v3")
                     if self.fleet.vms[vm].host != "h0")
        for order in ("source begin", "destination prepare", "source perform"):
            self.assertIn(f"{order} {moved}", orders)
        self.wait(lambda: "1 moved" in self.ctl("report")[1], "no end")
        move = next(key for key, each in self.fleet.moves.items()
                    if each.vm == moved)
        self.assertGreater(self.fleet.seconds(self.fleet.moves[move]), 3.0)
        self.assertEqual(self.ctl("audit", "verify")[0], 0)
