# SPDX-License-Identifier: GPL-2.0-or-later
"""Tests of where a VM may run, and where it goes."""

import dataclasses
import unittest
from typing import Any

from wsm.plan import filters, spec
from wsm.plan.estimate import Estimate, Link, Load, estimate
from wsm.plan.inventory import (GIB, MAX_COPIED, Copy, Host, HostState, Pool,
                                Qemu, VmUse)

QEMU = Qemu("/q", "10.0.13", "qemu-wsm 0.4", ("pc-i440fx-10.0",))
BETA = Host("beta", 8.0, 32 * GIB, 24 * GIB, address="10.0.0.2",
            networks=("lan",), files={"ab" * 32: 5}, cpu="a", tags=("rack:1",),
            pools={"default": Pool(100 * GIB, 200 * GIB)},
            qemus={"10.0": QEMU})
ALPHA = dataclasses.replace(BETA, name="alpha", cpu="b")
USE = VmUse("db1", "alpha", 4, 8 * GIB, 4 * GIB, 1.0, "pc-i440fx-10.0",
            "qemu-wsm 0.4", "10.0.5")
SPEC = spec.Spec("db1", (), net={"n": spec.Net("lan")},
                 disk={"vd0": spec.Disk("raw", 40 * GIB)},
                 file={"kernel": spec.File("ab" * 32, 1 * GIB)})
WISH = filters.Wish(USE, SPEC, ALPHA, {"vd0": 20 * GIB})


def change(thing: Any, **values: Any) -> Any:
    """Return @thing with other values."""
    return dataclasses.replace(thing, **values)


def placed(**values: Any) -> filters.Wish:
    """Return a wish of a VM with another placement."""
    wish: filters.Wish = change(WISH, spec=change(
        SPEC, placement=spec.Placement(**values)))
    return wish


def seconds(value: float) -> Estimate:
    """Return an estimate that says so."""
    made: Estimate = change(estimate([], Load(0), Link(1.0)), seconds=value)
    return made


