# SPDX-License-Identifier: GPL-2.0-or-later
"""How much of a guest's memory is in use, and how fast it is written.

Some of its pages are read from outside, a few times.  QEMU's own
calc-dirty-rate does the same, but has one window only, tells whole MiB per
second, and not how much is zeroes; it is asked where pages cannot be read.
"""

import asyncio
import contextlib
import os
import random
import re
import struct
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Mapping, Optional, Sequence

PAGE = os.sysconf("SC_PAGE_SIZE")
SAMPLE = 4096                   # pages
WINDOWS = (0.5, 1.0, 2.0)       # s
PRESENT, SWAPPED = 1 << 63, 1 << 62
MAPPING = re.compile(r"([0-9a-f]+)-([0-9a-f]+) rw..")
ELSEWHERE = 1                   # digest of a page that is not read


@dataclass(frozen=True)
class Memory:
    """What was seen."""

    used: int                   # bytes that are not zero
    # Window in seconds: bytes that were written in it
    dirty: Mapping[str, int] = field(default_factory=dict)


def blocks(pid: int, sizes: Sequence[int]) -> list[tuple[int, int]]:
    """Return (address, bytes) of mappings with the sizes of guest RAM."""
    wanted = Counter(sizes)
    found = []
    for line in Path(f"/proc/{pid}/maps").read_text("utf-8").splitlines():
        match = MAPPING.match(line)
        if match:
            start, end = int(match[1], 16), int(match[2], 16)
            if wanted[end - start] > 0:
                wanted[end - start] -= 1
                found.append((start, end - start))
    return found if not any(wanted.values()) else []


def places(ram: Sequence[tuple[int, int]], count: int = SAMPLE) -> list[int]:
    """Return the addresses of @count pages, anywhere."""
    pages = [(start, size // PAGE) for start, size in ram]
    total = sum(number for _, number in pages)
    found = []
    for index in sorted(random.sample(range(total), min(count, total))):
        for start, number in pages:
            if index < number:
                found.append(start + index * PAGE)
                break
            index -= number
    return found


def digests(pid: int, addresses: Sequence[int]) -> list[int]:
    """
    Return something of each page that changes with it; 0: zeroes.

    A page that is nowhere is not made by looking, nor brought from swap.
    """
    found = []
    with open(f"/proc/{pid}/pagemap", "rb", buffering=0) as table, open(
            f"/proc/{pid}/mem", "rb", buffering=0) as memory:
        for address in addresses:
            entry, = struct.unpack("<Q", os.pread(
                table.fileno(), 8, address // PAGE * 8))
            if entry & PRESENT:
                data = os.pread(memory.fileno(), PAGE, address)
                found.append(hash(data) or ELSEWHERE if data.strip(b"\0")
                             else 0)
            else:
                found.append(ELSEWHERE if entry & SWAPPED else 0)
    return found


async def look(pid: int, sizes: Sequence[int],
               windows: Sequence[float] = WINDOWS) -> Optional[Memory]:
    """Watch the memory of a QEMU; None if that cannot be done."""
    with contextlib.suppress(OSError, struct.error):
        ram = blocks(pid, sizes)
        if not ram:
            return None
        addresses = places(ram)
        total = sum(size for _, size in ram)
        first = await asyncio.to_thread(digests, pid, addresses)
        begun, dirty = time.monotonic(), {}
        for window in windows:
            await asyncio.sleep(begun + window - time.monotonic())
            now = await asyncio.to_thread(digests, pid, addresses)
            took = time.monotonic() - begun
            changed = sum(a != b for a, b in zip(first, now))
            dirty[f"{took:.2f}"] = total * changed // len(addresses)
        return Memory(total * sum(map(bool, first)) // len(addresses), dirty)
    return None
