# SPDX-License-Identifier: GPL-2.0-or-later
"""Static checks of this repository's files.

Each check is a function that yields one line per problem.  A file is
given by its path relative to the top of the repository.  Those in
BUILD_CHECKS look at the objects in build/patched, too.
"""

import ast
import os
import re
import subprocess
from pathlib import Path
from typing import Callable, Iterable, Iterator, Mapping

from dev import layers, modules, objects, source
from dev.common import ROOT
from dev.results import NOT_OK, OK, SKIP, CannotCheck, Results

Check = Callable[[list[str]], Iterable[str]]
Selected = Callable[[str], bool]

MYPY = ["mypy", "--no-error-summary"]
PYLINT = ["pylint"]

HOOK_LINES = 200
FUNCTION_LINES = 80
FILE_LINES = 900

NO_SPDX = re.compile(r"COPYING|.*\.(patch|pem|out)|tests/fuzz/corpus/.*"
                     r"|(?!qapi/).*\.json"
                     r"|packaging/debian/(changelog|copyright|source/format)")
DOCUMENT = re.compile(r"COPYING|MAINTAINERS|.*\.(md|rst|patch|svg|txt)")
# Texts of others, and one whose format is called by an address
NAMES_HOSTS = re.compile(r"COPYING|.*\.patch|packaging/debian/copyright")
URL = re.compile(r"\b(?:https?|ftp)://(?!localhost|127\.|\[|example\.|[{$%<])"
                 r"[\w.-]+")
ARCHIVE = re.compile(r"\b(?:debian\.org|ubuntu\.com|pypi\.org|pythonhosted"
                     r"\.org|docker\.io|ghcr\.io|golang\.org|npmjs\.org)\b")


def repository_files() -> list[str]:
    """Return the files of the repository: not ignored by git, not build/."""
    done = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others",
         "--exclude-standard"],
        cwd=ROOT, check=False, capture_output=True, text=True)
    if done.returncode == 0:
        names = done.stdout.split("\0")[:-1]
    else:
        names = [str(Path(folder, name).relative_to(ROOT))
                 for folder, _, files in os.walk(ROOT) for name in files]
    return sorted(name for name in set(names)
                  if not name.startswith(("build/", ".git/"))
                  and (ROOT / name).is_file()
                  and not (ROOT / name).is_symlink())


def text_of(name: str) -> str | None:
    """Return the content of a text file, None for a binary one."""
    data = (ROOT / name).read_bytes()
    if b"\0" in data:
        return None
    return data.decode("utf-8", errors="replace")


def first_line(name: str) -> str:
    """Return the first line of a file."""
    return (text_of(name) or "").split("\n", 1)[0]


def is_python(name: str) -> bool:
    """Return whether a file is a Python program or module."""
    return name.endswith(".py") or bool(
        "." not in Path(name).name
        and re.match("#!.*python3", first_line(name)))


def is_shell(name: str) -> bool:
    """Return whether a file is a shell program."""
    return name.endswith(".sh") or bool(
        re.match(r"#!.*\b(ba|da)?sh\b", first_line(name)))


def is_c(name: str) -> bool:
    """Return whether a file is C source or a header."""
    return name.endswith((".c", ".h"))


def changed_lines(patch: str) -> int:
    """Return how many lines the text of a unified diff adds and removes."""
    count = 0
    old = new = 0
    for line in patch.splitlines():
        if old > 0 or new > 0:
            count += line[:1] in ("+", "-")
            old -= line[:1] != "+" and line[:1] != "\\"
            new -= line[:1] != "-" and line[:1] != "\\"
        elif hunk := re.match(r"@@ -\d+(?:,(\d+))? \+\d+(?:,(\d+))? @@", line):
            old, new = (int(group or 1) for group in hunk.groups())
    return count


def check_hook_lines(_files: list[str]) -> Iterator[str]:
    """The hooks in patches/ stay small."""
    total = sum(changed_lines(text_of(f"patches/{name}") or "")
                for name in source.series())
    print(f"# patches/ change {total} lines, the limit is {HOOK_LINES}")
    if total >= HOOK_LINES:
        yield f"patches/: {total} changed lines, must be below {HOOK_LINES}"


def check_patch_headers(files: list[str]) -> Iterator[str]:
    """Each patch is in the series and has a DEP-3 header."""
    names = {name.split("/", 1)[1] for name in files
             if name.startswith("patches/") and name.endswith(".patch")}
    listed = source.series()
    for name in sorted(names - set(listed)):
        yield f"patches/{name}: not in patches/series"
    for name in listed:
        if name not in names:
            yield f"patches/series: {name} is not there"
            continue
        text = text_of(f"patches/{name}") or ""
        head = re.split(r"^(?:---|diff|Index:)", text, maxsplit=1,
                        flags=re.M)[0]
        for fields in ("Description|Subject", "Author|From|Origin",
                       "Forwarded"):
            if not re.search(f"^({fields}):", head, re.M):
                yield f"patches/{name}: DEP-3 header lacks {fields}:"


def check_spdx(files: list[str]) -> Iterator[str]:
    """Each file that can hold a comment names its licence."""
    for name in files:
        if NO_SPDX.fullmatch(name):
            continue
        text = text_of(name)
        if text and "SPDX-License-Identifier: " not in text[:1000]:
            yield f"{name}: no SPDX-License-Identifier line at the top"


