# SPDX-License-Identifier: GPL-2.0-or-later
"""Long commands of the demo: output to a log, one live line for the user."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path

from dev.common import Failure

WIDTH = 100
QUIET_SECONDS = 15.0
CLEANUP_SECONDS = 20.0
# A line of scripts/build that the user should not have to look for
ANNOUNCED = "=== first build"


class LiveLine:
    """One line that is written over on a terminal.

    Where output is no terminal, a line is printed every few seconds instead.
    """

    def __init__(self, quiet_seconds: float = QUIET_SECONDS) -> None:
        self._terminal = sys.stdout.isatty()
        self._quiet = quiet_seconds
        self._printed = 0.0
        self._shown = False

    def show(self, text: str) -> None:
        """Shows text now (terminal), or if the last one is old enough."""
        if self._terminal:
            width = shutil.get_terminal_size().columns - 1
            sys.stdout.write(f"\r\033[K{text[:width]}")
            sys.stdout.flush()
            self._shown = True
        elif time.monotonic() - self._printed >= self._quiet:
            self._printed = time.monotonic()
            print(text, flush=True)

    def keep(self, text: str) -> None:
        """Prints text as a line that stays."""
        if self._shown:
            sys.stdout.write("\r\033[K")
            self._shown = False
        print(text, flush=True)


def run_logged(title: str, command: Sequence[str], log: Path,
               remedy: str) -> None:
    """Runs command, shows its last line; its whole output goes to log.

    What it announces stays on the screen.

    :raise Failure: the command failed; has the log's last lines.
    """
    line = LiveLine()
    started = time.monotonic()
    last = [""]
    news: list[str] = []
    log.parent.mkdir(parents=True, exist_ok=True)
    with open(log, "w", encoding="utf-8") as output:
        # pylint: disable-next=consider-using-with
        job = subprocess.Popen(command, stdin=subprocess.DEVNULL, text=True,
                               errors="replace", stdout=subprocess.PIPE,
                               stderr=subprocess.STDOUT,
                               start_new_session=True)
        assert job.stdout is not None
        stream = job.stdout

        def copy() -> None:
            for text in stream:
                output.write(text)
                if text.startswith(ANNOUNCED):
                    news.append(text[4:].strip())
                last[0] = text.strip() or last[0]

        reader = threading.Thread(target=copy, daemon=True)
        reader.start()
        try:
            while job.poll() is None:
                elapsed = time.monotonic() - started
                while news:
                    line.keep(f"{title}: {news.pop(0)}")
                line.show(f"{title}: {elapsed:4.0f} s  {last[0]}"[:WIDTH])
                time.sleep(0.2)
        finally:
            _end_group(job)
            reader.join(5)
    elapsed = time.monotonic() - started
    if job.returncode:
        line.keep(f"{title}: failed after {elapsed:.0f} s")
        tail = log.read_text(encoding="utf-8").splitlines()[-15:]
        raise Failure(f"{title}: '{command[0]} ...' exited with "
                      f"{job.returncode} (log: {log}):\n  "
                      + "\n  ".join(tail) + f"\n{remedy}")
    line.keep(f"{title}: done in {elapsed:.0f} s")


def _end_group(job: subprocess.Popen[str]) -> None:
    """Ends a job and its children, with time to clean up after themselves."""
    if job.poll() is not None:
        return
    for number in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(job.pid, number)
            job.wait(CLEANUP_SECONDS)
            return
        except subprocess.TimeoutExpired:
            continue
        except ProcessLookupError:
            return
