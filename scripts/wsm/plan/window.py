# SPDX-License-Identifier: GPL-2.0-or-later
"""Times of a week, such as "Mon-Fri 22:00-06:00; Sat,Sun".

Parts are separated by ";".  Each has days, or all of them, and hours, or the
whole day.  Hours that go past midnight belong to the day on which they begin.
"""

import re
from typing import Iterator

DAY = 86400
WEEK = 7 * DAY
DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
PART = re.compile(r"(?:([a-z][a-z,-]*)(?:\s+|$))?"
                  r"(?:(\d{1,2}):(\d\d)-(\d{1,2}):(\d\d))?", re.IGNORECASE)


def days_of(text: str) -> list[int]:
    """Return the days, Monday is 0; raise ValueError."""
    found = []
    for each in text.lower().split(","):
        first, _, last = each.partition("-")
        begin, end = DAYS.index(first), DAYS.index(last or first)
        found += [day % 7 for day in range(begin, end + 1 + 7 * (end < begin))]
    return found


def spans_of(part: str) -> Iterator[tuple[int, int]]:
    """Yield the (begin, end) in seconds of the week; raise ValueError."""
    found = PART.fullmatch(part.strip())
    if not found or not found[0]:
        raise ValueError("is no time")
    begin, end = 0, DAY
    if found[2]:
        begin, end = (60 * (60 * int(found[hour]) + int(found[hour + 1]))
                      for hour in (2, 4))
        if max(begin, end) > DAY or max(int(found[3]), int(found[5])) > 59:
            raise ValueError("is no time of a day")
    end += DAY * (end <= begin)
    for day in days_of(found[1]) if found[1] else range(7):
        yield day * DAY + begin, day * DAY + end


def problems(text: str) -> Iterator[str]:
    """Yield what is wrong with times."""
    for part in filter(str.strip, text.split(";")):
        try:
            list(spans_of(part))
        except ValueError:
            yield (f"{part.strip()[:80]!r} is no time such as "
                   "\"Mon-Fri 22:00-06:00\"")


def is_in(text: str, at: float) -> bool:
    """Return whether @at, in seconds since a Monday began, is one of them."""
    for part in filter(str.strip, text.split(";")):
        for begin, end in spans_of(part):
            if (at - begin) % WEEK < end - begin:
                return True
    return False


def name_of(at: float) -> str:
    """Return "Mon 13:05"."""
    day, rest = divmod(int(at) % WEEK, DAY)
    return f"{DAYS[day].title()} {rest // 3600:02}:{rest // 60 % 60:02}"
