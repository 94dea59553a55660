# SPDX-License-Identifier: GPL-2.0-or-later
"""A file system whose changes are logged: tests/crash/logfs.c."""

import os
import subprocess
from pathlib import Path
from typing import Optional

from dev.rig.basics import Skip, run, wait_until

PROGRAM = Path(__file__).with_name('logfs.c')


class LogFs:
    """Mounted while it is used as a context; needs root."""

    def __init__(self, folder: Path) -> None:
        self.path, self.log = folder / 'mounted', folder / 'log'
        self._below, self._program = folder / 'below', folder / 'logfs'
        for path in (self.path, self._below):
            path.mkdir()
        self._process: Optional['subprocess.Popen[bytes]'] = None

    def __enter__(self) -> 'LogFs':
        if os.geteuid() or not Path('/dev/fuse').exists():
            raise Skip('a file system is mounted: needs root and /dev/fuse')
        flags = run('pkg-config', '--cflags', '--libs', 'fuse3').split()
        run('gcc', '-O2', '-Wall', '-o', str(self._program), str(PROGRAM),
            *flags)
        # pylint: disable-next=consider-using-with
        self._process = process = subprocess.Popen(
            [str(self._program), str(self._below), str(self.log),
             str(self.path)], stdin=subprocess.DEVNULL)
        wait_until(lambda: (self.path.is_mount()
                            or process.poll() is not None), 'the mount')
        if process.poll() is not None:
            raise Skip('the file system cannot be mounted')
        return self

    def __exit__(self, *_: object) -> None:
        subprocess.run(['umount', '--lazy', str(self.path)], check=False)
        if self._process:
            self._process.kill()
            self._process.wait()

    def folder(self, name: str) -> Path:
        """Make a folder, that of one host."""
        path = self.path / name
        path.mkdir()
        return path


def sync(folder: Path) -> None:
    """Make all of a folder durable, whatever made it."""
    for path in [*folder.iterdir(), folder]:
        fd = os.open(path, os.O_RDONLY)
        os.fsync(fd)
        os.close(fd)
