# SPDX-License-Identifier: GPL-2.0-or-later
"""What the linker knows of the overlay: who calls whom, what tests link."""

import json
import os
import re
import subprocess
from typing import Container, Iterator

from dev import layers
from dev.common import BUILD, ROOT, Failure
from dev.results import CannotCheck

TREE = BUILD / "qemu-source"
OBJECTS = BUILD / "patched"

# The share of lines that unit tests link; it may only grow
TESTED_PERCENT = 85

TEST = re.compile(r"build (tests/unit/wsm/test-\S+?): c_LINKER\S* ([^|\n]*)")
SYMBOL = re.compile(r"(?P<file>.*?):(?:[0-9a-f]+| +) "
                    r"(?P<kind>[A-Za-z]) (?P<name>\S+)")


Uses = dict[str, dict[str, set[str]]]         # file: file: symbols
Symbols = tuple[set[str], set[str]]             # defined, undefined


class Program:
    """Some files, and who of them uses symbols of whom."""

    def __init__(self) -> None:
        # Symbol: the file that defines it
        self.home: dict[str, str] = {}
        # File: the symbols it does not define
        self.wanted: dict[str, set[str]] = {}

    def add(self, name: str, defined: set[str], wanted: set[str]) -> None:
        """Add the file @name; what an earlier one defines stays its own."""
        for symbol in defined:
            self.home.setdefault(symbol, name)
        self.wanted[name] = set(wanted)

    def uses(self) -> Uses:
        """Return {file: {file it uses: symbols}}."""
        found: Uses = {name: {} for name in self.wanted}
        for name, symbols in self.wanted.items():
            for symbol in symbols:
                home = self.home.get(symbol, name)
                if home != name:
                    found[name].setdefault(home, set()).add(symbol)
        return found

    def reached(self, first: list[str]) -> set[str]:
        """Return the files that the files @first use, and those in turn."""
        uses, found, todo = self.uses(), set(first), list(first)
        while todo:
            new = uses[todo.pop()].keys() - found
            found |= new
            todo += new
        return found


def circles(uses: Uses) -> list[set[str]]:
    """Return sets of files each of which uses, in the end, all the others."""
    index: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    found: list[set[str]] = []

    def visit(name: str) -> None:
        index[name] = low[name] = len(index)
        stack.append(name)
        for other in uses[name]:
            if other not in index:
                visit(other)
            if other in stack:
                low[name] = min(low[name], low[other])
        if low[name] == index[name]:
            place = stack.index(name)
            found.append(set(stack[place:]))
            del stack[place:]

    for name in uses:
        if name not in index:
            visit(name)
    return sorted((circle for circle in found if len(circle) > 1), key=min)


def arrows(uses: Uses) -> Iterator[str]:
    """Yield a line for each file that uses one against the layers."""
    for name, others in sorted(uses.items()):
        for other, symbols in sorted(others.items()):
            if not layers.may_use(layers.layer_of(name),
                                  layers.layer_of(other)):
                yield f"{name} -> {other}: {' '.join(sorted(symbols))}"


def parse_symbols(text: str) -> dict[str, Symbols]:
    """Return {object: (defined, undefined)} from what nm -A prints."""
    symbols: dict[str, Symbols] = {}
    for line in text.splitlines():
        if found := SYMBOL.fullmatch(line):
            defined, wanted = symbols.setdefault(found["file"], (set(), set()))
            if found["kind"] in "Uwv":
                wanted.add(found["name"])
            elif found["kind"].isupper():
                defined.add(found["name"])
    return symbols


def read_symbols(objects: list[str]) -> dict[str, Symbols]:
    """Return {object: (symbols it defines, symbols it wants)}."""
    if not objects:
        return {}
    done = subprocess.run(["nm", "-A", *objects], cwd=OBJECTS, check=False,
                          text=True, capture_output=True)
    if done.returncode:
        raise Failure(f"nm: {done.stderr.strip()}")
    found = parse_symbols(done.stdout)
    return {name: found.get(name, (set(), set())) for name in objects}


def compiled() -> dict[str, str]:
    """Return {object: file of QEMU's tree} of the configured build."""
    try:
        text = (OBJECTS / "compile_commands.json").read_text(encoding="utf-8")
    except FileNotFoundError:
        raise CannotCheck("there is no build: run scripts/build first") from None
    found = {}
    for entry in json.loads(text):
        path = os.path.normpath(os.path.join(OBJECTS, entry["file"]))
        found[entry["output"]] = os.path.relpath(path, TREE)
    return found


