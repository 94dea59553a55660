# SPDX-License-Identifier: GPL-2.0-or-later
"""Make the pictures of the controller's page that the documents show.

Hosts, VMs and their figures are invented; the page is the real one, in a
headless Chromium.  tests/scripts/pictures runs it.
"""

import math
import random
import sys
import unittest
from pathlib import Path

from tests.scripts.controller.test_browser import BrowserTest

FOLDER = Path(__file__).parents[3] / "docs/pictures"
GIB = 1 << 30
ROUNDS = 62
HOT = "alpha"
USES = {"db": 1.1, "web": 0.5, "cache": 0.3, "ci": 0.9, "mail": 0.2,
        "log": 0.25, "git": 0.35, "dns": 0.05}


class Pictures(BrowserTest):
    """A fleet with something to see; the other tests are not run here."""

    def setUp(self) -> None:
        super().setUp()
        self.chance = random.Random(3)
        self.hosts.vms.clear()
        self.hosts.names = ("alpha", "beta", "gamma", "delta")
        self.made.ledger.set_hosts("test", {
            name: type(entry)(f"{name}:1") for name in self.hosts.names
            for entry in [next(iter(self.made.ledger.hosts().values()))]})
        for number in range(22):
            use = sorted(USES)[number % len(USES)]
            self.hosts.add(f"{use}{number // len(USES) + 1}",
                           self.hosts.names[(0, 2, 3)[number % 3]], USES[use])
        for number, vm in enumerate(self.hosts.vms.values()):
            vm.memory = (1, 2, 4, 8)[number * 7 % 4] * GIB

    def live(self, rounds: int) -> None:
        """Let loads go up and down for a while."""
        for number in range(rounds):
            for vm in self.hosts.vms.values():
                base = USES[vm.name.rstrip("0123456789")] * 0.55
                vm.cpu = base * (1 + 0.3 * math.sin(number / 9 + len(vm.name))
                                 + 0.15 * self.chance.random())
                if vm.host == HOT and number > rounds - 8:
                    vm.cpu *= 2.4
                    vm.wait = vm.cpu * (0.3 if "web" in vm.name else 0.1)
            self.rounds(1)

    def test_pictures(self) -> None:
        """Make all of them."""
        FOLDER.mkdir(exist_ok=True)
        self.mode("ask")
        self.live(ROUNDS)
        self.hosts.hold.clear()
        step = next(iter(self.made.last.steps)) if self.made.last else None
        assert step, "nothing is hot"
        self.made.apply("user/op", self.made.last_id, step.vm)
        page = self.browser
        page.size(1000, 600)
        self.rounds(1)
        page = self.look("operator")
        page.wait(f"!!document.querySelector('[data-move={step.vm}]')")
        expected = self.made.journal.moves()[0].expected_bytes
        self.hosts.figures = {
            "phase": "disk-precopy", "speed": 96 << 20, "remaining":
            expected * 5 // 9, "expected-seconds": 3,
            "ram": {"transferred": expected * 4 // 9}}
        page.wait(f"Number(document.querySelector('[data-move={step.vm}]')"
                  ".dataset.percent) > 30")
        self.save("controller-map")
        page.click(f"[data-vm={step.vm}]")
        page.wait("document.querySelectorAll('#detail polyline').length > 3")
        page.value("document.querySelector('#detail').scrollIntoView()")
        self.save("controller-explain")
        self.hosts.hold.set()

    def save(self, name: str) -> None:
        """Write what is seen."""
        (FOLDER / f"{name}.png").write_bytes(self.browser.picture())


def main() -> None:
    """Run the program; exits."""
    suite = unittest.TestSuite([Pictures("test_pictures")])
    sys.exit(not unittest.TextTestRunner().run(suite).wasSuccessful())
