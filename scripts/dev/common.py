# SPDX-License-Identifier: GPL-2.0-or-later
"""Where things are, how commands run, and how files are written.

Everything that the scripts make lies below build/; the rest of the
repository is never written to.
"""

import contextlib
import fcntl
import os
import shlex
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, Callable, Iterable, Iterator

ROOT = Path(__file__).resolve().parents[2]
BUILD = ROOT / "build"
DOWNLOADS = BUILD / "downloads"


class Failure(Exception):
    """Something the user has to know; the text says what to do."""


def say(text: str) -> None:
    """Print a progress line at once, also into a pipe."""
    print(f"=== {text}", flush=True)


def run(cmd: Iterable[object], **kwargs: Any) -> None:
    """Run @cmd with output to the user; raise Failure if it fails."""
    words = [str(word) for word in cmd]
    kwargs.setdefault("stdin", subprocess.DEVNULL)
    try:
        status = subprocess.run(words, check=False, **kwargs).returncode
    except FileNotFoundError as error:
        raise Failure(f"{words[0]}: program not found") from error
    if status:
        raise Failure(f"exit status {status} of: {shlex.join(words)}")


def output(cmd: Iterable[object], **kwargs: Any) -> str:
    """Return what @cmd prints; raise Failure, with its errors, if it fails."""
    words = [str(word) for word in cmd]
    kwargs.setdefault("stdin", subprocess.DEVNULL)
    try:
        done = subprocess.run(words, check=False, text=True,
                              capture_output=True, **kwargs)
    except FileNotFoundError as error:
        raise Failure(f"{words[0]}: program not found") from error
    if done.returncode:
        raise Failure(f"exit status {done.returncode} of: "
                      f"{shlex.join(words)}\n{done.stderr.strip()}")
    return str(done.stdout)


@contextlib.contextmanager
def build_lock() -> Iterator[None]:
    """Keep other runs of our scripts out of build/; not to be nested."""
    BUILD.mkdir(exist_ok=True)
    with (BUILD / ".lock").open("w", encoding="utf-8") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say("waiting for another build here to end")
            fcntl.flock(stream, fcntl.LOCK_EX)
        yield


def write_if_changed(path: Path, data: bytes, mode: int = 0o644) -> bool:
    """
    Give the file @path the content @data and the permissions @mode.

    A file that is right already keeps its time stamp, so that ninja
    rebuilds only what depends on a real change.  A file that is not is
    replaced as a whole, never seen half written.  Returns whether it wrote.
    """
    if path.is_file() and not path.is_symlink() and path.read_bytes() == data:
        if path.stat().st_mode & 0o777 != mode:
            path.chmod(mode)
        return False
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent)
    with os.fdopen(handle, "wb") as stream:
        stream.write(data)
    os.chmod(temporary, mode)
    os.replace(temporary, path)
    return True


def link(path: Path, target: Path | str) -> None:
    """Make the symbolic link @path point to @target."""
    if path.is_symlink() and os.readlink(path) == str(target):
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    path.symlink_to(target)


def main(function: Callable[[], int]) -> None:
    """Run @function as a program: a Failure is printed without traceback."""
    try:
        sys.exit(function())
    except Failure as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)
