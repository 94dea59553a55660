# SPDX-License-Identifier: GPL-2.0-or-later
"""Tests of what failed attempts mean, and of memory that never converges."""

import unittest

from wsm.plan.outcome import Kind, Push, converge, kind_of, retry


class KindTest(unittest.TestCase):
    """Classes of failures."""

    def test_words(self) -> None:
        """By what QEMU says; the destination's last words count first."""
        for reason, last, kind in (
                ("ram_save_setup failed: Input/output error",
                 "UUID received is a and local is b", Kind.CONFIG),
                ("the destination refuses: machine type", "", Kind.CONFIG),
                ("the destination cannot use disk 'vd0': No space left on "
                 "device", "", Kind.SPACE),
                ("Failed to connect to '10.0.0.2:47000': Connection refused",
                 "", Kind.NETWORK),
                ("Unable to write to socket: Connection reset by peer", "",
                 Kind.LINK),
                ("migration was cancelled", "", Kind.CANCELLED),
                ("", "", Kind.LINK)):
            self.assertIs(kind_of(reason, last), kind, reason)

    def test_retry(self) -> None:
        """Twice, elsewhere or not, or not at all."""
        self.assertIsNone(retry(Kind.CONFIG, 1))
        self.assertIsNone(retry(Kind.CANCELLED, 1))
        one, two = retry(Kind.LINK, 1), retry(Kind.SPACE, 2)
        assert one and two
        self.assertEqual((one.wait, one.elsewhere), (30.0, False))
        self.assertEqual((two.wait, two.elsewhere), (120.0, True))
        self.assertIsNone(retry(Kind.LINK, 3))


class ConvergeTest(unittest.TestCase):
    """Memory that is not sent as fast as it is written."""

    def pushes(self, most: float, throttle: bool,
               postcopy: bool) -> list[tuple[Push, float]]:
        """Return all that is tried, in order."""
        found: list[tuple[Push, float]] = []
        while not found or found[-1][0] is not Push.CANCEL:
            found.append(converge([5, 5, 6], 0.3, most, len(found), throttle,
                                  postcopy))
        return found

    def test_patience(self) -> None:
        """Rounds that shrink need no help."""
        none: list[int] = []
        for left in (none, [9, 9], [9, 8, 9], [9, 9, 8]):
            self.assertIs(converge(left, 0.3, 1.0, 0, True, True)[0],
                          Push.WAIT)

    def test_ladder(self) -> None:
        """Downtime up to what was promised, then what is allowed."""
        self.assertEqual(
            [(push, round(limit, 2))
             for push, limit in self.pushes(0.7, True, True)],
            [(Push.DOWNTIME, 0.45), (Push.DOWNTIME, 0.6),
             (Push.DOWNTIME, 0.7), (Push.THROTTLE, 0.7),
             (Push.POSTCOPY, 0.7), (Push.CANCEL, 0.7)])
        self.assertEqual(self.pushes(0.3, False, False),
                         [(Push.CANCEL, 0.3)])
