# SPDX-License-Identifier: GPL-2.0-or-later
"""Run the tests with libvirt.

The tested QEMU is build/qemu-system-x86_64, or that named by $WSM_QEMU, or
that of the packages in a repository.
"""

import argparse
import fnmatch
import signal
import sys
import time
import traceback
from pathlib import Path

from dev import roots
from dev.common import Failure
from dev.libvirt import virt_root
from dev.libvirt.virt_scene import Case, VirtScene
from dev.rig import guest_image
from dev.rig.basics import QEMU, Skip
from tests.libvirt import beside, cases, database, viewer

CASES: dict[str, Case] = {**cases.CASES, "database": database.database,
                         "beside": beside.beside,
                         "vnc-client": viewer.vnc_client}
LONG = ("beside",)              # run only when they are named


def parse_arguments() -> argparse.Namespace:
    """Return the parsed command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--list", action="store_true",
                        help="print the tests and what each is about")
    parser.add_argument("--only", metavar="PATTERN", action="append",
                        help="run tests whose name matches (shell pattern)")
    parser.add_argument("--debian", action="append",
                        choices=roots.SUITES,
                        help="only the libvirt of this release")
    parser.add_argument("--packages", type=Path, metavar="FOLDER",
                        help="take QEMU from this apt repository")
    return parser.parse_args()


def run_case(function: Case, scene: VirtScene) -> tuple[str, str]:
    """Run a test; return its verdict, and what there is to say."""
    try:
        function(scene)
    except Skip as why:
        return "skip", str(why)
    except Exception as err:        # pylint: disable=broad-except
        where = [f"{Path(entry.filename).name}:{entry.lineno}"
                 for entry in traceback.extract_tb(err.__traceback__)[1:]]
        return "not ok", (f"{type(err).__name__}: {err}\n"
                          f"at {' < '.join(reversed(where))}\n"
                          f"{scene.report()}")
    finally:
        scene.close()
    return "ok", ""


def main() -> int:
    """Run the program; return its exit status."""
    options = parse_arguments()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    chosen = [name for name in CASES if (any(
        fnmatch.fnmatch(name, pattern) for pattern in options.only)
        if options.only else name not in LONG)]
    if options.list:
        for name in chosen:
            summary = (CASES[name].__doc__ or "").split("\n", maxsplit=1)[0]
            print(f"{name}: {summary}")
        return 0
    if not chosen:
        sys.exit("no such test")
    if not options.packages and not QEMU.exists():
        sys.exit(f"{QEMU} does not exist: build it, or set WSM_QEMU")
    guest_image.build()
    failed = 0
    for suite in options.debian or roots.SUITES:
        try:
            tree = virt_root.make(suite, options.packages)
        except Failure as error:
            sys.exit(str(error))
        for name in chosen:
            begin = time.monotonic()
            verdict, text = run_case(
                CASES[name], VirtScene(tree, bool(options.packages)))
            failed += verdict == "not ok"
            more = (f"# {text}" if verdict == "skip"
                    else f"{time.monotonic() - begin:.1f}")
            print(f"{verdict} {suite}:{name} {more}", flush=True)
            if verdict == "not ok":
                print("    " + text.replace("\n", "\n    "), flush=True)
    return 1 if failed else 0
