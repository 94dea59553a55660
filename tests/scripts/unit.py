# SPDX-License-Identifier: GPL-2.0-or-later
"""Run the tests of the scripts; takes the options of unittest."""

import sys
import unittest

from dev.common import ROOT


def main() -> None:
    """Run those that the command line names, or all; exits."""
    unittest.main(None, argv=[sys.argv[0], "discover",
                              "-s", str(ROOT / "tests/scripts"),
                              "-t", str(ROOT), *sys.argv[1:]])
