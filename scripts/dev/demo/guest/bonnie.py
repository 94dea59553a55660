#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Runs Bonnie++ in the guest.

``bonnie.py once SIZE CHARS`` prints its line of results. SIZE is that of its
file, CHARS what it reads and writes byte by byte, both in MiB; with 0 it
leaves those tests out.

``bonnie.py loop SIZE CHARS`` runs it again and again until it is interrupted,
and prints twice a second how many bytes the disk has read and written.
"""

from __future__ import annotations

import glob
import os
import signal
import subprocess
import sys
import threading
import time

FOLDER = "/srv/bonnie"
COUNTERS = "/sys/block/vda/stat"
SECTOR = 512
INTERVAL = 0.5


def command(size: str, chars: str) -> list[str]:
    """Without small files; it is not told the size of the RAM."""
    bytewise = f"-f{chars}" if int(chars) else "-f"
    return ["bonnie++", "-q", "-d", FOLDER, "-s", size, bytewise,
            "-n", "0", "-r", str(int(size) // 2), "-u", "root", "-m", "guest"]


def disk_bytes() -> int:
    """Read and written so far."""
    with open(COUNTERS, encoding="ascii") as stream:
        fields = stream.read().split()
    return SECTOR * (int(fields[2]) + int(fields[6]))


def count() -> None:
    """Prints the counter for ever."""
    while True:
        print(disk_bytes(), flush=True)
        time.sleep(INTERVAL)


def run(size: str, chars: str) -> str:
    """Runs it once; returns its results.

    Whatever happens, it leaves no process behind that has a file open.
    """
    with subprocess.Popen(command(size, chars), text=True,
                          stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
                          start_new_session=True) as process:
        try:
            return process.communicate()[0]
        finally:
            end(process)


def end(process: subprocess.Popen[str]) -> None:
    """Ends its children as well, and removes their files."""
    try:
        while True:
            os.killpg(process.pid, signal.SIGKILL)
            process.poll()
            time.sleep(0.05)
    except ProcessLookupError:
        pass    # all are gone
    for path in glob.glob(f"{FOLDER}/*"):
        os.unlink(path)


def main() -> None:
    """As the arguments say."""
    size, chars = sys.argv[2:4]
    if sys.argv[1] == "once":
        print(run(size, chars))
        return
    threading.Thread(target=count, daemon=True).start()
    while run(size, chars):
        pass


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        pass
