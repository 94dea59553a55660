# SPDX-License-Identifier: GPL-2.0-or-later
"""Tests of pairs of hosts between which the network is bad."""

import dataclasses
import unittest

from wsm.plan.distrust import Cut, bad, is_cut, rules
from wsm.plan.fleet import Fleet, Flight
from wsm.plan.inventory import Host, HostState, VmUse
from wsm.plan.policy import Hot
from wsm.plan.spec import Spec

PAIR = ("alpha", "beta")


class DistrustTest(unittest.TestCase):
    """Three cuts between alpha and beta."""

    def test_cuts(self) -> None:
        """Three in ten minutes, whichever way; two, or long ago, are none."""
        cuts = [Cut(100.0, *PAIR), Cut(200.0, *PAIR[::-1]),
                Cut(300.0, "alpha", "gamma")]
        self.assertEqual(bad(cuts, 400.0), {})
        cuts.append(Cut(400.0, *PAIR))
        found = bad(cuts, 400.0)
        self.assertEqual(list(found), [PAIR])
        self.assertIn("3 cuts in 10 minutes", found[PAIR])
        self.assertEqual(bad(cuts, 701.0), {})

    def test_reasons(self) -> None:
        """What the network did, and what it surely did not."""
        for text, wanted in (
                ("nothing has moved for 16 s: the link is silent", True),
                ("Connection refused", True),
                ("the destination said: Connection reset by peer", True),
                ("no space left on device", False), ("", False),
                ("it was cancelled", False), ("something else", False)):
            self.assertEqual(is_cut(text), wanted, text)

    def fleet(self) -> Fleet:
        """Return two hosts with a VM each."""
        fleet = Fleet(10.0)
        for name, vm in zip(PAIR, ("db", "web")):
            fleet.add_host(Host(name, 4.0, 1 << 30, 1 << 30))
            fleet.add_guest(VmUse(vm, name, 1, 1, 1, 0.1, "m", "p", "q"),
                            Spec(vm, ()), {})
        return fleet

    def ways(self, fleet: Fleet) -> list[tuple[tuple[str, ...], str]]:
        """Return which VMs may not go where."""
        return [(rule.vms, rule.hosts[0]) for rule in rules(
            fleet, {PAIR: "it is bad", ("alpha", "gone"): ""}, Hot())
            if rule.text()]

    def test_rules(self) -> None:
        """Neither way; but out of a host that is to be empty, or fails."""
        fleet = self.fleet()
        self.assertEqual(self.ways(fleet), [(("db",), "beta"),
                                            (("web",), "alpha"),
                                            (("db",), "gone")])
        node = fleet.nodes["alpha"]
        node.host = dataclasses.replace(node.host, state=HostState.DRAINING)
        self.assertEqual(self.ways(fleet), [(("web",), "alpha")])
        fleet = self.fleet()
        fleet.take("alpha", "health", 0.1)
        self.assertEqual(self.ways(fleet), [(("web",), "alpha")])

    def test_on_its_way(self) -> None:
        """A VM that is on its way there is not in the wrong place."""
        fleet = self.fleet()
        fleet.flights["db"] = Flight("db", *PAIR, "", False)
        self.assertEqual(self.ways(fleet), [(("web",), "alpha")])


if __name__ == "__main__":
    unittest.main()
