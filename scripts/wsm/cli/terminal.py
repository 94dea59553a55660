# SPDX-License-Identifier: GPL-2.0-or-later
"""What people and programs read: plain lines, JSON, one line of progress."""

import json
import re
import sys
import time
from typing import Any, Mapping, Sequence

from wsm.cli.outlook import progress_line
from wsm.cli.home import Move
from wsm.plan.recovery import Step

SECONDS = 10.0          # between lines where there is no terminal


# Neither control characters nor those that turn the direction of a text
UNSAFE = re.compile("[^\x20-\x7e\xa0-\ud7ff\ue000-\U0010ffff]"
                    "|[\u200b-\u200f\u2028-\u202e\u2066-\u2069\ufeff]")


def plain(line: str) -> str:
    """Return a line that does nothing to a terminal."""
    return UNSAFE.sub("?", line)


def say(line: str = "") -> None:
    """Print a line at once."""
    print(plain(line), flush=True)


def say_json(value: Any) -> None:
    """Print a value for programs."""
    print(json.dumps(value, indent=4, sort_keys=True), flush=True)


def tell(as_json: bool, line: str, value: Any) -> int:
    """Print a line for people or a value for programs; return 0."""
    if as_json:
        say_json(value)
    else:
        say(line)
    return 0


def columns(rows: Sequence[tuple[str, ...]]) -> list[str]:
    """Return rows as lines with columns; the first row is their head."""
    widths = [max(map(len, column)) for column in zip(*rows)]
    return ["  ".join(cell.ljust(width)
                      for cell, width in zip(row, widths)).rstrip()
            for row in rows]


def table(rows: Sequence[tuple[str, ...]]) -> None:
    """Print rows in columns."""
    for line in columns(rows):
        say(line)


class Progress:
    """Shows a move while it runs."""

    def __init__(self, quiet: bool) -> None:
        self.quiet = quiet
        self.last = ""
        self.told = 0.0
        self.width = 0
        self.live = sys.stderr.isatty()

    def show(self, move: Move, step: Step, figures: Mapping[str, Any]) -> None:
        """Show how far it is."""
        if self.quiet:
            return
        line = f"{move.vm}: {progress_line(figures, move)}"
        if step.alarm or step.person:
            line = f"{move.vm}: {step.text}"
        now = time.monotonic()
        if self.live:
            text = plain(line)[:200]
            print("\r" + text.ljust(self.width), end="", file=sys.stderr,
                  flush=True)
            self.width = len(text)
        elif line != self.last and (now - self.told > SECONDS or step.alarm
                                    or figures.get("phase", "") not in
                                    self.last):
            print(plain(line), file=sys.stderr, flush=True)
            self.told, self.last = now, line

    def done(self) -> None:
        """Leave the line."""
        if self.live and self.width and not self.quiet:
            print(file=sys.stderr)
        self.width = 0
