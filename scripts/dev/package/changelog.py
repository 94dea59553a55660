# SPDX-License-Identifier: GPL-2.0-or-later
"""Debian changelogs, as text.

packaging/debian/changelog is kept by hand: the version of its newest entry
is the revision of all our packages, and its lines say what is new in both.
"""

import re
from dataclasses import dataclass

from dev.common import Failure

HEAD = re.compile(r"(?P<source>\S+) \((?P<version>[^)]+)\) (?P<suite>\S+);"
                  r" urgency=(?P<urgency>\S+)")
TRAILER = re.compile(r" -- (?P<who>.+?)  (?P<date>\S.*)")


@dataclass(frozen=True)
class Entry:
    """One entry of a changelog."""

    source: str
    version: str
    suite: str
    changes: str                # lines, each with its end
    who: str                    # name and address
    date: str

    def text(self) -> str:
        """Return it as it is written in a changelog."""
        return (f"{self.source} ({self.version}) {self.suite}; "
                f"urgency=medium\n\n{self.changes}\n"
                f" -- {self.who}  {self.date}\n")


def newest(text: str, where: str = "debian/changelog") -> Entry:
    """Return the entry at the top of a changelog."""
    lines = text.splitlines()
    head = HEAD.fullmatch(lines[0]) if lines else None
    end = next((number for number, line in enumerate(lines)
                if TRAILER.fullmatch(line)), None)
    if not head or not end:
        raise Failure(f"{where}: its first entry is none")
    trailer = TRAILER.fullmatch(lines[end])
    assert trailer
    changes = "\n".join(lines[1:end]).strip("\n")
    return Entry(head["source"], head["version"], head["suite"],
                 changes + "\n", trailer["who"], trailer["date"])


def put_before(entry: Entry, text: str) -> str:
    """Return the changelog @text with @entry as its newest."""
    return f"{entry.text()}\n{text}"
