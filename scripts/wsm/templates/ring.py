# SPDX-License-Identifier: GPL-2.0-or-later
"""Which nodes of a ring keep the page of a template, and what they are asked.

As migration/wsm/memory/ring.c has it; tests/unit/wsm/wsm-ring-vectors.h holds
both to the same answers.
"""

import base64
import hashlib
from collections.abc import Iterable

MAX_NODES, MAX_REPLICAS = 64, 3
MASK = (1 << 64) - 1


def seed(name: str) -> int:
    """Return what stands for the node @name in its scores."""
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big")


def score(node: int, page: bytes) -> int:
    """Return how much the node of this seed is for the hash @page."""
    value = node ^ int.from_bytes(page[:8], "big")
    value = (value ^ value >> 33) * 0xff51afd7ed558ccd & MASK
    value = (value ^ value >> 33) * 0xc4ceb9fe1a85ec53 & MASK
    return value ^ value >> 33


def choose(seeds: Iterable[int], page: bytes, replicas: int) -> list[int]:
    """Return the indices of those @seeds that keep the hash @page."""
    scores = sorted(((score(node, page), index)
                     for index, node in enumerate(seeds)), reverse=True)
    return [index for _, index in scores[:replicas]]


def key(page: bytes) -> bytes:
    """Return the name under which a node keeps the page of this hash."""
    return base64.b64encode(page)
