# SPDX-License-Identifier: GPL-2.0-or-later
"""How each program below tests/ begins: python3 start.py MODULE PROGRAM ...

This is the one place that says where modules are found: those of tests/ as
tests.NAME, those of scripts/ as they name each other.  Programs in scripts/
need nothing for that, and cannot import tests.
"""

import importlib
import signal
import sys
from pathlib import Path

TOP = Path(__file__).resolve().parent.parent

if __name__ == "__main__":
    # A shell that starts us in the background ignores Ctrl-C for us, and so for
    # the programs at which tests press it
    signal.signal(signal.SIGINT, signal.default_int_handler)
    sys.path[:1] = [str(TOP), str(TOP / "scripts")]
    module, *sys.argv = sys.argv[1:]
    sys.exit(importlib.import_module(module).main())