class FilterTest(unittest.TestCase):
    """Each filter refuses with numbers."""

    def test_fits(self) -> None:
        """A host like any other."""
        self.assertEqual(filters.refusals(WISH, BETA), [])

    def test_each(self) -> None:
        """One reason each, by its name."""
        for wish, host, name, words in (
                (WISH, ALPHA, "other", "is on alpha already"),
                (WISH, change(BETA, state=HostState.CORDONED), "state",
                 "is cordoned"),
                (WISH, change(BETA, moves_in=1), "state", "takes in 1"),
                (change(WISH, use=change(USE, managed="libvirt")), BETA,
                 "ours", "belongs to libvirt"),
                (change(WISH, use=change(USE, moving="m7")), BETA, "ours",
                 "in move m7"),
                (placed(mode=spec.Mode.NEVER), BETA, "placement", "never"),
                (placed(pin=("gamma",)), BETA, "placement", "pinned to gamma"),
                (placed(tags=("ssd",)), BETA, "placement",
                 "wants tag ssd; beta has rack:1"),
                (WISH, change(BETA, qemus={}), "qemu", "no QEMU"),
                (WISH, change(BETA, qemus={"x": change(
                    QEMU, package="qemu-wsm 0.5")}), "qemu",
                 "0.5 there, 0.4 here"),
                (WISH, change(BETA, qemus={"x": change(
                    QEMU, version="9.2")}), "qemu", "9.2 there, 10.0.5 here"),
                (WISH, change(BETA, qemus={"x": change(QEMU, machines=())}),
                 "qemu", "pc-i440fx-10.0"),
                (change(WISH, use=change(USE, host_cpu=True)), BETA, "cpu",
                 "is another"),
                (WISH, change(BETA, cores=2.0, demand=-9.0), "cores",
                 "4 vCPUs, beta 2 cores"),
                (WISH, change(BETA, demand=6.8), "cores",
                 "db1 uses 1.00 cores, beta has 0.80 of 8 free besides its "
                 "reserve of 5%"),
                (WISH, change(BETA, demand=9.0), "cores", "has 0.00 of 8"),
                (WISH, change(BETA, available=10 * GIB), "memory",
                 "8.0 GiB of memory, beta 7.4 GiB free"),
                (change(WISH, use=change(USE, huge=True)), BETA, "memory",
                 "huge pages"),
                (WISH, change(BETA, pools={}), "space", "no pool default"),
                (WISH, change(BETA, pools={"default": Pool(
                    30 * GIB, 200 * GIB)}), "space",
                 "20.0 GiB are needed, 10.0 GiB are free"),
                (WISH, change(BETA, networks=()), "networks",
                 "no network lan"),
                (WISH, change(BETA, files={}), "files", "lacks file kernel"),
                (WISH, change(BETA, clock_off=-3.5), "clock", "-3.5 s off"),
                (WISH, change(BETA, address=""), "address", "no migration")):
            found = filters.refusals(wish, host)
            self.assertEqual([each.filter for each in found], [name], words)
            self.assertIn(words, found[0].text)
            forced = filters.refusals(wish, host, frozenset([name]))
            self.assertEqual(bool(forced), name in filters.FIRM)

    def test_borders(self) -> None:
        """As much as there is fits; one more does not."""
        huge = change(WISH, use=change(USE, huge=True))
        two = change(WISH, spec=change(SPEC, file={
            "k": spec.File("cd" * 32, MAX_COPIED)}))
        large = change(WISH, spec=change(SPEC, file={
            "k": spec.File("cd" * 32, MAX_COPIED + 1)}))
        reserve = int(32 * GIB * 0.08)
        pool = Pool(40 * GIB, 200 * GIB)        # 20 GiB stay free
        for wish, host, name in (
                (WISH, change(BETA, available=8 * GIB + reserve), ""),
                (WISH, change(BETA, available=8 * GIB + reserve - 1),
                 "memory"),
                (huge, change(BETA, huge_free=8 * GIB), ""),
                (huge, change(BETA, huge_free=8 * GIB - 1), "memory"),
                (WISH, change(BETA, cores=4.0), ""),
                (WISH, change(BETA, cores=3.99), "cores"),
                (WISH, change(BETA, demand=6.6), ""),
                (WISH, change(BETA, demand=6.61), "cores"),
                (WISH, change(BETA, pools={"default": pool}), ""),
                (WISH, change(BETA, pools={"default": change(
                    pool, free=40 * GIB - 1)}), "space"),
                (two, BETA, ""), (large, BETA, "files"),
                (WISH, change(BETA, clock_off=2.0), ""),
                (WISH, change(BETA, clock_off=-2.0), ""),
                (WISH, change(BETA, clock_off=2.01), "clock"),
                (WISH, change(BETA, moves_in=0), "")):
            found = filters.refusals(wish, host)
            self.assertEqual([each.filter for each in found],
                             [name] if name else [], f"{found}")

    def test_way_back(self) -> None:
        """What an old copy takes already need not be free."""
        full = change(BETA, pools={"default": Pool(0, 200 * GIB)})
        copy = Copy("db1", "vd0", "/i", "handed-over", allocated=20 * GIB)
        self.assertEqual(self.space(change(full, copies=(copy,))), [])
        for other in (change(copy, vm="db2"), change(copy, disk="vd1"),
                      change(copy, state="current"),
                      change(copy, allocated=20 * GIB - 1)):
            self.assertEqual(len(self.space(change(full, copies=(other,)))),
                             1, other)

    def space(self, host: Host, wish: filters.Wish = WISH) -> list[str]:
        """Return what the filter says of space there."""
        return list(filters.has_space(wish, host))

    def test_pools(self) -> None:
        """Two pools on one file system have its room together."""
        wish = change(WISH, needs={"vd0": 20 * GIB, "vd1": 30 * GIB},
                      spec=change(SPEC, disk={
                          "vd0": spec.Disk("raw", 40 * GIB),
                          "vd1": spec.Disk("raw", 40 * GIB, "fast"),
                          "vd2": spec.Disk("raw", 9, "none", path_at={
                              "beta": "/dev/sdb"})}))
        apart = {"default": Pool(60 * GIB, 200 * GIB, device=1),
                 "fast": Pool(60 * GIB, 200 * GIB, device=2)}
        shared = {"default": apart["default"],
                  "fast": change(apart["fast"], device=1)}
        self.assertEqual(self.space(change(BETA, pools=apart), wish), [])
        text, = self.space(change(BETA, pools=shared), wish)
        self.assertIn("default and fast of beta: 50.0 GiB are needed, "
                      "40.0 GiB are free", text)
        after = filters.with_vm(wish, change(BETA, pools=shared))
        self.assertEqual([pool.free for pool in after.pools.values()],
                         [10 * GIB, 10 * GIB])

    def test_own_path(self) -> None:
        """An image with a path of its own there is in no pool."""
        wish = change(WISH, spec=change(SPEC, disk={"vd0": spec.Disk(
            "raw", 40 * GIB, path_at={"beta": "/dev/sdb"})}))
        self.assertEqual(self.space(change(BETA, pools={}), wish), [])

    def test_all_tried(self) -> None:
        """Each filter has a case above."""
        self.assertLess(filters.FIRM, set(filters.FILTERS))

    def test_small_file(self) -> None:
        """A file that the agents copy is no reason."""
        wish = change(WISH, spec=change(SPEC, file={
            "k": spec.File("cd" * 32, 1000)}))
        self.assertEqual(filters.refusals(wish, BETA), [])


