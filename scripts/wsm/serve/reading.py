# SPDX-License-Identifier: GPL-2.0-or-later
"""Read a killed source's images, and keep others from writing to them."""

import contextlib
import errno
import fcntl
import os
import shutil
import stat
import struct
import subprocess
import tempfile
import threading
import time
from pathlib import Path
from typing import Iterator, Optional, Protocol

from wsm.record import find_record
from wsm.serve.claims import Claim, Refused
from wsm.serve.nbd import NbdClient

QCOW2_MAGIC = b"QFI\xfb"
SECTOR = 512
# Locks of open files, with which QEMU says what it does with an image
# (block/file-posix.c): bytes for what it does, and for what others must not
F_OFD_GETLK, F_OFD_SETLK = 36, 37
FLOCK = "hhqqi4x"
DOES, FORBIDS = 100, 200
READ, WRITE, RESIZE = 0, 1, 3
OURS = (DOES + READ, FORBIDS + WRITE, FORBIDS + RESIZE)
# Whoever has one of these writes to it, or is about to, or serves it, too
OTHERS = (DOES + WRITE, DOES + RESIZE, FORBIDS + READ, FORBIDS + WRITE,
          FORBIDS + RESIZE)
# A process that was killed, and what it had started, let go a moment later
LET_GO_SECONDS = 2.0
NBD_SECONDS = 30.0
POLL_SECONDS = 0.05


class Disk(Protocol):
    """What a disk is read with; each method may be called in any thread."""

    size: int

    def extent(self, offset: int) -> tuple[int, bool]:
        """Return where the extent ends that is there; is it all zeroes?"""

    def read(self, offset: int, length: int) -> bytes:
        """Return what is there."""

    def close(self) -> None:
        """Let go of it."""


def ofd_lock(handle: int, command: int, kind: int, byte: int) -> bool:
    """Set or look for a lock of one byte; return whether one is in the way."""
    request = struct.pack(FLOCK, kind, os.SEEK_SET, byte, 1, 0)
    reply = fcntl.fcntl(handle, command, request)
    return bool(struct.unpack(FLOCK, reply)[0] != fcntl.F_UNLCK)


def is_busy(handle: int) -> bool:
    """Has another process the image open, for long?"""
    until = time.monotonic() + LET_GO_SECONDS
    while any(ofd_lock(handle, F_OFD_GETLK, fcntl.F_WRLCK, byte)
              for byte in OTHERS):
        if time.monotonic() > until:
            return True
        time.sleep(POLL_SECONDS)
    return False


def lock_image(image: str, handle: int) -> None:
    """
    See to it that no QEMU writes to an image as long as @handle is open, and
    that nobody else serves it; raise Refused.
    """
    try:
        # All first, so that of two at a time at least one sees the other
        for byte in OURS:
            ofd_lock(handle, F_OFD_SETLK, fcntl.F_RDLCK, byte)
        busy = is_busy(handle)
    except OSError as error:
        raise Refused(f"{image}: cannot lock it: {error}") from error
    if busy:
        raise Refused(f"{image}: another process has it open: the source's "
                      "QEMU, if it was not killed after all, another "
                      "wsm-serve, or a guest that was started from it")


class RawDisk:
    """A raw image, and its lock."""

    def __init__(self, handle: int, size: int) -> None:
        self.handle = handle
        self.size = size

    def extent(self, offset: int) -> tuple[int, bool]:
        """Return where the extent ends that is there; is it all zeroes?"""
        try:
            data = os.lseek(self.handle, offset, os.SEEK_DATA)
        except OSError as error:
            if error.errno == errno.ENXIO:
                return self.size, True
            return self.size, False
        if data > offset:
            return min(data, self.size), True
        return min(os.lseek(self.handle, offset, os.SEEK_HOLE),
                   self.size), False

    def read(self, offset: int, length: int) -> bytes:
        """Return what is there."""
        parts = []
        while length:
            part = os.pread(self.handle, length, offset)
            # The last sector of the disk may not be whole in the file
            part = part or bytes(length)
            parts.append(part)
            offset += len(part)
            length -= len(part)
        return b"".join(parts)

    def close(self) -> None:
        """Let go of it."""
        os.close(self.handle)


