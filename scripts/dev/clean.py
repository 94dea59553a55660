# SPDX-License-Identifier: GPL-2.0-or-later
"""All tests in fresh Debian systems, as on a machine just installed.

What is tested is the last commit: a clone of this repository, in a folder
with nothing but Debian's essential packages, apt and python3.
"""

import shutil

from dev import roots, stages
from dev.common import BUILD, ROOT
from dev.common import run as run_command
from dev.common import say
from dev.results import NOT_OK

FOLDER = BUILD / "clean-root"
CLONE = "root/qemu-wsm"


def run_all(run: stages.Run, suite: str, options: list[str],
            ccache: str = "") -> None:
    """Run scripts/test with @options in a fresh root of @suite."""
    tree = FOLDER / suite
    roots.make(tree, suite, ["python3"])
    run_command(["git", "clone", "--quiet", "--no-hardlinks", ROOT,
                 tree / CLONE])
    say(f"all tests in Debian {suite}")
    words = ["scripts/test", *options]
    if ccache:
        words = ["env", "CCACHE_DIR=/shared", *words]
    stages.run_printed(
        run, suite, roots.command(tree, *roots.shell(f"/{CLONE}", *words),
                                  shared=ccache), f"{suite}:")
    if not run.results.count(NOT_OK):
        shutil.rmtree(tree)