def check_checkpatch(_files: list[str]) -> Iterator[str]:
    """QEMU's checkpatch.pl has nothing to say about the overlay."""
    names = sorted(name for name in source.overlay_files() if is_c(name))
    if not names:
        return
    done = subprocess.run(
        ["perl", str(source.STOCK / "scripts/checkpatch.pl"), "--no-tree",
         "--file", "--strict", "--terse", "--no-summary", "--color=never",
         *names],
        cwd=ROOT, check=False, capture_output=True, text=True)
    yield from done.stdout.splitlines()
    if done.returncode and not done.stdout:
        yield f"checkpatch.pl failed: {done.stderr.strip()}"


def c_functions(text: str) -> Iterator[tuple[int, int]]:
    """Yield (line, length) of each function, by the braces in column 0."""
    begin = None
    for number, line in enumerate(text.splitlines(), 1):
        if line.startswith("{"):
            begin = number
        elif line.startswith("}") and begin is not None:
            yield begin, number - begin
            begin = None


def python_functions(text: str) -> Iterator[tuple[int, int]]:
    """Yield (line, length) of each function."""
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            end = node.end_lineno or node.lineno
            yield node.lineno, end - node.lineno + 1


def check_sizes(files: list[str]) -> Iterator[str]:
    """
    Functions and files stay small enough to be read.

    A unit test may be long: it is a list of cases beside its shadow model.
    """
    for name in files:
        if not (is_c(name) or is_python(name) or is_shell(name)):
            continue
        text = text_of(name) or ""
        lines = text.count("\n")
        if lines > FILE_LINES and not name.startswith("tests/unit/"):
            yield f"{name}: {lines} lines, more than {FILE_LINES}"
        try:
            functions = list(c_functions(text) if is_c(name) else
                             python_functions(text) if is_python(name) else ())
        except SyntaxError as error:
            yield f"{name}:{error.lineno}: {error.msg}"
            continue
        for line, length in functions:
            if length > FUNCTION_LINES:
                yield (f"{name}:{line}: a function of {length} lines, "
                       f"more than {FUNCTION_LINES}")


def check_shell(files: list[str]) -> Iterator[str]:
    """Shell programs can be parsed."""
    for name in files:
        if is_shell(name):
            done = subprocess.run(["bash", "-n", name], cwd=ROOT, check=False,
                                  capture_output=True, text=True)
            yield from done.stderr.splitlines()


def check_host_names(files: list[str]) -> Iterator[str]:
    """No program depends on a fixed host; no file names an archive's host."""
    for name in files:
        if NAMES_HOSTS.fullmatch(name):
            continue
        for number, line in enumerate((text_of(name) or "").splitlines(), 1):
            if ARCHIVE.search(line) or (not DOCUMENT.fullmatch(name)
                                        and URL.search(line)):
                yield f"{name}:{number}: names a host: {line.strip()}"


def check_whitespace(files: list[str]) -> Iterator[str]:
    """No tabs in C and Python, no blanks at line ends, a newline at the end."""
    for name in files:
        text = text_of(name)
        if not text or DOCUMENT.fullmatch(name) or NO_SPDX.fullmatch(name):
            continue
        if not text.endswith("\n"):
            yield f"{name}: no newline at the end"
        for number, line in enumerate(text.splitlines(), 1):
            if line != line.rstrip() or (
                    "\t" in line and (is_c(name) or is_python(name))):
                yield f"{name}:{number}: blank at the line's end, or a tab"


def check_qmp_reference(_files: list[str]) -> Iterator[str]:
    """docs/qmp.md is what qapi/wsm.json makes of it."""
    done = subprocess.run([ROOT / "docs/make-qmp-reference", "--check"],
                          check=False, text=True, capture_output=True)
    if done.returncode:
        yield f"{done.stdout}{done.stderr}".strip()


def check_imports(files: list[str]) -> Iterator[str]:
    """Python files import only what they may, by names that are clear."""
    yield from modules.check_imports(list(filter(is_python, files)))


def check_types(files: list[str]) -> Iterator[str]:
    """mypy has nothing to say about types."""
    yield from modules.said_by(MYPY, list(filter(is_python, files)))


def check_pylint(files: list[str]) -> Iterator[str]:
    """pylint has nothing to say."""
    yield from modules.said_by(PYLINT, list(filter(is_python, files)))


CHECKS = {
    "hook-lines": check_hook_lines,
    "patch-headers": check_patch_headers,
    "spdx": check_spdx,
    "checkpatch": check_checkpatch,
    "sizes": check_sizes,
    "shell": check_shell,
    "host-names": check_host_names,
    "whitespace": check_whitespace,
    "qmp-reference": check_qmp_reference,
    "includes": layers.check_includes,
    "headers": layers.check_headers,
    "imports": check_imports,
    "types": check_types,
}
BUILD_CHECKS = {
    "layers": objects.check_layers,
    "tested": objects.check_tested,
}
# Only if they are named
SLOW_CHECKS = {
    "pylint": check_pylint,
}


def every(_name: str) -> bool:
    """Select all checks."""
    return True


def run_check(results: Results, title: str, check: Check,
              files: list[str], must_run: bool = False) -> None:
    """Run one check and add it to @results; skipped if it cannot run."""
    try:
        problems = list(check(files))
    except CannotCheck as why:
        results.add(NOT_OK if must_run else SKIP, title, str(why))
        return
    for problem in problems:
        print(f"# {problem}")
    results.add(NOT_OK if problems else OK, title,
                f"{len(problems)} problems" if problems else "")


def run_checks(results: Results, wanted: Mapping[str, Check],
               selected: Selected = every, must_run: bool = False) -> None:
    """
    Run those of @wanted whose name is @selected; add them to @results.

    @must_run: what they need is there, so one that cannot run has failed.
    """
    files = repository_files()
    for name, check in wanted.items():
        title = f"check:{name}"
        if selected(title):
            run_check(results, title, check, files, must_run)
