# SPDX-License-Identifier: GPL-2.0-or-later
"""What the daemon does with the policy that it has if nobody says another.

The day takes a minute or two; WSM_LONG=1 in the environment asks for it.
"""

import os
import random
import unittest

from wsm.plan.policy import Policy

from tests.scripts.controller.test_rounds import World

DAY = 8640                      # rounds
YOUNG = 92                      # in which a new host takes nothing


class CalmTest(World):
    """Three hosts and a policy that is not made for tests."""

    def wobble(self, chance: random.Random, number: int) -> None:
        """Let all VMs want a bit more or less, and one for 20 s all it can."""
        for vm in self.hosts.vms.values():
            vm.cpu = 0.6 * chance.uniform(0.5, 1.5)
        if number % 30 < 2:
            for name in ("db1", "web"):
                self.hosts.vms[name].cpu = 2.4

    @unittest.skipUnless(os.environ.get("WSM_LONG"), "WSM_LONG=1 asks for it")
    def test_quiet_day(self) -> None:
        """24 hours of VMs that hardly do anything, but for spikes: no move."""
        made, chance = self.make(policy=Policy()), random.Random(1)
        self.round(made, YOUNG)
        for number in range(DAY):
            self.wobble(chance, number)
            self.round(made)
        self.assertEqual(self.hosts.orders, [])
        self.assertEqual(made.journal.ended_since(0), [])
        self.assertGreater(made.stats.rounds, DAY)

    def test_quiet_hour(self) -> None:
        """The same for an hour."""
        made, chance = self.make(policy=Policy()), random.Random(2)
        self.round(made, YOUNG)
        for number in range(DAY // 24):
            self.wobble(chance, number)
            self.round(made)
        self.assertEqual(self.hosts.orders, [])

    def test_liar(self) -> None:
        """One lying host: two moves an hour, then a person is asked."""
        made = self.make(policy=Policy())
        self.round(made, YOUNG)
        for number in range(8):
            self.hosts.add(f"v{number}", "alpha", 0.2)
        self.hosts.lies["alpha"] = lambda plain: (
            {**plain, "cpu": 4.4} if "seq" in plain else plain)
        breakers: tuple[str, ...] = ()
        moves = 0
        while not breakers and moves < 9:
            decision = self.round(made)
            self.wait_moves(made)
            assert decision
            self.assertLessEqual(len(decision.steps), 1)
            moves += len(decision.steps)
            breakers = decision.breakers
        self.assertIn("did not cool alpha", breakers[0])
        self.assertLessEqual(moves, 4)
        count = len(self.hosts.orders)
        for _ in range(360):
            self.round(made)
        self.assertEqual(len(self.hosts.orders), count)

    def test_failing(self) -> None:
        """Moves that fail: the third opens the breaker, in whichever hour."""
        made = self.make(policy=Policy())
        self.round(made, YOUNG)
        self.hosts.refuse = "prepare"
        self.heat()
        # So hot that it is no mere precaution to move somebody
        self.hosts.vms["db1"].cpu = 2.85
        breakers: tuple[str, ...] = ()
        rounds = 0
        while not breakers and rounds < 1000:
            decision = self.round(made)
            self.wait_moves(made)
            assert decision
            breakers, rounds = decision.breakers, rounds + 1
        self.assertIn("3 of 3 moves failed within 6 h", breakers[0])
