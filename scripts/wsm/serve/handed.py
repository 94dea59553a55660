# SPDX-License-Identifier: GPL-2.0-or-later
"""The destination has everything: say so in the records of the images."""

import contextlib
import os
import time
from pathlib import Path

from wsm.durable import sync_folder
from wsm.record import ATTRIBUTE, BadRecord, encode_record, find_record


def put_attribute(image: Path, data: bytes) -> None:
    """Set the attribute, and sync it with the image."""
    handle = os.open(image, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.setxattr(handle, ATTRIBUTE, data)
        os.fsync(handle)
    finally:
        os.close(handle)


def put_file(path: Path, data: bytes) -> None:
    """Replace a record, with the mode and owner that it has."""
    status = path.stat()
    new = path.with_name(path.name + ".new")
    handle = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC |
                     os.O_NOFOLLOW | os.O_CLOEXEC, status.st_mode & 0o666)
    with open(handle, "wb") as stream:
        os.fchmod(handle, status.st_mode & 0o777)
        with contextlib.suppress(OSError):
            os.fchown(handle, status.st_uid, status.st_gid)
        stream.write(data)
        stream.flush()
        os.fsync(handle)
    os.replace(new, path)
    sync_folder(path.parent)


def hand_over(image: str, session: str) -> None:
    """
    Write that the guest of an image has left for good, as its source would.

    What the record says of the destination is needed no more.  Raises
    BadRecord or OSError.
    """
    record, where = find_record(Path(image))
    if record is None or (record["state"], record["session"]) != \
            ("leaving", session):
        raise BadRecord(f"{image}: its record has changed meanwhile")
    record.pop("handover", None)
    record.update(state="handed-over", time=int(time.time()))
    data = encode_record(record)
    if where.startswith("attribute"):
        put_attribute(Path(image), data)
    else:
        put_file(Path(where), data)
