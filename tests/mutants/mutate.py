# SPDX-License-Identifier: GPL-2.0-or-later
"""Break one rule of the C code at a time, and see the unit test find it.

A mutant is a small change of one file (tests/mutants/mutants.py).  It is
compiled as the build does, linked in place of the file's object, and the unit
test is run: that must fail.  A test that does not find a mutant has rotted, and
so has a mutant whose text is not in the file any more.

Exit status: 0 each mutant was found, 1 one was not.
"""

import argparse
import json
import os
import re
import shlex
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from dev import qemu
from dev.common import Failure
from dev.qemu import Variant
from tests.mutants.accel_mutants import ACCEL
from tests.mutants.memory_mutants import MEMORY
from tests.mutants.mutants import MAP, Mutant
from tests.mutants.pull_mutants import PULL
from tests.mutants.rejoin_mutants import REJOIN

MUTANTS = [*ACCEL, *MAP, *MEMORY, *PULL, *REJOIN]
SECONDS = 300


@dataclass
class Test:
    """A unit test, and how to make one like it."""

    variant: Variant
    name: str
    link: list[str]                             # the command

    @property
    def program(self) -> Path:
        """Return what the build has made."""
        return self.variant.dir / f"tests/unit/wsm/{self.name}"


def prepare(name: str) -> Test:
    """Build the unit test @name, which must succeed."""
    target = f"tests/unit/wsm/{name}"
    variant = qemu.build("patched", [target])
    commands = subprocess.run(
        ["ninja", "-C", str(variant.dir), "-t", "commands", target],
        check=True, capture_output=True, text=True).stdout.splitlines()
    test = Test(variant, name, shlex.split(commands[-1]))
    if run(test, test.program, "") != 0:
        raise Failure(f"{name} fails without any mutant")
    return test


def run(test: Test, program: Path, case: str) -> int:
    """Return the status of the unit test, or of its case; hanging is -1."""
    try:
        return subprocess.run(
            [str(program), *(["-p", case] if case else [])],
            cwd=test.variant.dir, env={**os.environ, "MALLOC_PERTURB_": "85"},
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            timeout=SECONDS, check=False).returncode
    except subprocess.TimeoutExpired:
        return -1


def mutated(mutant: Mutant, source: Path) -> str:
    """Return the text of the mutant's file with the change."""
    text = source.read_text(encoding="utf-8")
    if text.count(mutant.old) != 1:
        raise Failure(f"{mutant.name}: {mutant.file} has {mutant.old!r} "
                      f"{text.count(mutant.old)} times, not once")
    return text.replace(mutant.old, mutant.new)


def compile_command(test: Test, file: str) -> tuple[Path, str, list[str]]:
    """Return source, object and command of @file in the unit test."""
    folder = test.variant.dir
    entries = json.loads((folder / "compile_commands.json").read_text())
    for entry in entries:
        if entry["file"].endswith(f"/{file}") and entry["output"] in test.link:
            return ((folder / entry["file"]).resolve(), entry["output"],
                    shlex.split(entry["command"]))
    raise Failure(f"{test.name} does not have {file}")


def find(mutant: Mutant, test: Test) -> bool:
    """Return whether the unit test finds the mutant."""
    source, old, command = compile_command(test, mutant.file)
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        # The same name, which is in messages
        copy, new = work / source.name, work / "mutant.o"
        copy.write_text(mutated(mutant, source), encoding="utf-8")
        words = [str(new) if word == old else word for word in command
                 if not re.fullmatch(r"-M\w*|.*\.d", word)]
        words[words.index("-c") + 1] = str(copy)
        if (source.parent / "trace.h").exists():
            # Its own; elsewhere the folder may have what others call, too
            words += ["-iquote", str(source.parent)]
        if "-MQ" in command:
            words.remove(str(new))              # the target of the -M options
        subprocess.run(words, check=True, cwd=test.variant.dir)
        program = work / test.name
        link = [str(new) if word == old else word for word in test.link]
        link[link.index("-o") + 1] = str(program)
        subprocess.run(link, check=True, cwd=test.variant.dir)
        return run(test, program, mutant.case) != 0


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description="Break one rule at a time, and see the unit test find it")
    parser.add_argument("--list", action="store_true",
                        help="only say which mutants there are")
    parser.add_argument("--only", default="", metavar="PATTERN",
                        help="mutants whose test:name matches")
    return parser.parse_args()


def main() -> int:
    args = arguments()
    chosen = [mutant for mutant in MUTANTS
              if re.search(args.only, f"{mutant.test}:{mutant.name}")]
    tests: dict[str, Test] = {}
    missed = 0
    for mutant in chosen:
        if args.list:
            print(f"{mutant.test}:{mutant.name}  {mutant.rule}")
            continue
        if mutant.test not in tests:
            tests[mutant.test] = prepare(mutant.test)
        found = find(mutant, tests[mutant.test])
        missed += not found
        print(f"{'ok' if found else 'not ok'} {mutant.test}:{mutant.name}",
              flush=True)
    if missed:
        print(f"{missed} of {len(chosen)} mutants were not found",
              file=sys.stderr)
    return int(missed > 0)
