# SPDX-License-Identifier: GPL-2.0-or-later
"""Which file of the overlay may use which: one-way layers, by folder.

What a file includes is looked at here, what it links in objects.py.
"""

import re
from pathlib import PurePath
from typing import Iterable, Iterator

from dev.common import ROOT

OVERLAY = "migration/wsm/"
HEADERS = "include/"
ROOF, BLOCK = "roof", "block"
# What a layer may use besides itself
MAY = {
    "wire": "",
    "accel": "",
    "policy": "wire",
    "core": "wire policy",
    "link": "wire core",
    "map": "wire",
    "image": "wire policy map",
    "memory": "wire",
    "source": "wire policy core link image memory",
    "dest": "wire policy core link map image memory block",
    ROOF: "wire policy core link map image memory accel source dest block",
    BLOCK: "",
}
# The only header of the block layer that is for other layers
FILTER_HEADER = "block/pull-on-demand.h"
# Made from trace-events; all of migration/wsm has one
NO_LAYER = ["migration/wsm/trace.h"]

INCLUDE = re.compile(r'^\s*#\s*include\s+"([^"]+)"', re.M)


def layer_of(name: str) -> str | None:
    """
    Return the layer of the file @name, None if it is in none.

    A folder that no rule knows is a layer that may use nothing and that
    nobody may use.
    """
    name = name.removeprefix(HEADERS)
    if name in NO_LAYER:
        return None
    if name.startswith("block/pull-"):
        return BLOCK
    if name == "migration/wsm.h":
        return ROOF
    if not name.startswith(OVERLAY):
        return None
    folder, _, rest = name.removeprefix(OVERLAY).partition("/")
    return folder if rest else ROOF


def may_use(user: str | None, used: str | None) -> bool:
    """Return whether the layer @user may use the layer @used."""
    return (user is None or used is None or user == used
            or used in MAY.get(user, "").split())


def sources(files: Iterable[str],
            suffixes: str | tuple[str, ...] = (".c", ".h")) -> list[str]:
    """Return those of @files that are C and in a layer."""
    return [name for name in files
            if name.endswith(suffixes) and layer_of(name)]


def included(name: str) -> list[str]:
    """Return what the file @name includes with quotes."""
    return INCLUDE.findall((ROOT / name).read_text(encoding="utf-8"))


def include_problems(name: str, headers: list[str]) -> Iterator[str]:
    """Yield what is wrong with the @headers that the file @name includes."""
    user = layer_of(name)
    for header in headers:
        used = layer_of(header)
        if (ROOT / PurePath(name).parent / header).is_file():
            yield f"{name}: includes {header} without its path"
        elif not may_use(user, used):
            yield f"{name}: {user} may not include {header}"
        elif user == BLOCK and header.startswith("migration/"):
            yield f"{name}: the block layer knows no migration: {header}"
        elif BLOCK == used != user and header != FILTER_HEADER:
            yield f"{name}: {header} is for the block layer only"


def own_header(name: str) -> str:
    """Return the header that belongs to the C file @name."""
    header = name.removesuffix(".c") + ".h"
    return HEADERS + header if name.startswith("block/") else header


def without_header(files: list[str]) -> Iterator[str]:
    """Yield each C file outside the roof that has no header of its own."""
    for name in sources(files, ".c"):
        if layer_of(name) != ROOF and own_header(name) not in files:
            yield f"{name}: there is no {own_header(name)}"


def shared_headers(files: list[str]) -> Iterator[str]:
    """
    Yield each header without a C file that several C files include.

    What several modules know of each other is no private matter: it belongs
    into the header of one of them.  The roof is one module.
    """
    c_files = sources(files, ".c")
    for header in sources(files, ".h"):
        if (layer_of(header) in (ROOF, BLOCK)
                or header.removesuffix(".h") + ".c" in files):
            continue
        users = [name for name in c_files if header in included(name)]
        if len(users) > 1:
            yield f"{header}: private to none of {' '.join(users)}"


def counted(problems: Iterable[str], what: str,
            count: int | None = None) -> Iterator[str]:
    """Yield @problems, after printing how many there are, or @count."""
    problems = list(problems)
    print(f"# {len(problems) if count is None else count} {what}")
    yield from problems


def check_includes(files: list[str]) -> Iterator[str]:
    """Files include only along the layers."""
    names = sources(files)
    for name in names:
        if layer_of(name) not in MAY:
            yield f"{name}: no rule says what '{layer_of(name)}' may use"
    yield from counted((problem for name in names for problem
                        in include_problems(name, included(name))),
                       "includes against the layers")


def check_headers(files: list[str]) -> Iterator[str]:
    """Each C file has its own header, and no two share a private one."""
    yield from counted(without_header(files),
                       "C files without a header of their own")
    yield from counted(shared_headers(files),
                       "private headers that several C files share")
