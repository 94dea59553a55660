# SPDX-License-Identifier: GPL-2.0-or-later
"""Tests of scripts/wsm/templates/ring.py: which nodes of a ring keep which page."""

import hashlib
import re
import unittest
from pathlib import Path

from wsm.templates import ring

VECTORS = (Path(__file__).resolve().parents[1]
           / "unit/wsm/wsm-ring-vectors.h")
VECTOR = re.compile(r'WSM_RING_VECTOR\("(.*)", "(.*)",\s+"(.*)", "(.*)"\)')


class ChooseTest(unittest.TestCase):
    """Who keeps what."""

    def test_vectors(self) -> None:
        """QEMU and we find the same nodes, and keys."""
        vectors = VECTOR.findall(VECTORS.read_text(encoding="ascii"))
        self.assertGreater(len(vectors), 20)
        for names, text, key, expected in vectors:
            page = hashlib.sha256(text.encode()).digest()
            seeds = [ring.seed(name) for name in names.split()]
            chosen = ring.choose(seeds, page, ring.MAX_REPLICAS)
            self.assertEqual(" ".join(map(str, chosen)), expected, names)
            self.assertEqual(ring.key(page).decode(), key)

    def test_replicas(self) -> None:
        """As many as are asked for, if there are."""
        seeds = [ring.seed(name) for name in "abc"]
        page = hashlib.sha256(b"page").digest()
        for replicas in 1, 2, 3:
            self.assertEqual(len(ring.choose(seeds, page, replicas)), replicas)
        self.assertEqual(ring.choose(seeds[:1], page, 2), [0])


if __name__ == "__main__":
    unittest.main()
