# SPDX-License-Identifier: GPL-2.0-or-later
"""Collect the results of test cases, and run programs that speak TAP."""

import os
import re
import signal
import subprocess
import tempfile
import time
from typing import Any, Iterator

OK, NOT_OK, SKIP = "ok", "not ok", "skip"
SKIP_STATUS = 77

TAP_LINE = re.compile(r"^(ok|not ok)\b[ \t]*(\d*)[ \t]*-?[ \t]*(.*)$")
TAP_PLAN = re.compile(r"^1\.\.(\d+)")
SKIPPED = re.compile(r"\s*#\s*skip\b:?\s*", re.I)


Case = tuple[str, str, str]                     # status, name, why


class CannotCheck(Exception):
    """Something that a check needs is not there; says what."""


class Results:
    """The cases run so far; each is printed as soon as it is known."""

    def __init__(self) -> None:
        self.cases: list[Case] = []

    def add(self, status: str, name: str, why: str = "") -> None:
        """Record one case."""
        self.cases.append((status, name, why))
        print(f"{status} {name}" + (f" # {why}" if why else ""), flush=True)

    def count(self, status: str) -> int:
        """Return how many cases ended with @status."""
        return sum(case[0] == status for case in self.cases)

    def names(self, status: str) -> list[str]:
        """Return the names of the cases that ended with @status."""
        return [name for what, name, _ in self.cases if what == status]

    def finish(self) -> int:
        """Print the summary; return the exit status."""
        failed = [case for case in self.cases if case[0] == NOT_OK]
        if failed:
            print("\nFailed:")
            for _, name, why in failed:
                print(f"  {name}" + (f": {why}" if why else ""))
        passed, skipped = self.count(OK), self.count(SKIP)
        if not passed and not failed:
            print("no test has run")
        line = f"{passed} passed, {len(failed)} failed"
        print(line + (f", {skipped} skipped" if skipped else ""), flush=True)
        return 1 if failed or not passed else 0


def stop(process: subprocess.Popen[bytes]) -> None:
    """Kill @process and what it started (it leads its process group)."""
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        pass
    process.wait()


def capture(cmd: list[str], timeout: float,
            **kwargs: Any) -> tuple[list[str], list[str], str]:
    """
    Run @cmd for at most @timeout seconds.

    Returns (lines of its output, error lines, what went wrong or "").
    """
    with tempfile.TemporaryFile("w+", errors="replace") as out, \
            tempfile.TemporaryFile("w+", errors="replace") as err:
        with subprocess.Popen(cmd, stdin=subprocess.DEVNULL, stdout=out,
                              stderr=err, start_new_session=True,
                              **kwargs) as process:
            try:
                status = process.wait(timeout)
                why = f"exit status {status}" if status else ""
            except subprocess.TimeoutExpired:
                why = f"no end after {timeout:.0f} s"
            stop(process)
        out.seek(0)
        err.seek(0)
        return out.read().splitlines(), err.read().splitlines(), why


def parse_tap(lines: list[str]) -> Iterator[Case]:
    """
    Yield (status, name, why) for each case in the TAP output @lines.

    Cases that the plan announced and that are not there are one failure.
    """
    planned, seen = None, 0
    for line in lines:
        if plan := TAP_PLAN.match(line):
            planned = int(plan.group(1))
        if not (found := TAP_LINE.match(line)):
            continue
        seen += 1
        verdict, number, text = found.groups()
        name, *reason = SKIPPED.split(text, 1)
        name = name.strip() or number
        if reason and verdict == OK:
            yield SKIP, name, reason[0].strip()
        else:
            yield verdict, name, ""
    if planned is not None and seen < planned:
        yield NOT_OK, "plan", f"{planned} cases announced, {seen} ended"


def run_tap(results: Results, title: str, cmd: list[str], timeout: float,
            **kwargs: Any) -> None:
    """
    Run the TAP program @cmd; add its cases to @results as @title:NAME.

    A program that fails without a failed case is a failed case itself.
    """
    begin = time.monotonic()
    lines, errors, why = capture(cmd, timeout, **kwargs)
    cases = list(parse_tap(lines))
    for status, name, reason in cases:
        results.add(status, f"{title}:{name}", reason)
    bad = any(status == NOT_OK for status, _, _ in cases)
    if why and not bad:
        results.add(NOT_OK, title, why)
        bad = True
    elif not cases:
        results.add(SKIP, title, "no cases")
    if bad:
        print("\n".join(f"# {line}" for line in (lines + errors)[-60:]))
    print(f"# {title}: {time.monotonic() - begin:.1f} s", flush=True)


def run_plain(results: Results, title: str, cmd: list[str], timeout: float,
              **kwargs: Any) -> None:
    """Run @cmd as one case: 0 is a pass, 77 a skip, all else a failure."""
    lines, errors, why = capture(cmd, timeout, **kwargs)
    if not why:
        results.add(OK, title)
        return
    print("\n".join(f"# {line}" for line in (lines + errors)[-60:]))
    if why == f"exit status {SKIP_STATUS}":
        results.add(SKIP, title, (lines + errors + ["no reason"])[-1])
    else:
        results.add(NOT_OK, title, why)