class NbdDisk:
    """An image that qemu-nbd reads for us, and its lock."""

    def __init__(self, claim: Claim, handle: int, program: str) -> None:
        self.handle = handle
        self.lock = threading.Lock()
        self.folder = tempfile.mkdtemp(prefix="wsm-serve-")
        self.process: Optional[subprocess.Popen[bytes]] = None
        try:
            self.client = self._start(claim, program)
        except BaseException:
            self._end()
            raise
        self.size = self.client.size

    def _start(self, claim: Claim, program: str) -> NbdClient:
        """It ends when its only client hangs up, also if we are killed."""
        path = os.path.join(self.folder, "nbd")
        # pylint: disable-next=consider-using-with
        self.process = subprocess.Popen(
            [program, "--read-only", "--format", claim.format or "raw",
             "--socket", path, os.path.abspath(claim.image)],
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE)
        until = time.monotonic() + NBD_SECONDS
        while True:
            ended = self.process.poll() is not None
            try:
                return NbdClient(path, NBD_SECONDS)
            except (FileNotFoundError, ConnectionRefusedError) as error:
                if ended or time.monotonic() > until:
                    raise Refused(f"{claim.image}: {program} cannot open it: "
                                  f"{self._said()}") from error
            except (OSError, struct.error) as error:
                raise Refused(f"{claim.image}: {program}: {error}; "
                              f"{self._said()}") from error
            time.sleep(POLL_SECONDS)

    def _said(self) -> str:
        """Return why the server has ended."""
        assert self.process and self.process.stderr
        self.process.kill()
        return self.process.stderr.read().decode(errors="replace").strip()

    def extent(self, offset: int) -> tuple[int, bool]:
        """Return where the extent ends that is there; is it all zeroes?"""
        with self.lock:
            return self.client.extent(offset)

    def read(self, offset: int, length: int) -> bytes:
        """Return what is there."""
        with self.lock:
            return self.client.read(offset, length)

    def close(self) -> None:
        """Let go of it."""
        with self.lock:
            self.client.close()
        self._end()

    def _end(self) -> None:
        if self.process:
            try:
                self.process.wait(NBD_SECONDS)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
            assert self.process.stderr
            self.process.stderr.close()
        shutil.rmtree(self.folder, ignore_errors=True)
        os.close(self.handle)


def look_at_format(claim: Claim, head: bytes, file_size: int) -> str:
    """
    Return the format of an image whose record does not say it.

    A guest may write to a raw disk what looks like qcow2, with a backing file
    of its choice; but a raw image is as long as the disk.
    """
    fits = -(-file_size // SECTOR) * SECTOR == claim.size
    if head.startswith(QCOW2_MAGIC):
        if fits:
            raise Refused(f"{claim.image}: whether it is raw or qcow2 is not "
                          "clear; say it with --format")
        return "qcow2"
    return "raw"


def open_disk(claim: Claim, format_: Optional[str],
              program: Optional[str]) -> Disk:
    """Open and lock an image; raise Refused."""
    try:
        handle = os.open(claim.image, os.O_RDONLY | os.O_CLOEXEC |
                         os.O_NONBLOCK)
    except OSError as error:
        raise Refused(f"{claim.image}: {error.strerror}") from error
    with contextlib.ExitStack() as stack:
        stack.callback(os.close, handle)
        status = os.fstat(handle)
        if not stat.S_ISREG(status.st_mode):
            raise Refused(f"{claim.image}: it is no regular file")
        lock_image(claim.image, handle)
        kind = claim.format or format_ or look_at_format(
            claim, os.pread(handle, len(QCOW2_MAGIC), 0), status.st_size)
        disk: Disk
        if kind == "raw":
            size = -(-status.st_size // SECTOR) * SECTOR
            disk = RawDisk(handle, size)
            stack.pop_all()
        elif program is None:
            raise Refused(f"{claim.image}: no qemu-nbd found, with which "
                          f"{kind} is read; name it with --qemu-nbd")
        else:
            stack.pop_all()     # it closes the handle, whatever happens
            disk = NbdDisk(Claim(claim.image, claim.number, claim.size, kind,
                                 claim.points), handle, program)
    if disk.size != claim.size:
        size = disk.size
        disk.close()
        raise Refused(f"{claim.image}: the disk has {size} bytes, but "
                      f"{claim.size} in its record; it was resized or "
                      "replaced")
    return disk


@contextlib.contextmanager
def open_disks(claims: tuple[Claim, ...], format_: Optional[str],
               program: Optional[str]) -> Iterator[list[Disk]]:
    """Have all disks open and locked; raise Refused."""
    with contextlib.ExitStack() as stack:
        disks = []
        for claim in claims:
            disk = open_disk(claim, format_, program)
            stack.callback(disk.close)
            disks.append(disk)
        # Nobody changes a record under us any more; it may have been before
        for claim in claims:
            record = find_record(Path(claim.image))[0]
            if record is None or record["state"] != "leaving":
                raise Refused(f"{claim.image}: its record has changed just "
                              "now")
        yield disks
