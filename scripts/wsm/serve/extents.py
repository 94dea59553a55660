# SPDX-License-Identifier: GPL-2.0-or-later
"""What is still to be sent of a disk.  Does no I/O."""

import bisect
from typing import Iterator, Optional


class Extents:
    """A set of bytes of a disk, as ranges [begin, end)."""

    def __init__(self) -> None:
        self.begins: list[int] = []
        self.ends: list[int] = []
        self.total = 0

    def __bool__(self) -> bool:
        return bool(self.begins)

    def __iter__(self) -> Iterator[tuple[int, int]]:
        return iter(zip(self.begins, self.ends))

    def first(self) -> tuple[int, int]:
        """Return the first range; there must be one."""
        return self.begins[0], self.ends[0]

    def add(self, begin: int, end: int) -> None:
        """Add a range, which joins those that it touches."""
        if begin >= end:
            return
        low = bisect.bisect_left(self.ends, begin)
        high = bisect.bisect_right(self.begins, end)
        if low < high:
            begin = min(begin, self.begins[low])
            end = max(end, self.ends[high - 1])
        self._replace(low, high, [(begin, end)])

    def cut(self, begin: int, end: int) -> None:
        """Take a range out."""
        low = bisect.bisect_right(self.ends, begin)
        high = bisect.bisect_left(self.begins, end)
        if begin < end and low < high:
            rest = [(self.begins[low], begin), (end, self.ends[high - 1])]
            self._replace(low, high, [(a, b) for a, b in rest if a < b])

    def within(self, begin: int, end: int) -> list[tuple[int, int]]:
        """Return the parts of a range that are in."""
        low = bisect.bisect_right(self.ends, begin)
        high = bisect.bisect_left(self.begins, end)
        return [(max(begin, self.begins[i]), min(end, self.ends[i]))
                for i in range(low, high) if begin < end]

    def _replace(self, low: int, high: int,
                 ranges: list[tuple[int, int]]) -> None:
        """Put @ranges in the place of those from @low up to @high."""
        self.total -= sum(self.ends[low:high]) - sum(self.begins[low:high])
        self.total += sum(end - begin for begin, end in ranges)
        self.begins[low:high] = [begin for begin, _ in ranges]
        self.ends[low:high] = [end for _, end in ranges]


class Todo:
    """
    Each byte of a disk is to be sent, on its way, or done with.

    What got lost on its way, perhaps with a read of the guest that waits for
    it, comes first.
    """

    def __init__(self, size: int) -> None:
        self.size = size
        self.fresh = Extents()
        self.again = Extents()
        self.away = 0           # bytes that are on their way
        self.restart()

    def restart(self) -> None:
        """All of it is to be sent, once more; nothing may be on its way."""
        assert not self.away
        self.fresh.add(0, self.size)

    def left(self) -> int:
        """Return how many bytes the destination has not confirmed."""
        return self.fresh.total + self.again.total + self.away

    def next(self) -> Optional[tuple[int, int]]:
        """Return the range that should be sent next."""
        for extents in (self.again, self.fresh):
            if extents:
                return extents.first()
        return None

    def take(self, begin: int, end: int) -> None:
        """A range, all of which is to be sent, goes on its way."""
        self.forget(begin, end)
        self.away += end - begin

    def take_first(self, begin: int, end: int) -> Optional[tuple[int, int]]:
        """The first part of the range that is to be sent goes on its way."""
        spans = [span for extents in (self.again, self.fresh)
                 for span in extents.within(begin, end)]
        if not spans:
            return None
        first = min(spans)
        self.take(*first)
        return first

    def lacks(self, begin: int, end: int,
              ranges: list[tuple[int, int]]) -> None:
        """Of a range, only these are to be sent, whatever is on its way."""
        self.forget(begin, end)
        for first, last in ranges:
            self.fresh.add(first, last)

    def arrived(self, begin: int, end: int) -> None:
        """A range that was on its way is at the destination."""
        self.away -= end - begin

    def lost(self, begin: int, end: int) -> None:
        """A range that was on its way is not."""
        self.away -= end - begin
        self.again.add(begin, end)

    def forget(self, begin: int, end: int) -> None:
        """The destination needs a range no more."""
        self.again.cut(begin, end)
        self.fresh.cut(begin, end)
