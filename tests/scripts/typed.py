# SPDX-License-Identifier: GPL-2.0-or-later
"""Commands of wsmctl, as if typed, for tests."""

import contextlib
import io
from typing import TextIO
from unittest import mock

from wsm.cli import console


def run(out: TextIO, err: TextIO, words: tuple[str, ...]) -> int:
    """Type a command; return its status."""
    with (contextlib.redirect_stdout(out), contextlib.redirect_stderr(err),
          mock.patch("sys.argv", ["wsmctl", *words])):
        try:
            return console.main()
        except SystemExit as end:
            return int(str(end.code))


def typed(*words: str) -> tuple[int, str]:
    """Type a command; return status and all that it says."""
    out = io.StringIO()
    return run(out, out, words), out.getvalue()


def typed_apart(*words: str) -> tuple[int, str, str]:
    """Type a command; return status, output, errors."""
    out, err = io.StringIO(), io.StringIO()
    return run(out, err, words), out.getvalue(), err.getvalue()
