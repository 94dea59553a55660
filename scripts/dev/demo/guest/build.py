#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Builds many small files in the guest, again and again, as make would.

Each step reads one module of Python's library, compiles it, writes source,
code and a record of it to a new folder, and removes those of the pass before.
After the first pass all steps do the same, so that a long one is not of our
making. Prints a line after each step; the argument says how many steps there
are to be in a second, at most.
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
PASS = 100                          # modules; a pass is over soon
OUTPUT = "/srv/build"


def sources() -> list[str]:
    """Returns the modules that are compiled."""
    paths = glob.glob("/usr/lib/python3*/**/*.py", recursive=True)
    return sorted(path for path in paths if SMALLEST
                  <= os.path.getsize(path) <= LARGEST)[:PASS]


def outputs(path: str, number: int) -> list[str]:
    """The three files that this pass makes of one module."""
    name = path.strip("/").replace("/", "-")
    target = os.path.join(OUTPUT, str(number), name)
    return [target, f"{target}.code", f"{target}.d"]


def build(path: str, number: int) -> None:
    """One step of this pass."""
    with open(path, "rb") as stream:
        text = stream.read()
    code = marshal.dumps(compile(text, path, "exec"))
    record = f"{outputs(path, number)[0]}: {path}\n".encode()
    for output, data in zip(outputs(path, number), (text, code, record)):
        with open(output, "wb") as stream:
            stream.write(data)
    for output in outputs(path, number - 1):
        if os.path.exists(output):
            os.unlink(output)


def main() -> None:
    """Builds until it is interrupted."""
    interval = 1 / int(sys.argv[1])
    due = time.monotonic()
    shutil.rmtree(OUTPUT, ignore_errors=True)
    paths = sources()
    for number in itertools.count():
        os.makedirs(os.path.join(OUTPUT, str(number)))
        for path in paths:
            build(path, number)
            print(path, flush=True)
            due = max(due + interval, time.monotonic())
            time.sleep(max(0.0, due - time.monotonic()))
        if number:
            os.rmdir(os.path.join(OUTPUT, str(number - 1)))


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        pass
