# SPDX-License-Identifier: GPL-2.0-or-later
"""Find the programs of QEMU that ours use."""

import os
import shutil
from pathlib import Path
from typing import Optional

# scripts/build puts them there, if this lies in its repository
TREE = Path(__file__).resolve().parents[2]


def find_program(name: str, wanted: Optional[str],
                 variable: str) -> Optional[str]:
    """
    Return the program of that name: one that the user has @wanted, or named in
    a @variable of the environment; else that which was built here, or is
    installed.  None: there is none, or not what the user has named.
    """
    for choice in (wanted, os.environ.get(variable)):
        if choice:
            return shutil.which(choice)
    built = TREE / "build" / name
    return str(built) if built.exists() else shutil.which(name)