def link_lines() -> dict[str, list[str]]:
    """Return {unit test: the objects it is linked from}."""
    text = (OBJECTS / "build.ninja").read_text(encoding="utf-8")
    return {name: objects.split() for name, objects in TEST.findall(text)}


def overlay_objects() -> dict[str, str]:
    """Return {file of the overlay: its object in QEMU's emulator}."""
    return {name: obj for obj, name in compiled().items()
            if layers.layer_of(name) and not obj.startswith("tests/")}


def own_objects(test: str, objects: list[str]) -> list[str]:
    """Return those of @objects that only the unit test @test has."""
    return [name for name in objects if name.startswith(f"{test}.p/")]


def overlay_parts(objects: list[str], known: dict[str, str],
                  names: Container[str]) -> list[str]:
    """Return those of @objects that are from files in @names."""
    return [obj for obj in objects if known.get(obj) in names]


def needed() -> list[str]:
    """Return all objects that the checks here look at."""
    known, ours = compiled(), overlay_objects()
    found = set(ours.values())
    for test, objects in link_lines().items():
        found.update(own_objects(test, objects))
        found.update(overlay_parts(objects, known, ours))
    return sorted(found)


def require_build(files: list[str]) -> None:
    """Raise CannotCheck unless the objects are those of the files here."""
    known = overlay_objects()
    for name in layers.sources(files, ".c"):
        obj, copy = known.get(name), TREE / name
        if (obj is None or not copy.is_file() or not (OBJECTS / obj).is_file()
                or copy.read_bytes() != (ROOT / name).read_bytes()
                or (OBJECTS / obj).stat().st_mtime < copy.stat().st_mtime):
            raise CannotCheck(f"the build lacks {name} as it is here: run "
                          "scripts/build first")


def overlay(files: list[str]) -> Program:
    """Return the Program of the overlay's own files."""
    objects = {obj: name for name, obj in overlay_objects().items()
               if name in files}
    program = Program()
    for obj, symbols in read_symbols(sorted(objects)).items():
        program.add(objects[obj], *symbols)
    return program


def linked_by_tests(files: list[str]) -> set[str]:
    """
    Return the overlay's files that unit tests link.

    Only those count of which a test uses something, itself or through other
    files: that a file is in the same library as one that is tested says
    nothing.
    """
    names, known = layers.sources(files, ".c"), compiled()
    found: set[str] = set()
    for test, objects in link_lines().items():
        own = own_objects(test, objects)
        parts = overlay_parts(objects, known, names)
        first = [obj for obj in own if obj not in parts]
        missing = [obj for obj in own + parts
                   if not (OBJECTS / obj).is_file()]
        if missing:
            raise CannotCheck(f"the unit tests are not built: {missing[0]} is "
                          "missing; scripts/test --stage checks builds it")
        symbols, program = read_symbols(sorted({*first, *parts})), Program()
        for obj in [*first, *parts]:
            program.add(obj, *symbols[obj])
        found |= {known[obj] for obj in program.reached(first) if obj in parts}
    return found


def check_layers(files: list[str]) -> Iterator[str]:
    """Files use only along the layers, and none in a circle."""
    require_build(files)
    uses = overlay(files).uses()
    yield from layers.counted(arrows(uses), "arrows against the layers")
    rings = [sorted(ring) for ring in circles(uses)]
    yield from layers.counted(
        (f"a circle of {len(ring)}: {' '.join(ring)}" for ring in rings),
        "files in circles", sum(map(len, rings)))


def line_count(name: str) -> int:
    """Return how many lines the file @name has."""
    return (ROOT / name).read_bytes().count(b"\n")


def check_tested(files: list[str]) -> Iterator[str]:
    """Unit tests link enough of the overlay."""
    require_build(files)
    names = layers.sources(files, ".c")
    tested = linked_by_tests(names)
    lines = sum(map(line_count, names))
    percent = 100 * sum(map(line_count, tested)) / lines
    print(f"# unit tests link {percent:.1f} % of {lines} lines, "
          f"the limit is {TESTED_PERCENT} %")
    for name in sorted(set(names) - tested):
        print(f"#   {name}: linked by no unit test")
    if percent < TESTED_PERCENT:
        yield (f"unit tests link {percent:.1f} % of the overlay's lines, less "
               f"than {TESTED_PERCENT} %")
