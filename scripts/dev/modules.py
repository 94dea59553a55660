# SPDX-License-Identifier: GPL-2.0-or-later
"""Rules of the Python code: who may import whom, and types.

What users run on one host needs only Python's library; what decides about
moves is pure, and needs only what cannot do anything.  What developers use may
import what users run, tests may import both, and nobody imports tests but tests.
"""

import ast
import os
import shutil
import subprocess
import sys
from pathlib import PurePath
from typing import Iterator

from dev.common import ROOT
from dev.results import CannotCheck

# A folder, and the packages that its files may import; the first that fits
MAY_IMPORT: dict[str, list[str]] = {
    "scripts/dev/demo/guest/": [],              # runs in the guest
    "scripts/wsm/agent/": ["wsm", "aiohttp", "qemu"],
    "scripts/wsm/controller/postgres.py": ["wsm", "psycopg"],
    "scripts/wsm/controller/": ["wsm", "aiohttp", "prometheus_client"],
    "scripts/wsm/door.py": ["wsm", "aiohttp"],
    "scripts/wsm/visit.py": ["wsm", "aiohttp"],
    "scripts/wsm": ["wsm"],
    "scripts/": ["dev", "wsm"],
    "tests/start.py": [],
    "tests/scripts/plan/properties.py": ["dev", "hypothesis"],
    "tests/scripts/agent/": ["dev", "wsm", "tests", "aiohttp"],
    "tests/scripts/controller/": ["dev", "wsm", "tests", "aiohttp"],
    "tests/fleet/": ["dev", "wsm", "tests", "aiohttp"],
    "tests/": ["dev", "wsm", "tests"],
    "packaging/qemu/tests/wsm-screen": ["gi"],
    "": [],
}
# A folder of modules without clock, I/O and chance: what they may import
PURE = "scripts/wsm/plan/"
PURE_IMPORTS = frozenset("""
    array bisect collections collections.abc dataclasses enum functools
    hashlib heapq itertools json math os.path re string tomllib types typing
""".split())
# The one place that says where modules are found
PATHS = "tests/start.py"


def allowed(name: str) -> list[str]:
    """Return the packages that the file @name may import."""
    return next(packages for folder, packages in MAY_IMPORT.items()
                if name.startswith(folder))


def imported(text: str) -> Iterator[tuple[int, str]]:
    """Yield (line, module) of each import; '.module' if it is relative."""
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield node.lineno, alias.name
        elif isinstance(node, ast.ImportFrom):
            yield node.lineno, "." * node.level + (node.module or "")


def is_pure(module: str) -> bool:
    """Return whether pure modules may import @module."""
    return module in PURE_IMPORTS or (module + ".").startswith("wsm.plan.")


def uses_path(text: str) -> bool:
    """Return whether a file has to do with where modules are found."""
    return any(ast.unparse(node) in ("sys.path", "from sys import path")
               for node in ast.walk(ast.parse(text))
               if isinstance(node, (ast.Attribute, ast.ImportFrom)))


def import_problems(name: str, text: str) -> Iterator[str]:
    """Yield what is wrong with the imports of the file @name."""
    for line, module in imported(text):
        package = module.split(".")[0]
        if not package:
            yield f"{name}:{line}: a relative import, {module}"
        elif package not in {*sys.stdlib_module_names, *allowed(name)}:
            yield f"{name}:{line}: may not import {module}"
        elif name.startswith(PURE) and not is_pure(module):
            yield f"{name}:{line}: is pure, and may not import {module}"
    if name != PATHS and uses_path(text):
        yield f"{name}: only {PATHS} sets sys.path"


def twins(files: list[str]) -> Iterator[str]:
    """Yield each module whose name another one has, too."""
    known: dict[str, str] = {}
    for name in files:
        stem = PurePath(name).stem
        if stem == "__init__" or not name.endswith(".py"):
            continue
        if stem in known:
            yield f"{name}: {known[stem]} has the same name"
        known.setdefault(stem, name)


def check_imports(files: list[str]) -> Iterator[str]:
    """Python files import only what they may, by names that are clear."""
    for name in files:
        yield from import_problems(
            name, (ROOT / name).read_text(encoding="utf-8"))
    yield from twins(files)


def said_by(command: list[str], files: list[str]) -> Iterator[str]:
    """Yield what a program that checks Python says of @files."""
    if not shutil.which(command[0]):
        raise CannotCheck(f"install the package {command[0]}")
    paths = os.pathsep.join([str(ROOT / "scripts"), str(ROOT)])
    done = subprocess.run([*command, *files], cwd=ROOT, check=False, text=True,
                          env={**os.environ, "PYTHONPATH": paths},
                          capture_output=True)
    for line in done.stdout.splitlines():
        if line and not line.startswith("***"):
            yield line
    if done.returncode and not done.stdout:
        yield f"{command[0]}: {done.stderr.strip()}"
