# SPDX-License-Identifier: GPL-2.0-or-later
"""Blocks of a golden disk image, of which guests have many in memory."""

import hashlib
from pathlib import Path
from typing import Iterator

from wsm.templates.memory_files import BadFile, Place
from wsm.templates.sets import PAGE

# What images of other formats begin with
MAGICS = {b"QFI\xfb": "qcow2", b"KDMV": "vmdk", b"COWD": "vmdk",
          b"vhdxfile": "vhdx", b"QED\0": "qed", b"<<< ": "vdi",
          b"conectix": "vpc"}
ZERO = bytes(PAGE)
AT_ONCE = 256 * PAGE


def refuse_format(path: Path, head: bytes) -> None:
    """Refuse what is an image of another format than raw."""
    for magic, name in MAGICS.items():
        if head.startswith(magic):
            raise BadFile(f"it is a {name} image, and only raw ones can be "
                          f"read; make a copy with 'qemu-img convert -O raw "
                          f"{path} COPY'")


def blocks_of(path: Path) -> Iterator[tuple[bytes, Place]]:
    """Yield (hash, place) of the blocks of a raw image that are not zero."""
    with path.open("rb") as file:
        refuse_format(path, file.read(8))
        file.seek(0)
        offset = 0
        while data := file.read(AT_ONCE):
            for start in range(0, len(data) - PAGE + 1, PAGE):
                block = data[start:start + PAGE]
                if block != ZERO:
                    yield (hashlib.sha256(block).digest(),
                           Place(path, offset + start))
            offset += len(data)
