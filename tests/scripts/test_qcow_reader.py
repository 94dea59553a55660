# SPDX-License-Identifier: GPL-2.0-or-later
"""Tests of tests/crash/qcow.py: small images that are made by hand."""

import unittest

from dev.rig.basics import TestFailure
from tests.crash.qcow import HEAD, MAGIC, ZEROES, Qcow2

CLUSTER = 512
A, B = b"A" * CLUSTER, b"B" * CLUSTER
# Clusters: head, table of counts, counts, L1, L2, two of data
COUNTED = 7
COPIED = 1 << 63


def head(**fields: int) -> bytes:
    """The first cluster."""
    values = {"magic": MAGIC, "version": 3, "backing_offset": 0,
              "backing_size": 0, "cluster_bits": 9, "size": 4 * CLUSTER,
              "crypt": 0, "l1_size": 1, "l1_offset": 3 * CLUSTER,
              "counts_offset": CLUSTER, "counts_clusters": 1, "snapshots": 0,
              "snapshots_offset": 0, "incompatible": 0, "compatible": 0,
              "autoclear": 0, "count_order": 4, "length": HEAD.size, **fields}
    return HEAD.pack(*values.values()).ljust(CLUSTER, b"\0")


def numbers(size: int, *values: int) -> bytes:
    """A cluster of numbers."""
    return b"".join(value.to_bytes(size) for value in values).ljust(
        CLUSTER, b"\0")


def image(*l2: int, counts: tuple[int, ...] = (1,) * COUNTED,
          data: bytes = A + B, **fields: int) -> bytes:
    """An image with these entries in its L2 table."""
    return (head(**fields) + numbers(8, 2 * CLUSTER) + numbers(2, *counts)
            + numbers(8, 4 * CLUSTER | COPIED) + numbers(8, *l2) + data)


class Qcow2Test(unittest.TestCase):
    """What the guest sees, and what is damage."""

    def test_disk(self) -> None:
        """Clusters, holes, zeroes, and what is behind the end of the file."""
        first, second = 5 * CLUSTER | COPIED, 6 * CLUSTER | COPIED
        self.assertEqual(Qcow2(image(second, 0, first)).disk(),
                         B + bytes(CLUSTER) + A + bytes(CLUSTER))
        self.assertEqual(Qcow2(image(first | ZEROES, ZEROES)).disk(),
                         bytes(4 * CLUSTER))
        self.assertEqual(Qcow2(image(first, second, data=A + B[:7],
                                     size=2 * CLUSTER - 1)).disk(),
                         A + B[:7] + bytes(CLUSTER - 8))
        nothing = bytearray(image())
        nothing[3 * CLUSTER:4 * CLUSTER] = bytes(CLUSTER)
        self.assertEqual(Qcow2(bytes(nothing)).disk(), bytes(4 * CLUSTER))

    def test_damage(self) -> None:
        """A cluster that somebody else may get, or has."""
        first = 5 * CLUSTER
        for damaged in (image(first, first), image(4 * CLUSTER),
                        image(first, counts=(1,) * 5),
                        image(first | ZEROES, counts=(1,) * 5),
                        image(0, counts=(1,) * 4)):
            with self.assertRaises(TestFailure):
                Qcow2(damaged).disk()

    def test_not_ours(self) -> None:
        """Whatever else an image may have is not overlooked."""
        for fields in ({"version": 2}, {"incompatible": 2}, {"snapshots": 1},
                       {"count_order": 3}, {"backing_offset": 1}):
            with self.assertRaises(TestFailure):
                Qcow2(head(**fields))
        for data in (b"", bytes(CLUSTER)):
            with self.assertRaises(TestFailure):
                Qcow2(data)
        with self.assertRaises(TestFailure):
            Qcow2(image(1 << 62 | 5 * CLUSTER)).disk()
