# SPDX-License-Identifier: GPL-2.0-or-later
"""Our files and hooks as patches of a Debian source package."""

import difflib
import io
from pathlib import Path
from typing import Mapping

from dev import source
from dev.common import Failure

FOLDER = "wsm"                  # below debian/patches
NAME = "0000-new-files.patch"
HEADER = """\
Description: whole-system migration: new files
 What the hooks that follow as patches of their own call: migration/wsm, and
 the filter that pulls blocks on demand.
Origin: vendor
Forwarded: not-needed
"""


def new_file(name: str, data: bytes) -> str:
    """Return the part of a patch that makes the file @name."""
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise Failure(f"{name}: no text, cannot be in a patch") from error
    if not text:
        raise Failure(f"{name}: empty, cannot be in a patch")
    # Not splitlines(), for which more than a newline ends a line
    lines = io.StringIO(text, newline="\n").readlines()
    return "".join(
        line if line.endswith("\n")
        else line + "\n\\ No newline at end of file\n"
        for line in difflib.unified_diff([], lines, "/dev/null", f"b/{name}"))


def new_files(files: Mapping[str, Path]) -> str:
    """Return the patch that makes @files, {path in QEMU: where it is}."""
    return HEADER + "".join(new_file(name, files[name].read_bytes())
                            for name in sorted(files))


def add_patches(debian: Path) -> None:
    """Put our patches behind those in the folder @debian."""
    where = debian / "patches" / FOLDER
    where.mkdir()
    (where / NAME).write_text(new_files(source.overlay_files()),
                              encoding="utf-8")
    names = [NAME]
    for name in source.series():
        (where / name).write_bytes((source.PATCHES / name).read_bytes())
        names.append(name)
    with (debian / "patches/series").open("a", encoding="utf-8") as stream:
        stream.writelines(f"{FOLDER}/{name}\n" for name in names)
