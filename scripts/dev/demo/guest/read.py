#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Reads the guest's files again and again, so that they are in its cache.

The argument is how many KiB a second at most, 0: as fast as it can. Says
"begin", and "read" after each pass.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator

FOLDERS = ("/usr", "/srv", "/var/lib")
PIECE = 64 << 10


def pieces() -> Iterator[int]:
    """Reads all files, and yields how many bytes each step read."""
    for folder in FOLDERS:
        for path, _, names in os.walk(folder):
            for name in sorted(names):
                try:
                    with open(os.path.join(path, name), "rb") as file:
                        while data := file.read(PIECE):
                            yield len(data)
                except OSError:
                    pass    # it is gone, or no file


def read(rate: int) -> None:
    """Reads all, at this rate in bytes per second; 0: without limit."""
    due = time.monotonic()
    for count in pieces():
        if rate:
            due += count / rate
            time.sleep(max(0.0, due - time.monotonic()))


if __name__ == "__main__":
    print("begin", flush=True)
    while True:
        read(int(sys.argv[1]) << 10)
        print("read", flush=True)
