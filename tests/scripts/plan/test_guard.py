# SPDX-License-Identifier: GPL-2.0-or-later
"""Tests of how a running move is held back."""

import dataclasses
import math
import random
import unittest
from functools import partial
from typing import Callable

from wsm.plan.guard import Act, Grip, Hold, Seen, hold, lowest
from wsm.plan.promise import ENOUGH, HAD_IT, ROOM, Breach, Promise, Reading, Watch

from tests.scripts.plan.properties import over

MBIT = 125000.0             # bytes/s
LINK = 160.0                # Mbit/s
POLICY = Hold()
HURT = (Breach("v", "net.out", 50, 100),)


def seen(now: float, phase: str = "disk-precopy", **more: float) -> Seen:
    """Return a second in which all is well."""
    return dataclasses.replace(Seen(now, phase, LINK * MBIT), **more)


def bad(now: float, phase: str = "disk-precopy", **more: float) -> Seen:
    """Return a second in which a promise is broken."""
    return dataclasses.replace(seen(now, phase, **more), breaches=HURT)


class WatchTest(unittest.TestCase):
    """What counts as a broken promise."""

    def watch(self, **promise: float) -> Watch:
        """Return what is known of a VM that had 100 Mbit/s before."""
        watch = Watch("v", Promise({"out": 100.0}, **promise))
        watch.remember(0.0, Reading({"out": 100.0}, io_p95=2.0))
        return watch

    def kinds(self, watch: Watch, reading: Reading,
              now: float = 1.0) -> list[str]:
        """Return what is broken."""
        return [each.what for each in watch.breaches(now, reading)]

    def test_net(self) -> None:
        """Less than promised counts if the link is full, and it can use it."""
        less = Reading({"out": 94.0}, full=True)
        self.assertEqual(self.kinds(self.watch(), less), ["net.out"])
        enough = Reading({"out": 100 * ENOUGH}, full=True)
        self.assertEqual(self.kinds(self.watch(), enough), [])
        quiet = dataclasses.replace(less, full=False)
        self.assertEqual(self.kinds(self.watch(), quiet), [])
        self.assertEqual(self.kinds(self.watch(), less, HAD_IT), ["net.out"])
        self.assertEqual(self.kinds(self.watch(), less, HAD_IT + 1), [])
        new = Watch("v", Promise({"out": 100.0}))
        self.assertEqual(self.kinds(new, less), [])
        self.assertEqual(self.kinds(self.watch(), Reading(full=True)), [])

    def test_cpu(self) -> None:
        """It waits for a CPU, and has something to do."""
        watch = self.watch(wait=0.1)
        waits = Reading(wait=0.11, cores=0.5)
        self.assertEqual(self.kinds(watch, waits), ["cpu"])
        self.assertEqual(self.kinds(watch, Reading(wait=0.1, cores=0.5)), [])
        self.assertEqual(self.kinds(watch, Reading(wait=0.9, cores=0.05)), [])

    def test_swap(self) -> None:
        """Its memory is swapped out."""
        watch = self.watch(swap=64.0)
        self.assertEqual(self.kinds(watch, Reading(swap=65.0)), ["swap"])
        self.assertEqual(self.kinds(watch, Reading(swap=64.0)), [])

    def test_io(self) -> None:
        """Twice as slow as before, and slow at all; or as promised."""
        def slow(ms: float, requests: int = 10) -> Reading:
            return Reading(io_p95=ms, requests=requests)
        self.assertEqual(self.kinds(self.watch(), slow(5.0)), [])
        self.assertEqual(self.kinds(self.watch(), slow(5.1)), ["io"])
        self.assertEqual(self.kinds(self.watch(), slow(5.1, 9)), [])
        self.assertEqual(self.kinds(self.watch(io_p95=3.0), slow(3.1)),
                         ["io"])
        busy = Watch("v", Promise())
        busy.remember(0.0, slow(10.0))
        self.assertEqual(self.kinds(busy, slow(20.0)), [])
        self.assertEqual(self.kinds(busy, slow(20.1)), ["io"])
        self.assertEqual(self.kinds(Watch("v", Promise()), slow(99.0)), [])

    def test_near(self) -> None:
        """Half of what is too slow, and slower than it was before."""
        watch = Watch("v", Promise(io_p95=20.0))
        for ms, requests, wanted in ((10.0, 99, False), (10.1, 99, True),
                                     (10.1, 9, False)):
            self.assertEqual(watch.near(Reading(
                io_p95=ms, requests=requests)), wanted)
        watch.remember(0.0, Reading(io_p95=1.0))
        self.assertFalse(watch.near(Reading(io_p95=9.0, requests=99)))
        for _ in range(2):
            watch.remember(0.0, Reading(io_p95=15.0))
        self.assertFalse(watch.near(Reading(io_p95=15.0, requests=99)))
        self.assertTrue(watch.near(Reading(io_p95=15.1, requests=99)))
        self.assertFalse(Watch("v", Promise()).near(Reading(
            io_p95=99.0, requests=99)))

    def test_was(self) -> None:
        """What was broken three times of five before is not its fault."""
        watch = self.watch(wait=0.1)
        self.assertEqual(watch.was(1.0), frozenset())
        for wait, broken in ((0.0, False), (0.5, False), (0.5, False),
                             (0.0, False), (0.5, True), (0.5, True),
                             (0.0, True), (0.0, False)):
            watch.remember(1.0, Reading(wait=wait, cores=1.0))
            self.assertEqual(watch.was(1.0), {"cpu"} if broken else set())
        watch = Watch("v", Promise(wait=0.1))
        watch.remember(1.0, Reading(wait=0.5, cores=1.0))
        self.assertEqual(watch.was(1.0), {"cpu"})

    def test_uses(self) -> None:
        """What it uses but for a burst; a move does not stop the counting."""
        watch = Watch("v", Promise({"out": 100.0}))
        self.assertEqual(watch.uses("out"), 0.0)
        for mbit in [20.0] * 28 + [90.0] * 2:
            watch.breaches(1.0, Reading({"out": mbit}))
        self.assertEqual((watch.uses("out"), watch.uses("in")), (20.0, 0.0))
        for _ in range(3):
            watch.breaches(1.0, Reading({"out": 80.0}))
        self.assertEqual(watch.uses("out"), 80.0)

    def test_words(self) -> None:
        """A breach says who, what, and both figures."""
        text = str(Breach("db1", "net.out", 61.2345, 100))
        for word in ("db1", "net.out", "61.2", "100"):
            self.assertIn(word, text)
        # of a newer agent
        self.assertIn("db1: gpu 3", str(Breach("db1", "gpu", 3.0, 1.0)))


