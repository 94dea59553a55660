# SPDX-License-Identifier: GPL-2.0-or-later
"""What it takes to take in what all agents say, without the network.

With WSM_LONG=1 in the environment: 5,000 hosts and 100,000 VMs; it says how
much of a CPU that is if they are asked every ten seconds.
"""

import json
import os
import random
import time
import unittest

from wsm.cli.home import HostEntry
from wsm.plan.ends import File
from wsm.plan.fleet import Fleet
from wsm.plan.inventory import GIB, Copy, DiskUse, Host, Pool, Qemu, VmUse
from wsm.plan.measured import Samples, VmSample
from wsm.plan.plain import from_plain, to_plain
from wsm.plan.spec import Disk, Mode, Spec

try:
    from wsm.controller.intake import Intake
    from wsm.controller.placing import Rule
except ImportError:
    PRESENT = False
else:
    PRESENT = True

VMS = 20                        # of a host
ROUNDS = 4
INTERVAL = 10.0                 # s
NAMES = [f"{number:02}" for number in range(VMS)]


def said(host: str, number: int) -> str:
    """Return what an agent says in a round, as it comes over the wire."""
    there = Host(host, 32.0, 256 * GIB, 100 * GIB, address=host, mbit=10000,
                 pools={"default": Pool(900 * GIB, 1000 * GIB)},
                 qemus={"wsm": Qemu("/q", "10.0.13", "qemu-wsm 0.4",
                                    ("pc-i440fx-10.0",))}, tags=("rack:r1",))
    vms = tuple(VmSample(f"{host}-{name}", True, File.OWNER, 3, 17, cpu=0.5,
                         wait=0.0123 / number, rx=1234.5, tx=2345.6,
                         disk=0.001, resident=GIB) for name in NAMES)
    return json.dumps(to_plain(Samples(number, 10.0, there, cpu=11.5, rx=3e6,
                                       tx=3e6, psi={"cpu.some": 0.1},
                                       vms=vms)))


@unittest.skipUnless(PRESENT, "python3-aiohttp is needed")
class IngestTest(unittest.TestCase):
    """Many hosts."""

    def setUp(self) -> None:
        self.hosts = [f"h{number:04}" for number in range(
            5000 if os.environ.get("WSM_LONG") else 50)]
        self.entries = {host: HostEntry(f"{host}:1") for host in self.hosts}
        self.intake = Intake(Fleet(INTERVAL), lambda _: 0.0)
        self.spent = 0.0
        chance = random.Random(1)
        self.rules = [Rule(number, chance.choice(("apart", "ask")), {
            "vms": [f"{host}-{name}" for host, name in zip(
                chance.sample(self.hosts, 4), NAMES)]})
                      for number in range(len(self.hosts) // 2)]
        for host in self.hosts:     # each has an old image of another's VM
            self.intake.copies[host] = (Copy(
                f"{chance.choice(self.hosts)}-{NAMES[0]}", "vd0", "/old",
                "handed-over"),)

    def learn(self) -> None:
        """Look into all VMs."""
        for host in self.hosts:
            for name in NAMES:
                vm = f"{host}-{name}"
                self.intake.learn(vm, VmUse(
                    vm, host, 4, 4 * GIB, GIB, disks=(DiskUse(
                        "vd0", GIB, GIB),)), Spec(vm, ("-m", "1"), disk={
                            "vd0": Disk("raw", GIB)}))

    def round(self, number: int) -> None:
        """Take in a round, and put the fleet in order."""
        texts = [(host, said(host, number)) for host in self.hosts]
        begin = time.process_time()
        self.intake.begin(INTERVAL * number, self.entries)
        for host, text in texts:
            self.intake.take(host, from_plain(Samples, json.loads(text), host),
                             self.entries[host])
        self.spent = time.process_time() - begin
        if number == 1:
            self.learn()
        begin = time.process_time()
        owners = self.intake.owners()
        self.intake.settle(owners, self.rules, {})
        self.intake.wanted(owners)
        self.spent += time.process_time() - begin

    def test_all_are_taken(self) -> None:
        """Each sample of each VM in each round."""
        spent = []
        for number in range(1, ROUNDS + 1):
            self.round(number)
            spent.append(self.spent)
        guests = self.intake.fleet.guests
        asked = {vm for rule in self.rules if rule.kind == "ask"
                 for vm in rule.data["vms"]}
        self.assertEqual(asked, {vm for vm, guest in guests.items()
                                 if guest.spec.placement.mode is Mode.ASK})
        self.assertEqual({(host, copies[0].vm) for host, copies
                          in self.intake.copies.items()},
                         {(host, vm) for vm, guest in guests.items()
                          for host in guest.copies})
        self.assertEqual(len(guests), VMS * len(self.hosts))
        for guest in guests.values():
            self.assertEqual(guest.load["cpu"].recent(9), [0.5] * ROUNDS)
            self.assertEqual(len(guest.signs["wait"].samples), ROUNDS)
        if os.environ.get("WSM_LONG"):
            middle = sorted(spent)[len(spent) // 2]
            print(f"{len(guests) / INTERVAL:.0f} samples of VMs a second: "
                  f"{100 * middle / INTERVAL:.0f} % of a CPU "
                  f"({', '.join(f'{each:.2f}' for each in spent)} s a round)")
