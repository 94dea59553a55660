# SPDX-License-Identifier: GPL-2.0-or-later
"""Tests of what an agent says its host and VMs have used."""

import dataclasses
import json
import os
import tempfile
import unittest
from unittest import mock

from wsm.agent import samples
from wsm.agent.config import Config, Pool, Root, loads
from wsm.agent.samples import Counters, Running, Sampler
from wsm.plan.ends import File
from wsm.plan.inventory import Host
from wsm.plan.plain import BadData, from_plain, to_plain
from wsm.plan.measured import Samples, VmSample

HOST = Host("alpha", 4.0, 100, 50)
BASE = VmSample("vm", True, File.OWNER, 1)
VMS = [Running(BASE, 7, ("tap0",)), Running(BASE, 8), Running(BASE, 0)]
OLD = Counters(0.0, 10.0, 0.0, 100.0, 0, {"mig": (0, 0), "tap0": (0, 0)},
               {"8:0": 0}, {7: (1.0, 2.0), 8: (0.0, 0.0)}, {7: 0, 8: 0})
NEW = Counters(10.0, 15.0, 1.0, 140.0, 40, {"mig": (500, 900),
                                            "tap0": (100, 300)},
               {"8:0": 4000}, {7: (4.0, 5.0), 8: (0.0, 0.0)}, {7: 30, 8: 10})


class SamplerTest(unittest.TestCase):
    """Differences of counters over the true interval."""

    now = 0.0

    def sampler(self, at: str = "/") -> Sampler:
        """A sampler that reads OLD and then NEW."""
        self.now = 0.0
        made = Sampler(Config("alpha", root=Root(at=at),
                              pool={"p": Pool("/pool")}), lambda: self.now)
        made.device = "mig"
        return made

    def look(self, made: Sampler, counters: Counters) -> None:
        """Take a sample of @counters, and what VMs did on their disks."""
        self.now = counters.at
        vms = [dataclasses.replace(vm, traffic=counters.traffic.get(vm.pid, 0))
               for vm in VMS]
        with (mock.patch.object(samples, "count", return_value=counters),
              mock.patch.object(samples, "device_of", return_value="8:0")):
            made.look(HOST, vms)

    def sample(self, at: str = "/") -> Samples:
        """Return the one between them, 3 s later."""
        made = self.sampler(at)
        self.look(made, OLD)
        self.assertIsNone(made.newest())
        self.look(made, NEW)
        self.now += 3.0
        found = made.newest()
        assert found
        return found

    def test_host(self) -> None:
        """What all of it used, and what waited."""
        found = self.sample()
        self.assertEqual((found.seq, found.seconds, found.age), (1, 10.0, 3.0))
        self.assertAlmostEqual(found.cpu, 0.5 + 0.3)
        self.assertAlmostEqual(found.steal, 0.025)
        self.assertEqual((found.rx, found.tx, found.swap), (50, 90, 4))
        self.assertAlmostEqual(found.disk, 0.4)

    def test_vms(self) -> None:
        """A tap's other way round; disk time by bytes; one that is off."""
        first, second, off = self.sample().vms
        self.assertAlmostEqual(first.cpu, 0.6)
        self.assertAlmostEqual(first.wait, 0.3)
        self.assertEqual((first.rx, first.tx), (30, 10))
        self.assertAlmostEqual(first.disk, 0.3)
        self.assertAlmostEqual(second.disk, 0.1)
        self.assertEqual((off.cpu, off.resident), (0, 0))

    def test_only_vms(self) -> None:
        """Where a machine does more than VMs only these count."""
        self.assertAlmostEqual(self.sample("vms").cpu, 0.6)
        self.assertRaises(BadData, loads, 'host = "a"\nroot.at = "cgroup"')

    def test_too_soon(self) -> None:
        """A look right after the last one says nothing; none is made up."""
        made = self.sampler()
        self.look(made, OLD)
        self.look(made, dataclasses.replace(NEW, at=0.5))
        self.assertIsNone(made.newest())

    def test_backwards(self) -> None:
        """A counter that begins anew is no huge number, nor below nothing."""
        made = self.sampler()
        self.look(made, dataclasses.replace(NEW, at=0.0))
        self.look(made, dataclasses.replace(OLD, at=10.0))
        found = made.newest()
        assert found
        self.assertEqual((found.cpu, found.rx, found.swap, found.disk),
                         (0, 0, 0, 0))
        self.assertEqual(min(vm.cpu for vm in found.vms), 0)

    def test_sent(self) -> None:
        """It arrives as it was sent."""
        found = self.sample()
        again = from_plain(Samples, json.loads(json.dumps(to_plain(found))))
        self.assertEqual(again, found)


class KernelTest(unittest.TestCase):
    """This machine's own counters."""

    def test_here(self) -> None:
        """A process that computes has run; the rest is there."""
        before = samples.count([os.getpid()], 0.0)
        sum(range(1 << 20))
        after = samples.count([os.getpid(), 1 << 30], 1.0)
        self.assertGreater(after.spent[os.getpid()][0],
                           before.spent[os.getpid()][0])
        self.assertEqual(after.spent[1 << 30], (0.0, 0.0))
        self.assertGreater(after.total, 0)
        self.assertIn("lo", after.wires)
        self.assertGreater(samples.memory_of(os.getpid())[0], 1 << 20)
        with tempfile.TemporaryDirectory() as folder:
            self.assertRegex(samples.device_of(folder), r"\d+:\d+")
        self.assertEqual(samples.device_of("/nowhere"), "")

    def test_no_schedstat(self) -> None:
        """A kernel that does not count waiting: what ran is known."""
        def text(path: str) -> str:
            return ("0 0 0" if path.endswith("schedstat") else
                    "7 (a (b)) S " + " ".join(["0"] * 10) + " 30 20 0")

        with (mock.patch("wsm.agent.lately.text_of", text),
              mock.patch("os.listdir", return_value=["1"])):
            self.assertEqual(samples.spent(7), (50 / samples.TICKS, 0.0))

    def test_routed(self) -> None:
        """The device that has the address of migrations."""
        said = "2: wsm0@if3    inet 10.0.0.1/24 scope global wsm0"
        self.assertEqual(samples.routed("10.0.0.1", lambda _: said), "wsm0")
        self.assertEqual(samples.routed("10.0.0.1", lambda _: ""), "")
        self.assertEqual(samples.routed("", lambda _: said), "")
