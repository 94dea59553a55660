#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Fills memory with pages that are nowhere else, and holds them.

``fill.py MIB KIND``: with KIND 0 a page is like a program's own data, a third
of it random and the rest text that names the page; with 1 all is random, as
if encrypted. Says "ready" when it is filled.
"""

from __future__ import annotations

import os
import signal
import sys

PAGE = 4096
RANDOM = PAGE // 3


def fill(memory: bytearray, random: bool) -> None:
    """Writes each page, and each differently."""
    view = memoryview(memory)
    for number in range(len(memory) // PAGE):
        start = number * PAGE
        if random:
            view[start:start + PAGE] = os.urandom(PAGE)
            continue
        text = b"entry %d of the table, in use; " % number
        view[start:start + PAGE] = (
            os.urandom(RANDOM) + text * (PAGE // len(text)))[:PAGE].ljust(PAGE)


if __name__ == "__main__":
    held = bytearray(int(sys.argv[1]) << 20)
    fill(held, sys.argv[2] == "1")
    print("ready", flush=True)
    signal.pause()
