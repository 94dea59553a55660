# SPDX-License-Identifier: GPL-2.0-or-later
"""Make a set of the pages that were found, and age those of before."""

import hashlib
import os
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Iterable, Iterator, Optional

from wsm.templates import sets
from wsm.templates.memory_files import BadFile, Place
from wsm.templates.sets import MAX_PAGES, PAGE, PREFIX

LEFT_BEHIND = 24 * 3600         # seconds until a half-written file goes
Found = dict[bytes, tuple[bytes, Place]]


def gather(pages: Iterable[tuple[bytes, Place]],
           wanted: Optional[set[bytes]] = None) -> Found:
    """Return by prefix each of the @pages, once, of which @wanted is one."""
    found: Found = {}
    for digest, place in pages:
        prefix = digest[:PREFIX]
        if (wanted is None or prefix in wanted) and prefix not in found:
            found[prefix] = (digest, place)
            if len(found) > MAX_PAGES:
                raise BadFile(f"these are more than {MAX_PAGES} pages, which "
                              "is what a set may have; make several sets")
    return found


def contents(found: Iterable[tuple[bytes, Place]]) -> Iterator[bytes]:
    """Yield the pages in these places; they must be as they were."""
    with ExitStack() as stack:
        files: dict[Path, int] = {}
        for digest, place in found:
            if place.path not in files:
                files[place.path] = stack.enter_context(
                    place.path.open("rb")).fileno()
            page = os.pread(files[place.path], PAGE, place.offset)
            if hashlib.sha256(page).digest() != digest:
                raise BadFile(f"{place.path}: it changes while it is read")
            yield page


def build(folder: Path, found: Found, mode: int = 0o640) -> list[Path]:
    """Write the files of the set of these pages; return their paths."""
    if not found:
        raise BadFile("there is no page to make a set of")
    ordered = [found[prefix] for prefix in sorted(found)]
    folder.mkdir(parents=True, exist_ok=True)
    return sets.write(folder, [digest for digest, _ in ordered],
                      contents(ordered), mode)


def old_files(folder: Path, keep: int) -> list[Path]:
    """Return the files of all sets in a folder but the newest @keep."""
    times: dict[str, float] = {}
    files = [path for path in folder.iterdir()
             if path.suffix in sets.SUFFIXES.values() and path.is_file()]
    for path in files:
        times[path.stem] = max(path.stat().st_mtime, times.get(path.stem, 0))
    new = sorted(times, key=lambda stem: (times[stem], stem))[-keep:]
    left = [path for path in folder.glob(".new-*")
            if path.stat().st_mtime < time.time() - LEFT_BEHIND]
    return sorted([path for path in files if path.stem not in new] + left)