class HoldTest(unittest.TestCase):
    """One decision a second."""

    def run_seconds(self, grip: Grip, count: int,
                    make: Callable[[float], Seen],
                    start: int = 0) -> tuple[Grip, list[Act]]:
        """Return the grip and what was done in @count seconds."""
        acts = []
        for second in range(start, start + count):
            grip, act = hold(grip, make(float(second)), POLICY)
            acts.append(act)
        return grip, acts

    def test_three_of_five(self) -> None:
        """Two bad seconds are chance, three are not; then it is halved."""
        full = LINK * MBIT
        grip, acts = self.run_seconds(Grip(full), 2, bad)
        self.assertEqual(acts, [Act.NOTHING] * 2)
        grip, act = hold(grip, bad(2.0), POLICY)
        self.assertEqual((grip.rate, act), (full / 2, Act.RATE))
        self.assertIn("net.out", grip.why)

    def test_long_ago(self) -> None:
        """Of bad seconds only those of the last five count."""
        looks = [bad, bad, seen, seen, seen, bad, seen, seen, bad]
        grip = Grip(LINK * MBIT)
        for second, make in enumerate(looks):
            grip, act = hold(grip, make(float(second)), POLICY)
            self.assertIs(act, Act.NOTHING)

    def test_patience(self) -> None:
        """After a change three seconds pass before the next."""
        grip, _ = self.run_seconds(Grip(LINK * MBIT), 3, bad)
        grip, acts = self.run_seconds(grip, 3, bad, 3)
        self.assertEqual(acts, [Act.NOTHING, Act.NOTHING, Act.RATE])
        self.assertEqual(grip.rate, LINK * MBIT / 4)

    def test_faster(self) -> None:
        """After five good seconds a tenth of the grant more, to the grant."""
        grip, acts = self.run_seconds(Grip(0.85 * LINK * MBIT), 30, seen)
        self.assertEqual(acts.count(Act.RATE), 2)
        self.assertEqual(acts[:11], ([Act.NOTHING] * 5 + [Act.RATE]
                                     + [Act.NOTHING] * 4 + [Act.RATE]))
        self.assertEqual(grip.rate, LINK * MBIT)

    def test_well_begins_anew(self) -> None:
        """One bad second, and five good ones must follow."""
        grip, acts = self.run_seconds(
            Grip(POLICY.low), 10,
            lambda now: bad(now) if now == 4 else seen(now))
        self.assertEqual(acts, [Act.NOTHING] * 10)
        _, act = hold(grip, seen(10.0), POLICY)
        self.assertIs(act, Act.RATE)

    def test_no_faster_than_there_is_room(self) -> None:
        """What others use now is not tried; nor is a faster move slowed."""
        room = 0.4 * LINK * MBIT
        grip, _ = self.run_seconds(Grip(0.2 * LINK * MBIT), 100,
                                   partial(seen, room=room))
        self.assertEqual(grip.rate, room)
        fast = Grip(0.5 * LINK * MBIT)
        grip, acts = self.run_seconds(fast, 100, partial(seen, room=room))
        self.assertEqual((grip.rate, set(acts)), (fast.rate, {Act.NOTHING}))

    def slow_disk(self, now: float, phase: str = "disk-precopy",
                  what: str = "io") -> Seen:
        """Return a second in which another VM's disk is slow."""
        return dataclasses.replace(seen(now, phase), breaches=(
            Breach("v", what, 30.0, 20.0),))

    def test_only_the_disk(self) -> None:
        """Disks are slowed alone, until something else is hurt too."""
        grip, acts = self.run_seconds(Grip(LINK * MBIT), 3, self.slow_disk)
        self.assertEqual((acts[-1], grip.disk), (Act.RATE, True))
        self.assertEqual(grip.rate, LINK * MBIT / 2)
        grip, _ = self.run_seconds(grip, 4, self.slow_disk, 3)
        self.assertTrue(grip.disk)
        grip, _ = self.run_seconds(grip, 4, bad, 7)
        self.assertFalse(grip.disk)
        grip, _ = self.run_seconds(grip, 4, self.slow_disk, 11)
        self.assertFalse(grip.disk)     # the link is still needed slow
        grip, _ = self.run_seconds(grip, 300, seen, 15)
        self.assertEqual((grip.rate, grip.disk), (LINK * MBIT, False))

    def test_what_a_disk_can(self) -> None:
        """By half of it until it hurts, then by a quarter; near to it not."""
        full = 10 * LINK * MBIT
        grip, _ = self.run_seconds(Grip(POLICY.disk, disk=True), 11,
                                   partial(seen, grant=full))
        self.assertEqual(grip.rate, 2.25 * POLICY.disk)
        one, _ = hold(dataclasses.replace(grip, changed=11.0), seen(
            13.0, grant=full, near=True), POLICY)
        stays, acts = self.run_seconds(one, 110, partial(seen, grant=full),
                                       14)
        self.assertEqual(set(acts), {Act.NOTHING})
        stays, _ = self.run_seconds(stays, 20, partial(seen, grant=full), 133)
        self.assertGreater(stays.rate, one.rate)
        one, _ = hold(dataclasses.replace(grip, changed=11.0), seen(
            13.1, grant=full, near=True), POLICY)
        self.assertTrue(math.isinf(one.harm))
        near = partial(seen, grant=full, near=True)
        grip, acts = self.run_seconds(grip, 30, near, 11)
        self.assertEqual(set(acts), {Act.NOTHING})
        grip, _ = self.run_seconds(Grip(POLICY.disk), 6, near)
        self.assertGreater(grip.rate, POLICY.disk)
        grip = Grip(POLICY.disk, disk=True, harm=9 * POLICY.disk, harmed=0.0)
        grip, _ = self.run_seconds(grip, 6, partial(seen, grant=full), 1)
        self.assertEqual(grip.rate, 1.25 * POLICY.disk)
        grip, _ = self.run_seconds(Grip(POLICY.disk), 6,
                                   partial(seen, grant=full))
        self.assertEqual(grip.rate, POLICY.disk + POLICY.up * full)

    def test_memory_hurts_no_disk(self) -> None:
        """It is sent at full speed although disks are slow."""
        grip, acts = self.run_seconds(
            Grip(LINK * MBIT), 20, partial(self.slow_disk,
                                           phase="ram-precopy"))
        self.assertEqual(set(acts), {Act.NOTHING})
        grip, act = hold(Grip(POLICY.low, disk=True), bad(
            1.0, "ram-precopy"), POLICY)
        self.assertEqual((grip.rate, grip.disk, act),
                         (LINK * MBIT, False, Act.RATE))

    def test_harm_slows_nothing(self) -> None:
        """A rate near the one that did harm stays as long as all is well."""
        grip = Grip(90 * MBIT, harm=100 * MBIT, harmed=0.0)
        grip, _ = self.run_seconds(grip, 100, seen, 1)
        self.assertEqual(grip.rate, 90 * MBIT)

    def test_harm_is_remembered(self) -> None:
        """It does not go on until it hurts, before it is long ago."""
        grip = Grip(100 * MBIT / 2, harm=100 * MBIT, harmed=0.0)
        grip, _ = self.run_seconds(grip, 119, seen, 1)
        self.assertEqual(grip.rate, 85 * MBIT)
        grip, _ = self.run_seconds(grip, 10, seen, 120)
        self.assertGreater(grip.rate, 100 * MBIT)

    def test_lowest(self) -> None:
        """No phase is held under what lets it end, nor over the grant."""
        grant = LINK * MBIT
        self.assertEqual(lowest(seen(0), POLICY), POLICY.low)
        self.assertEqual(lowest(seen(0, "ram-precopy", dirty=8e6), POLICY),
                         8e6 * POLICY.ram)
        self.assertEqual(lowest(seen(0, "ram-precopy", dirty=9e9), POLICY),
                         grant)
        self.assertEqual(lowest(seen(0, "postcopy"), POLICY), grant / 4)
        self.assertEqual(lowest(seen(0, grant=1000.0), POLICY), 1000.0)

    def test_raised_for_memory(self) -> None:
        """What was slow enough for disks is too slow for memory."""
        grip, act = hold(Grip(POLICY.low), seen(9, "ram-precopy", dirty=8e6),
                         POLICY)
        self.assertEqual((grip.rate, act), (8e6 * POLICY.ram, Act.RATE))

    def test_grant_shrinks(self) -> None:
        """Over the grant it never is."""
        grip, act = hold(Grip(LINK * MBIT), seen(9, grant=MBIT), POLICY)
        self.assertEqual((grip.rate, act), (MBIT, Act.RATE))

    def test_nothing_in_the_freeze(self) -> None:
        """The guest stands still: nothing is changed."""
        for phase in ("freeze", "completed", "none"):
            _, acts = self.run_seconds(Grip(LINK * MBIT), 20,
                                       partial(bad, phase=phase))
            self.assertEqual(set(acts), {Act.NOTHING})

    def test_reads_wait(self) -> None:
        """In post-copy the guest's own reads come first."""
        grip, acts = self.run_seconds(
            Grip(LINK * MBIT / 4), 3, lambda now: dataclasses.replace(
                bad(now, "postcopy"), reads_wait=True))
        self.assertEqual(acts, [Act.NOTHING] * 2 + [Act.RATE])
        self.assertEqual(grip.rate, LINK * MBIT)
        self.assertIn("waits", grip.why)

    def test_disk_is_given_up_late(self) -> None:
        """At the lowest rate in vain for ten minutes; what was sent stays."""
        grip, acts = self.run_seconds(Grip(POLICY.low), 603, bad)
        self.assertEqual(set(acts[:-1]), {Act.NOTHING})
        self.assertIs(acts[-1], Act.CANCEL)
        self.assertIn("net.out", grip.why)

    def test_halved_to_the_lowest(self) -> None:
        """Not under it."""
        grip, _ = self.run_seconds(Grip(1.5 * POLICY.low), 3, bad)
        self.assertEqual(grip.rate, POLICY.low)

    def test_in_vain_begins_anew(self) -> None:
        """A while without a breach: ten minutes begin again."""
        def make(now: float) -> Seen:
            return seen(now) if 400 <= now < 403 else bad(now)
        _, acts = self.run_seconds(Grip(POLICY.low), 1000, make)
        self.assertNotIn(Act.CANCEL, acts)

    def test_memory_ends_or_is_given_up(self) -> None:
        """Soon done: at full speed.  Else cancelled at once."""
        near = POLICY.finish * LINK * MBIT
        for left, wanted in ((near, Act.RATE), (near + 1, Act.CANCEL)):
            grip, acts = self.run_seconds(
                Grip(POLICY.low), 3,
                partial(bad, phase="ram-precopy", left=left))
            self.assertIs(acts[-1], wanted)
        self.assertEqual(grip.rate, POLICY.low)

    def test_postcopy_is_never_cancelled(self) -> None:
        """The guest runs there: only slower."""
        grip, acts = self.run_seconds(Grip(LINK * MBIT), 2000,
                                      partial(bad, phase="postcopy"))
        self.assertNotIn(Act.CANCEL, acts)
        self.assertEqual(grip.rate, LINK * MBIT / 4)

    @over(lambda some: some.randoms(use_true_random=False))
    def test_any(self, rand: random.Random) -> None:
        """Whatever is seen: above 0, at most the grant, no guest is lost."""
        grip = Grip(rand.choice([1.0, MBIT, LINK * MBIT, 1e12]))
        for second in range(60):
            now = dataclasses.replace(
                seen(float(second), rand.choice(
                    ["disk-precopy", "ram-precopy", "freeze", "postcopy"])),
                grant=rand.choice([1.0, 1e6, 2e7, 1e10]),
                dirty=rand.choice([0.0, 1e6, 1e9]),
                left=rand.choice([0.0, 1e9]),
                reads_wait=rand.random() < 0.2,
                breaches=HURT if rand.random() < 0.4 else ())
            before = grip.rate
            grip, act = hold(grip, now, POLICY)
            self.assertEqual(act is Act.RATE, grip.rate != before)
            self.assertGreater(grip.rate, 0)
            if act is Act.RATE:
                self.assertLessEqual(grip.rate, now.grant)
            if now.phase in ("freeze", "postcopy"):
                self.assertIsNot(act, Act.CANCEL)


