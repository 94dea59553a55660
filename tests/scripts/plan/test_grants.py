# SPDX-License-Identifier: GPL-2.0-or-later
"""Tests of how moves share links."""

import dataclasses
import math
import random
import unittest

from wsm.plan.fleet import Fleet, Flight
from wsm.plan.grants import (USEFUL, Claim, Wire, claim_of, crossed, fits,
                             share, wires_of)
from wsm.plan.inventory import Host, VmUse
from wsm.plan.plain import BadData
from wsm.plan.policy import Links, loads
from wsm.plan.spec import Sla, Spec

from tests.scripts.plan.properties import over

GIG = 125e6                     # bytes/s of 1 Gbit/s
LINKS = Links()


def claim(move: str, *wires: str, **more: float) -> Claim:
    """Return a claim."""
    return Claim(move, wires, **more)


def world(rand: random.Random) -> tuple[dict[str, float], list[Claim]]:
    """Return links and moves over them."""
    rooms = {name: rand.choice([0.0, 1e6, rand.random() * 1e9])
             for name in "abcdef"[:rand.randrange(1, 7)]}
    return rooms, [Claim(
        f"m{number}", tuple(rand.sample(
            [*rooms, "unknown"], rand.randrange(1, min(4, len(rooms)) + 1))),
        rand.choice([1.0, 2.0, 4.0]), rand.choice([USEFUL, 1e6, 1e8]),
        rand.choice([math.inf, math.inf, 100.0, 200.0]),
        rand.random() * 1e9) for number in range(rand.randrange(1, 9))]


class ShareTest(unittest.TestCase):
    """Who gets what."""

    def test_alone(self) -> None:
        """All of it, as far as it is of use."""
        self.assertEqual(share({"a": GIG}, [claim("m", "a")]), {"m": GIG})
        self.assertEqual(share({"a": 1e12}, [claim("m", "a")]), {"m": USEFUL})
        self.assertEqual(share({}, [claim("m", "a")]), {"m": USEFUL})

    def test_weights(self) -> None:
        """By their weight; what one cannot use is the others'."""
        found = share({"a": 7e6}, [claim("m", "a", weight=4.0),
                                   claim("n", "a", weight=2.0),
                                   claim("o", "a")])
        self.assertEqual(found, {"m": 4e6, "n": 2e6, "o": 1e6})
        found = share({"a": 7e6}, [claim("m", "a", weight=4.0, most=1e6),
                                   claim("n", "a", weight=2.0),
                                   claim("o", "a")])
        self.assertEqual(found, {"m": 1e6, "n": 4e6, "o": 2e6})

    def test_elsewhere(self) -> None:
        """Who is stopped at another link leaves more here."""
        found = share({"a": 10e6, "b": 2e6},
                      [claim("m", "a", "b"), claim("n", "a"),
                       claim("o", "b")])
        self.assertEqual(found, {"m": 1e6, "n": 9e6, "o": 1e6})

    def test_deadlines(self) -> None:
        """The earliest first, with what they need; a tenth for the others."""
        rooms = {"a": 10e6}
        early = claim("z", "a", due=1.0, need=3e6)
        late = claim("l", "a", due=2.0, need=8e6)
        self.assertEqual(share(rooms, [late, early]), {"z": 3e6, "l": 7e6})
        self.assertEqual(share(rooms, [late, early, claim("m", "a")]),
                         {"z": 3e6, "l": 6e6, "m": 1e6})
        self.assertEqual(share(rooms, [early, claim("m", "a")]),
                         {"z": 3e6, "m": 7e6})

    @over(lambda some: some.randoms(use_true_random=False))
    def test_never_over(self, rand: random.Random) -> None:
        """No link carries more than it can, nobody more than he can use."""
        rooms, claims = world(rand)
        found = share(rooms, claims)
        self.assertEqual(set(found), {each.move for each in claims})
        for name, room in rooms.items():
            self.assertLessEqual(sum(found[each.move] for each in claims
                                     if name in each.wires),
                                 room * (1 + 1e-6) + 1)
        for each in claims:
            self.assertGreaterEqual(found[each.move], 0)
            self.assertLessEqual(found[each.move], each.most * (1 + 1e-9))
        self.assertEqual(found, share(rooms, claims[::-1]))

    @over(lambda some: some.randoms(use_true_random=False))
    def test_max_min(self, rand: random.Random) -> None:
        """
        Who has less than he can use is stopped by a link that is full.

        Nobody there has more for his weight, unless a deadline gives it.
        """
        rooms, claims = world(rand)
        found = share(rooms, claims)
        for each in claims:
            if math.isfinite(each.due) or (
                    found[each.move] >= each.most * (1 - 1e-6)):
                continue
            stops = False
            for name in set(each.wires) & set(rooms):
                there = [other for other in claims if name in other.wires]
                full = sum(found[other.move] for other in there) >= (
                    rooms[name] * (1 - 1e-6) - 1)
                first = all(found[each.move] / each.weight
                            >= found[other.move] / other.weight * (1 - 1e-6)
                            - 1 for other in there if math.isinf(other.due))
                stops = stops or full and first
            self.assertTrue(stops, (rooms, claims, found))

    @over(lambda some: some.randoms(use_true_random=False))
    def test_monotone(self, rand: random.Random) -> None:
        """Where there is more room, who has the least has no less."""
        rooms, claims = world(rand)
        claims = [dataclasses.replace(each, due=math.inf) for each in claims]

        def least(rooms: dict[str, float]) -> float:
            found = share(rooms, claims)
            return min(found[each.move] / each.weight for each in claims)

        more = {name: room * rand.choice([1.0, 1.5, 3.0])
                for name, room in rooms.items()}
        self.assertGreaterEqual(least(more), least(rooms) * (1 - 1e-9))


