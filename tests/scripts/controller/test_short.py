# SPDX-License-Identifier: GPL-2.0-or-later
"""What agents say that a VM lacks of what it was promised."""

import dataclasses
import unittest
from typing import Any

from wsm.cli.home import HostEntry
from wsm.plan.detect import guest_spots
from wsm.plan.ends import File
from wsm.plan.fleet import Fleet
from wsm.plan.inventory import GIB, Host, VmUse
from wsm.plan.measured import Samples, VmSample
from wsm.plan.policy import Policy
from wsm.plan.spec import Sla, Spec

try:
    from wsm.controller.intake import Intake
except ImportError:
    PRESENT = False
else:
    PRESENT = True

MBIT = 125000.0                 # bytes/s
PROMISED = Sla(net_mbit_min={"in": 40.0}, io_p95_ms_max=100.0)


@unittest.skipUnless(PRESENT, "python3-aiohttp is needed")
class ShortTest(unittest.TestCase):
    """One host with one VM."""

    def setUp(self) -> None:
        self.intake = Intake(Fleet(10.0), lambda _: 0.0)
        self.host = Host("alpha", 8.0, 32 * GIB, 20 * GIB, address="alpha")
        self.seq = 0
        self.spec = Spec("db", ("-m", "1"), sla=PROMISED)

    def round(self, **figures: Any) -> bool:
        """Take in a sample of the VM; return whether it was believed."""
        self.seq += 1
        entries = {"alpha": HostEntry("alpha:1")}
        self.intake.begin(10.0 * self.seq, entries)
        good = self.intake.take("alpha", Samples(
            self.seq, 10.0, self.host, vms=(VmSample(
                "db", True, File.OWNER, 1, 17, cpu=0.5, resident=GIB,
                **figures),)), entries["alpha"])
        self.intake.learn("db", VmUse("db", "alpha", 4, 4 * GIB, GIB),
                          self.spec)
        self.intake.settle(self.intake.owners(), [], {})
        return good

    def spots(self) -> list[tuple[str, str]]:
        """Return what is wrong with the VM."""
        guest = self.intake.fleet.guests["db"]
        return [(spot.resource, spot.victim)
                for spot in guest_spots(guest, Policy())]

    def test_net(self) -> None:
        """Bandwidth that it lacks for three samples is a hot spot."""
        for _ in range(2):
            self.round(rx=15 * MBIT, lack_rx=25 * MBIT)
        self.assertEqual(self.spots(), [])
        self.round(rx=15 * MBIT, lack_rx=25 * MBIT)
        self.assertEqual(self.spots(), [("rx", "db")])
        self.assertIn("db", self.intake.fleet.uneasy)

    def test_disk(self) -> None:
        """So is a disk that is too slow."""
        for latency in (0.2, 0.0, 0.0, 0.2, 0.0, 0.2):      # 0.0: not known
            self.round(latency=latency)
        self.assertEqual(self.spots(), [("disk", "db")])

    def test_while_moving(self) -> None:
        """What a move takes is for the agents' guard."""
        still = self.host
        for way in ("moves_in", "moves_out"):
            self.host = dataclasses.replace(still, **{way: 1})
            for _ in range(5):
                self.round(rx=15 * MBIT, lack_rx=25 * MBIT, latency=0.2)
            self.assertEqual(self.spots(), [])

    def test_cannot_be(self) -> None:
        """No more than was promised can be lacking, and no less than none."""
        self.round(lack_rx=4000 * MBIT)
        lacks = self.intake.fleet.guests["db"].lacks
        self.assertEqual(lacks["rx"].now, 40 * MBIT)
        self.assertNotIn("tx", lacks)
        for figure in ("lack_rx", "lack_tx", "latency"):
            self.assertFalse(self.round(**{figure: -1.0}), figure)

    def test_other_promise(self) -> None:
        """What is promised anew counts from then on; what is not, no more."""
        self.round(lack_rx=25 * MBIT)
        self.spec = Spec("db", ("-m", "1"), sla=Sla(
            net_mbit_min={"out": 10.0}))
        self.round(lack_rx=25 * MBIT, lack_tx=5 * MBIT)
        lacks = self.intake.fleet.guests["db"].lacks
        self.assertEqual({name: each.now for name, each in lacks.items()},
                         {"tx": 5 * MBIT})
