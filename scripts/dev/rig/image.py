# SPDX-License-Identifier: GPL-2.0-or-later
"""Disk images."""

import fcntl
import os
import struct
from dataclasses import dataclass
from pathlib import Path

from dev.rig.basics import run, tool

MIB = 1 << 20
GIB = 1 << 30

# Linux's open file description locks, which QEMU uses; not in module fcntl
F_OFD_GETLK = 36
FLOCK = 'hhqqi4x'
LOCK_BYTES = (100, 200)
LEAKS = 3               # what "qemu-img check" ends with then


@dataclass(frozen=True)
class Image:
    path: Path
    fmt: str
    size: int

    def create(self) -> 'Image':
        """A new image, as users make it; a raw one may have any size at all.

        So the first block of a raw one is allocated, and is zeroes.
        """
        run(tool('qemu-img'), 'create', '-q', '-f', self.fmt,
            str(self.path), str(self.size))
        if self.fmt == 'raw' and self.size % 512:
            os.truncate(self.path, self.size)   # qemu-img has rounded it up
        return self

    def allocated(self) -> int:
        """Bytes that the image takes on the host (du)."""
        return self.path.stat().st_blocks * 512

    def is_locked(self) -> bool:
        """Whether some process holds one of QEMU's image locks."""
        request = struct.pack(FLOCK, fcntl.F_WRLCK, os.SEEK_SET,
                              LOCK_BYTES[0], LOCK_BYTES[1], 0)
        with open(self.path, 'rb+') as img:
            reply = fcntl.fcntl(img, F_OFD_GETLK, request)
        return bool(struct.unpack(FLOCK, reply)[0] != fcntl.F_UNLCK)

    def compare(self, other: 'Image') -> None:
        """Fails unless both read the same; they may be in use."""
        run(tool('qemu-img'), 'compare', '-U', '-f', self.fmt,
            '-F', other.fmt, str(self.path), str(other.path))

    def check(self, leaks: bool = False) -> None:
        """qemu-img check, for the formats that have one.

        With @leaks there may be clusters that nobody uses.
        """
        if self.fmt != 'raw':
            run(tool('qemu-img'), 'check', '-q', '-f', self.fmt,
                str(self.path), fine=(0, LEAKS) if leaks else (0,))
