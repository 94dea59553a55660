# SPDX-License-Identifier: GPL-2.0-or-later
"""
Which pages are worth to be templates: those that several guests have.

Guests are counted, not pages: what one guest has many times helps no other.
The digests are sorted, so that all of them are gone through together, a range
of prefixes at a time.
"""

import uuid
from array import array
from bisect import bisect_left
from collections import Counter
from dataclasses import dataclass
from typing import Iterable, Iterator, Optional, Sequence

from wsm.templates.memory_files import NOBODY, Digest

AT_ONCE = 1 << 20               # prefixes
Chunk = Sequence["array[int]"]


@dataclass(frozen=True)
class Guest:
    """A guest, and what all its digests say."""

    name: str
    tenant: str
    prefixes: "array[int]"


def guests_of(digests: Iterable[tuple[str, Digest]]) -> list[Guest]:
    """Return the guests of (tenant, digest); several may be of one guest."""
    found: dict[tuple[str, uuid.UUID | str], list[Digest]] = {}
    for tenant, digest in digests:
        key: uuid.UUID | str = (digest.name if digest.guest == NOBODY
                                else digest.guest)
        found.setdefault((tenant, key), []).append(digest)
    return [Guest(same[0].name, tenant, merged([d.prefixes for d in same]))
            for (tenant, _), same in found.items()]


def merged(prefixes: Chunk) -> "array[int]":
    """Return all prefixes, each once, ascending."""
    if len(prefixes) == 1:
        return prefixes[0]
    return array("Q", sorted(set().union(*prefixes)))


def chunks(guests: Sequence[Guest]) -> Iterator[Chunk]:
    """Yield what each guest has of a range of prefixes, range by range."""
    total = sum(len(guest.prefixes) for guest in guests)
    ranges = total // AT_ONCE + 1
    starts = [0] * len(guests)
    for number in range(1, ranges + 1):
        bound = (number << 64) // ranges
        ends = [bisect_left(guest.prefixes, bound) for guest in guests]
        yield [guest.prefixes[start:end]
               for guest, start, end in zip(guests, starts, ends)]
        starts = ends


def count(chunk: Chunk) -> Counter[int]:
    """Return how many of the sequences have each prefix."""
    counts: Counter[int] = Counter()
    for prefixes in chunk:
        counts.update(prefixes)
    return counts


def by_tenant(guests: Sequence[Guest], chunk: Chunk) -> Chunk:
    """Return what the guests of each tenant have together."""
    found: dict[str, list["array[int]"]] = {}
    for guest, prefixes in zip(guests, chunk):
        found.setdefault(guest.tenant, []).append(prefixes)
    return [merged(each) for each in found.values()]


def choose(guests: Sequence[Guest], threshold: int, tenants: int,
           cap: Optional[int] = None) -> "array[int]":
    """
    Return the prefixes that so many guests, of so many tenants, have.

    If these are more than @cap, then those that most guests have.
    """
    found: list[tuple[int, int]] = []
    for chunk in chunks(guests):
        few = count(by_tenant(guests, chunk)) if tenants > 1 else None
        found += [(-guests_with, prefix)
                  for prefix, guests_with in count(chunk).items()
                  if guests_with >= threshold
                  and (few is None or few[prefix] >= tenants)]
    if cap is not None and len(found) > cap:
        found.sort()
        del found[cap:]
    return array("Q", sorted(prefix for _, prefix in found))


@dataclass
class Row:
    """What a threshold would give."""

    threshold: int
    pages: int                  # in the set
    hits: list[int]             # pages of each guest that others have as well


def table(guests: Sequence[Guest], most: int) -> list[Row]:
    """
    Return what thresholds of 1 to @most would give.

    The hits are of sets made of the other guests only, as a guest that comes
    later will find them.
    """
    rows = [Row(number, 0, [0] * len(guests))
            for number in range(1, most + 1)]
    for chunk in chunks(guests):
        counts = count(chunk)
        sizes = Counter(counts.values())
        for row in rows:
            row.pages += sum(n for guests_with, n in sizes.items()
                             if guests_with >= row.threshold)
        for number, prefixes in enumerate(chunk):
            others = Counter(counts[prefix] - 1 for prefix in prefixes)
            for row in rows:
                row.hits[number] += sum(n for guests_with, n in others.items()
                                        if guests_with >= row.threshold)
    return rows
