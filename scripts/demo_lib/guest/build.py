#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Builds many small files in the guest, again and again, as make would.

Each step reads one module of Python's library, compiles it, and writes
source, code and a record of it. A pass over all of them goes to a new folder
and then removes that of the pass before. Prints a line after each step; the
argument says how many steps there are to be in a second, at most.
"""

from __future__ import annotations

import glob
import itertools
import marshal
import os
import shutil
import sys
import time

SMALLEST, LARGEST = 500, 8000       # bytes of source
OUTPUT = "/srv/build"


def sources() -> list[str]:
    """Returns the modules that are compiled."""
    paths = glob.glob("/usr/lib/python3*/**/*.py", recursive=True)
    return sorted(path for path in paths
                  if SMALLEST <= os.path.getsize(path) <= LARGEST)


def build(path: str, folder: str) -> None:
    """Makes the three outputs of one module."""
    with open(path, "rb") as stream:
        text = stream.read()
    code = marshal.dumps(compile(text, path, "exec"))
    target = os.path.join(folder, path.strip("/").replace("/", "-"))
    for suffix, data in (("", text), (".code", code),
                         (".d", f"{target}: {path}\n".encode())):
        with open(target + suffix, "wb") as stream:
            stream.write(data)


def main() -> None:
    """Builds until it is interrupted."""
    interval = 1 / int(sys.argv[1])
    due = time.monotonic()
    shutil.rmtree(OUTPUT, ignore_errors=True)
    for number in itertools.count():
        folder = f"{OUTPUT}/{number}"
        os.makedirs(folder)
        for path in sources():
            build(path, folder)
            print(path, flush=True)
            due = max(due + interval, time.monotonic())
            time.sleep(max(0.0, due - time.monotonic()))
        shutil.rmtree(f"{OUTPUT}/{number - 1}", ignore_errors=True)


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        pass