class RoomTest(unittest.TestCase):
    """What of a link moves may use."""

    def test_room(self) -> None:
        """A part of it, less what others take; never nothing."""
        self.assertEqual(Wire(GIG).room(LINKS), 0.8 * GIG)
        self.assertEqual(Wire(GIG, 0.1 * GIG).room(LINKS), 0.8 * GIG)
        self.assertAlmostEqual(Wire(GIG, 0.7 * GIG).room(LINKS), 0.3 * GIG)
        self.assertEqual(Wire(GIG, 2 * GIG).room(LINKS), 0.05 * GIG)

    def fleet(self) -> Fleet:
        """Return two hosts, and a VM that was promised a part of a link."""
        fleet = Fleet(10.0)
        for name, mbit in (("alpha", 1000), ("beta", 1000), ("gamma", 0)):
            fleet.add_host(Host(name, 4.0, 1 << 30, 1 << 30, mbit=mbit))
        use = VmUse("db", "alpha", 1, 1 << 30, 1 << 20, 0.1, "m", "p", "q")
        fleet.add_guest(use, Spec("db", (), sla=Sla(
            net_mbit_min={"out": 300.0})), {})
        return fleet

    def test_promised_or_used(self) -> None:
        """The more of both of each VM, or what the host sends in all."""
        fleet = self.fleet()
        wires = wires_of(fleet, LINKS)
        self.assertEqual(set(wires), {"tx alpha", "rx alpha", "tx beta",
                                      "rx beta"})
        self.assertEqual(wires["tx alpha"], Wire(GIG, 0.3 * GIG))
        self.assertEqual(wires["rx alpha"], Wire(GIG, 0.0))
        fleet.guests["db"].load["tx"].add(0.0, 0.4 * GIG)
        self.assertEqual(wires_of(fleet, LINKS)["tx alpha"].taken, 0.4 * GIG)
        fleet.nodes["alpha"].load["tx"].add(0.0, 0.5 * GIG)
        self.assertEqual(wires_of(fleet, LINKS)["tx alpha"].taken, 0.5 * GIG)

    def test_shared(self) -> None:
        """Only who goes in or out goes through the link of a rack."""
        links = loads('[links.shared.up1]\nmbit = 4000.0\n'
                      'hosts = ["alpha", "beta"]\n').links
        wires = wires_of(self.fleet(), links)
        self.assertEqual(wires["up1"], Wire(4 * GIG))
        for source, to, through in (("alpha", "gamma", True),
                                    ("gamma", "beta", True),
                                    ("alpha", "beta", False)):
            found = crossed(Flight("v", source, to, "", False), links)
            self.assertEqual(found[:2], (f"tx {source}", f"rx {to}"))
            self.assertEqual("up1" in found, through)
        with self.assertRaises(BadData):
            loads("[links.shared.up1]\nmbit = 4000.0\n")

    def test_claims(self) -> None:
        """What heals comes before what is for comfort, post-copy before all."""
        heals = Flight("v", "alpha", "beta", "host.cpu alpha", False)
        drains = dataclasses.replace(heals, spot="drain alpha")
        for flight, gold, phase, weight in (
                (heals, True, "disk-precopy", 2.0), (heals, False, "x", 1.0),
                (drains, True, "x", 1.0), (drains, False, "postcopy", 4.0)):
            self.assertEqual(claim_of(flight, gold, phase, LINKS).weight,
                             weight)
        self.assertEqual(claim_of(heals, True, "", LINKS, 5e6).most, 5e6)
        self.assertEqual(claim_of(heals, True, "", LINKS, 0).most, USEFUL)


class QueueTest(unittest.TestCase):
    """When a move waits for its turn."""

    def test_turns(self) -> None:
        """Three moves of a link have a quarter of it each, four do not."""
        wires = {"a": Wire(GIG), "b": Wire(GIG)}
        moves = [claim("m", "a"), claim("n", "a")]
        self.assertTrue(fits(wires, [], moves[0], LINKS))
        self.assertTrue(fits(wires, moves, claim("o", "a"), LINKS))
        moves.append(claim("o", "a"))
        self.assertFalse(fits(wires, moves, claim("p", "a"), LINKS))
        self.assertTrue(fits(wires, moves, claim("p", "b"), LINKS))
        self.assertFalse(fits(wires, moves, claim("p", "a", "b"), LINKS))

    def test_busy(self) -> None:
        """A link that others use carries one move, however slow."""
        wires = {"a": Wire(GIG, 0.9 * GIG)}
        self.assertTrue(fits(wires, [], claim("m", "a"), LINKS))
        self.assertFalse(fits(wires, [claim("m", "a")], claim("n", "a"),
                              LINKS))

    def test_slow_by_itself(self) -> None:
        """Who does not want a quarter does not wait for it."""
        wires = {"a": Wire(GIG)}
        moves = [claim(str(each), "a", most=0.01 * GIG) for each in range(9)]
        self.assertTrue(fits(wires, moves, claim("m", "a", most=0.01 * GIG),
                             LINKS))
        self.assertTrue(fits({}, moves, claim("m", "a"), LINKS))


if __name__ == "__main__":
    unittest.main()