class ChooseTest(unittest.TestCase):
    """Where it goes."""

    def test_order(self) -> None:
        """Cool before full; of equals the cheapest; the others last."""
        hosts = [change(BETA, name="full", demand=5.0),
                 change(BETA, name="dear"), change(BETA, name="cheap"),
                 change(BETA, name="closed", state=HostState.DRAINING)]
        found = filters.choose(WISH, hosts, lambda host: seconds(
            9.0 if host.name == "dear" else 5.0))
        self.assertEqual([each.host for each in found],
                         ["cheap", "dear", "full", "closed"])
        self.assertEqual(found[3].refusals[0].filter, "state")

    def test_drain(self) -> None:
        """Large ones are placed first, short moves are made first."""
        small = change(WISH, use=change(USE, name="a", memory=2 * GIB))
        large = change(WISH, use=change(USE, name="b", memory=20 * GIB))
        hosts = [change(BETA, name="g", available=25 * GIB,
                        memory=30 * GIB), change(BETA, name="h", cores=4.0)]
        plan = filters.drain([small, large], hosts, lambda wish, host: seconds(
            wish.use.memory / GIB))
        self.assertEqual([(step.vm, step.to) for step in plan.steps],
                         [("a", "h"), ("b", "g")])
        self.assertEqual(plan.stay, ())

    def test_drain_full(self) -> None:
        """Who has no place stays, with the reasons."""
        wishes = [change(WISH, use=change(USE, name=name, memory=14 * GIB))
                  for name in ("a", "b")]
        plan = filters.drain(wishes, [BETA], lambda wish, host: seconds(1.0))
        self.assertEqual([step.vm for step in plan.steps], ["a"])
        self.assertEqual([name for name, _ in plan.stay], ["b"])
        self.assertIn("memory", plan.stay[0][1][0].refusals[0].filter)

    def test_space_is_booked(self) -> None:
        """The images of the first fill the pool for the second."""
        host = filters.with_vm(WISH, BETA)
        self.assertEqual(host.pools["default"].free, 80 * GIB)
        self.assertEqual(host.available, 16 * GIB)
        self.assertEqual(host.demand, 1.0)
