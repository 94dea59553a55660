# SPDX-License-Identifier: GPL-2.0-or-later
"""Times as people type them."""

import re
import time

from wsm.cli.home import CliError

UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
FORMS = ("%Y-%m-%d %H:%M:%S", "%Y-%m-%d %H:%M", "%Y-%m-%dT%H:%M:%S")
TODAY = ("%H:%M:%S", "%H:%M")
DAY = 86400


def clock(at: float) -> str:
    """Return a time for people, as moment() takes it."""
    return time.strftime(FORMS[0], time.localtime(at))


def moment(text: str, now: float) -> float:
    """
    Return the time that @text means, s after 1970; raise CliError.

    "2026-11-28 14:03", "14:03" (the last one), "10m" (ago).
    """
    if found := re.fullmatch(r"-?(\d+)\s*([smhd])( ago)?", text):
        return now - int(found[1]) * UNITS[found[2]]
    today = time.strftime("%Y-%m-%d ", time.localtime(now))
    for form in (*FORMS, *TODAY):
        try:
            at = time.mktime(time.strptime(
                today + text if form in TODAY else text,
                "%Y-%m-%d " + form if form in TODAY else form))
        except (ValueError, OverflowError):
            continue
        return at - DAY if form in TODAY and at > now else at
    raise CliError(f"{text[:40]!r} is no time: 14:03, \"2026-11-28 14:03\", or "
                   "10m for ten minutes ago", 2)
