# SPDX-License-Identifier: GPL-2.0-or-later
"""Paths, the one timeout, and waiting for conditions."""

import os
import subprocess
import time
from pathlib import Path
from typing import Callable, Optional, TypeVar

from dev.common import BUILD

T = TypeVar('T')

# Every wait ends after this many seconds.  No test asserts a duration: this
# only keeps a test that hangs from hanging for ever.
USUAL_TIMEOUT = 120
TIMEOUT = float(os.environ.get('WSM_TIMEOUT', USUAL_TIMEOUT))
# How much longer than usual all takes, where that is set
SLOWNESS = max(TIMEOUT / USUAL_TIMEOUT, 1)
POLL_SECONDS = 0.02

GUEST_BUILD = BUILD / 'guest'
QEMU = Path(os.environ.get('WSM_QEMU', BUILD / 'qemu-system-x86_64'))


class TestFailure(Exception):
    """What a test expected did not happen."""


class Skip(Exception):
    """The test cannot run here."""


def shared_library(source: Path, library: Path) -> Path:
    """Compile a C file, to be preloaded."""
    run('gcc', '-O2', '-Wall', '-shared', '-fPIC', '-o', str(library),
        str(source))
    return library


def tool(name: str) -> str:
    """qemu-img or qemu-io: that beside the tested QEMU, or the one we built.

    Never the system's, which need not be there.
    """
    for path in (QEMU.resolve().parent / name, BUILD / name):
        if path.exists():
            return str(path)
    raise TestFailure(f'no {name} beside {QEMU}: run scripts/build')


def require(condition: object, text: str) -> None:
    if not condition:
        raise TestFailure(text)


def wait_until(condition: Callable[[], Optional[T]], what: str,
               timeout: float = TIMEOUT) -> T:
    """Wait until condition() is true and return its value."""
    deadline = time.monotonic() + timeout
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > deadline:
            raise TestFailure(f'timeout: {what}')
        time.sleep(POLL_SECONDS)


def run(*argv: str, fine: tuple[int, ...] = (0,)) -> str:
    """Run a command that must end with a @fine status; return its output."""
    done = subprocess.run(argv, check=False, text=True,
                          stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    if done.returncode not in fine:
        raise TestFailure(f'{" ".join(argv)}: {done.stdout.strip()} '
                          f'{done.stderr.strip()}')
    return done.stdout