class SharedLinkTest(unittest.TestCase):
    """A move and a VM that was promised 100 of 160 Mbit/s on one link."""

    def kept(self, start: float, seconds: int, held: bool) -> float:
        """Return in which part of the seconds the promise was kept."""
        watch = Watch("v", Promise({"out": 100.0}))
        watch.remember(-1.0, Reading({"out": 100.0}))
        grip, kept = Grip(start * MBIT), 0
        for second in range(seconds):
            rate = grip.rate / MBIT
            # Two flows share a full link by halves
            got = 100.0 if rate <= LINK - 100 else max(LINK / 2, LINK - rate)
            reading = Reading({"out": got}, full=got + rate >= 0.95 * LINK)
            kept += got >= 95.0
            if held:
                broken = watch.breaches(float(second), reading)
                grip, _ = hold(grip, dataclasses.replace(
                    seen(float(second)), breaches=broken, room=(
                        ROOM * LINK - watch.uses("out")) * MBIT), POLICY)
        return kept / seconds

    def test_kept(self) -> None:
        """From a good start nearly always; without the guard never."""
        self.assertGreaterEqual(self.kept(44.0, 600, True), 0.99)
        self.assertGreaterEqual(self.kept(160.0, 600, True), 0.95)
        self.assertEqual(self.kept(160.0, 600, False), 0.0)


if __name__ == "__main__":
    unittest.main()
