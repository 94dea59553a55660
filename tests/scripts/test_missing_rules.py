# SPDX-License-Identifier: GPL-2.0-or-later
"""The rules of the map of missing blocks, tried out in full."""

import unittest

from tests.property.missing_rules import Rule, search

WRITES, LIVES = 3, 2


class RulesTest(unittest.TestCase):
    """All states of the model."""

    def test_rules(self) -> None:
        """No crash leaves what the guest must not find."""
        states, violation = search(None, WRITES, LIVES)
        self.assertIsNone(violation)
        self.assertGreater(states, 10000)

    def test_each_rule_is_needed(self) -> None:
        """Without it there is a crash that loses data."""
        for rule in Rule:
            with self.subTest(rule=rule.name):
                self.assertIsNotNone(search(rule, WRITES, LIVES)[1],
                                     rule.value)
