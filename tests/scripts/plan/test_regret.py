# SPDX-License-Identifier: GPL-2.0-or-later
"""Tests of which moves are not worth their end."""

import dataclasses
import random
import unittest
from typing import Any

from wsm.plan.fleet import Fleet, Flight
from wsm.plan.inventory import Host, HostState
from wsm.plan.policy import Policy
from wsm.plan.regret import Running, regret

from tests.scripts.plan.properties import over

POLICY = Policy()
FLIGHT = Flight("db", "alpha", "beta", "host.cpu alpha", False, bytes=1000)
RUN = Running(FLIGHT, "disk-precopy", 10.0, 10.0, 300.0, 700.0)


class RegretTest(unittest.TestCase):
    """A VM leaves alpha, which was too full."""

    def setUp(self) -> None:
        self.fleet = Fleet(10.0)
        for name in ("alpha", "beta"):
            self.fleet.add_host(Host(name, 4.0, 1 << 30, 1 << 30, mbit=1000))
        self.samples(alpha=3.6, beta=1.0)

    def samples(self, count: int = 5, **cpu: float) -> None:
        """Let some samples come in."""
        for _ in range(count):
            self.fleet.now += 10.0
            for name, value in cpu.items():
                self.fleet.take(name, "cpu", value)

    def why(self, **more: Any) -> str:
        """Return why the move is ended."""
        return regret(dataclasses.replace(RUN, **more), self.fleet, POLICY)

    def test_goes_on(self) -> None:
        """Its reason is there, its end is fit, it is as it was expected."""
        self.assertEqual(self.why(), "")

    def test_gone(self) -> None:
        """Three samples under the release mark, and less than half is sent."""
        self.samples(2, alpha=2.7, beta=1.0)
        self.assertEqual(self.why(), "")
        self.samples(1, alpha=2.7, beta=1.0)
        self.assertIn("not too full any more: 0.68", self.why())
        self.assertEqual(self.why(sent=500.0, left=500.0), "")
        self.assertIn("not too full", self.why(sent=0.0, left=0.0, phase=""))
        self.samples(1, alpha=2.81, beta=1.0)   # over the mark
        self.assertEqual(self.why(), "")

    def test_was_held(self) -> None:
        """Who was held back for long, and is not any more, goes on."""
        self.assertIn("were expected", self.why(elapsed=700.0, speed=50.0))
        self.assertEqual(self.why(elapsed=700.0, speed=71.0), "")
        self.assertIn("are sent already", self.why(
            elapsed=700.0, speed=71.0, sent=3001.0, left=10.0))

    def test_still_waits(self) -> None:
        """A host whose VMs wait is too full, whatever they use."""
        for wait, gone in ((0.2, False), (0.01, True)):
            for _ in range(5):
                self.samples(1, alpha=2.0, beta=1.0)
                self.fleet.take("alpha", "wait", wait)
            self.assertEqual(bool(self.why()), gone)

    def test_silent(self) -> None:
        """Of a host that says nothing nothing is believed."""
        self.samples(5, alpha=1.0, beta=1.0)
        self.samples(5, beta=1.0)
        self.assertEqual(self.why(), "")

    def test_other_reasons(self) -> None:
        """A drain that was ended; what is for a VM itself goes on."""
        drain = dataclasses.replace(FLIGHT, spot="drain alpha")
        alpha = self.fleet.nodes["alpha"]
        alpha.host = dataclasses.replace(alpha.host, state=HostState.DRAINING)
        self.assertEqual(self.why(flight=drain), "")
        alpha.host = dataclasses.replace(alpha.host, state=HostState.ACTIVE)
        self.assertIn("not to be emptied", self.why(flight=drain))
        self.samples(5, alpha=0.1, beta=1.0)
        for spot in ("sla.tx db", "health alpha", "apply", "host.mem alpha",
                     "host.cpu nobody", "rule db", ""):
            self.assertEqual(self.why(flight=dataclasses.replace(
                FLIGHT, spot=spot)), "", spot)

    def test_longer(self) -> None:
        """Three times as long as was said, and a minute."""
        self.assertEqual(self.why(elapsed=90.0), "")
        self.assertIn("it takes 91 s", self.why(elapsed=91.0))
        self.assertEqual(self.why(elapsed=1e6, seconds=0.0), "")
        # Who is held back may take longer
        self.assertEqual(self.why(elapsed=359.0, rate=10.0), "")
        self.assertNotEqual(self.why(elapsed=361.0, rate=10.0), "")

    def test_more(self) -> None:
        """Three times as many bytes as were said."""
        self.assertEqual(self.why(sent=3000.0, left=10.0), "")
        self.assertIn("were expected", self.why(sent=3001.0, left=10.0))

    def test_unfit(self) -> None:
        """Where it goes is hot, sick, or wanted for nothing, at any time."""
        late: dict[str, float] = {"sent": 900.0, "left": 100.0}
        beta = self.fleet.nodes["beta"]
        for state in (HostState.CORDONED, HostState.DRAINING):
            beta.host = dataclasses.replace(beta.host, state=state)
            self.assertIn("beta is", self.why(**late))
        beta.host = dataclasses.replace(beta.host, state=HostState.ACTIVE)
        self.assertEqual(self.why(**late), "")
        self.fleet.take("beta", "health", 0.1)
        self.assertIn("health", self.why(**late))
        for _ in range(3):
            self.samples(1, alpha=3.6, beta=1.0)
            self.fleet.take("beta", "health", 1.0)
        self.samples(9, alpha=3.6, beta=3.9)
        self.assertIn("beta's CPU", self.why(**late))

    @over(lambda some: some.randoms(use_true_random=False))
    def test_never_after(self, rand: random.Random) -> None:
        """Whatever is wrong, after the handover nothing is ended."""
        self.samples(9, alpha=rand.random() * 4, beta=rand.random() * 4)
        for phase in ("freeze", "postcopy", "completed"):
            self.assertEqual(self.why(
                phase=phase, elapsed=rand.random() * 1e6,
                sent=rand.random() * 1e6, left=rand.random() * 1e6), "")


if __name__ == "__main__":
    unittest.main()
