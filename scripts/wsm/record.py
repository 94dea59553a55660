# SPDX-License-Identifier: GPL-2.0-or-later
"""Read the record of an image, which docs/records.md describes."""

import base64
import binascii
import errno
import hashlib
import json
import os
import stat
import uuid
from pathlib import Path
from typing import Any, Iterator, Mapping, Optional

ATTRIBUTE = "user.wsm"
# There is none, or who asks may not know, as QEMU has it
NO_ATTRIBUTE = (errno.ENODATA, errno.ENOTSUP, errno.EACCES)
MAGIC = b"wsm-record "
# The second one has one of them
NEWER = ("handover", "map-node", "map-disk")
VERSIONS = (b"1", b"2")
MAX_BYTES = 63 << 20        # WSM_RECORD_MAX_BYTES
STATES = ("current", "incomplete", "leaving", "handed-over")
STAMP = ("device", "inode", "size", "mtime", "ctime")
# What must be the same: ctime changes with the owner, too
COUNTS = STAMP[:-1]

# Member: (type, needed)
POINT_MEMBERS = {"id": (str, True), "granularity": (int, True),
                 "since": (str, True), "rest": (str, False)}
STAMP_MEMBERS = {name: (int, True) for name in STAMP}
HANDOVER_MEMBERS = {"disk": (int, True), "disks": (int, True),
                    "format": (str, True), "points": (int, True),
                    "granularity": (int, True), "channels": (int, True),
                    "version": (int, True), "features": (int, True),
                    "uri": (str, True), "tls": (bool, True)}
RECORD_MEMBERS = {"state": (str, True), "session": (str, True),
                  "time": (int, True), "peer": (str, False),
                  "disk-size": (int, True), "stamp": (dict, False),
                  "points": (list, True), "handover": (dict, False),
                  "map-node": (str, False), "map-disk": (int, False)}


class BadRecord(Exception):
    """A record that cannot be used; says why."""


def check_members(value: Any, members: Mapping[str, tuple[type, bool]],
                  what: str) -> None:
    """Refuse a JSON object that has not the @members it should have."""
    if not isinstance(value, dict):
        raise BadRecord(f"{what} is no object")
    for name in value:
        if name not in members:
            raise BadRecord(f"{what}: member '{name}' is not known")
    for name, (kind, needed) in members.items():
        if name not in value:
            if needed:
                raise BadRecord(f"{what}: member '{name}' is missing")
        elif (not isinstance(value[name], kind)
              or isinstance(value[name], bool) != (kind is bool)):
            raise BadRecord(f"{what}: member '{name}' is of a wrong type")


def check_point(point: Any) -> None:
    """Refuse a sync point that makes no sense."""
    check_members(point, POINT_MEMBERS, "a sync point")
    try:
        uuid.UUID(point["id"])
    except ValueError as error:
        raise BadRecord(f"sync point '{point['id']}': no UUID") from error
    granularity = point["granularity"]
    if granularity <= 0 or granularity & (granularity - 1):
        raise BadRecord(f"sync point {point['id']}: the granularity "
                        f"{granularity} is no power of two")


def decode_record(data: bytes) -> dict[str, Any]:
    """Return the content of a record; raise BadRecord."""
    head, _, body = data.partition(b"\n")
    if not head.startswith(MAGIC):
        raise BadRecord("it is no record, or torn: it does not begin with "
                        f"'{MAGIC.decode()}'")
    words = head.split(b" ")
    if words[1].isdigit() and words[1] not in VERSIONS and len(words) > 2:
        raise BadRecord(f"it has version {words[1].decode()[:9]}, but this "
                        "program reads only versions "
                        + b" and ".join(VERSIONS).decode())
    if (words[1] not in VERSIONS
            or words[2:] != [hashlib.sha256(body).hexdigest().encode()]):
        raise BadRecord("it is torn or was changed: its SHA-256 is not the "
                        "one in its first line")
    try:
        record: dict[str, Any] = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise BadRecord(f"it is no JSON: {error}") from error
    check_members(record, RECORD_MEMBERS, "the record")
    if record["state"] not in STATES:
        raise BadRecord(f"state '{record['state']}' is not known")
    if "stamp" in record:
        check_members(record["stamp"], STAMP_MEMBERS, "the stamp")
    if "handover" in record:
        check_members(record["handover"], HANDOVER_MEMBERS, "the handover")
    for point in record["points"]:
        check_point(point)
    return record


def encode_record(record: Mapping[str, Any]) -> bytes:
    """Return what a file or attribute has of a record."""
    body = json.dumps(record, indent=4).encode() + b"\n"
    version = VERSIONS[any(name in record for name in NEWER)]
    return b"%s%s %s\n%s" % (MAGIC, version,
                             hashlib.sha256(body).hexdigest().encode(), body)


def load_record(path: Path) -> Optional[dict[str, Any]]:
    """Return the record in file @path, None if there is no such file."""
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            raise BadRecord("it is no regular file")
        if status.st_size > MAX_BYTES:
            raise BadRecord(f"it has {status.st_size} bytes, but a record has "
                            f"at most {MAX_BYTES}")
        return decode_record(path.read_bytes())
    except FileNotFoundError:
        return None
    except OSError as error:
        raise BadRecord(error.strerror or str(error)) from error


def load_attribute(path: Path) -> Optional[dict[str, Any]]:
    """Return the record in the attribute of an image, None without one."""
    try:
        data = os.getxattr(path, ATTRIBUTE)
    except OSError as error:
        if error.errno in NO_ATTRIBUTE:
            return None
        raise BadRecord(error.strerror or str(error)) from error
    return decode_record(data)


def find_record(image: Path) -> tuple[Optional[dict[str, Any]], str]:
    """
    Return the record of an image as QEMU finds it, and where it is.

    An attribute outweighs a file, which lies beside the image itself, not
    beside links to it.  What is wrong with it begins with where it is.
    """
    file = os.path.realpath(image)
    where = f"attribute {ATTRIBUTE}"
    try:
        record = load_attribute(Path(file)) if os.path.exists(file) else None
        if record is None:
            where = f"{file}.wsm"
            record = load_record(Path(where))
    except (BadRecord, ValueError) as error:
        raise BadRecord(f"record {where} cannot be used: {error}") from error
    return record, where


def numbers(data: bytes) -> Iterator[int]:
    """Yield unsigned LEB128 numbers."""
    value = shift = 0
    for byte in data:
        value |= (byte & 0x7f) << shift
        shift += 7
        if shift > 70:
            raise BadRecord("a list of runs has a number that is too large")
        if not byte & 0x80:
            yield value
            value = shift = 0
    if shift:
        raise BadRecord("a list of runs ends within a number")


def runs_bytes(text: str, granularity: int, disk_size: int) -> int:
    """Return how many bytes of the disk the runs in base64 @text are."""
    try:
        values = numbers(base64.b64decode(text, validate=True))
    except binascii.Error as error:
        raise BadRecord(f"a list of runs is no base64: {error}") from error
    total = block = 0
    for gap in values:
        count = next(values, 0)
        if count == 0:
            raise BadRecord("a list of runs has a run without a length")
        begin = (block + gap) * granularity
        block += gap + count
        if begin + (count - 1) * granularity >= disk_size:
            raise BadRecord("a list of runs goes beyond the disk's end")
        total += min(block * granularity, disk_size) - begin
    return total


def stamp_of(status: os.stat_result) -> dict[str, int]:
    """Return what the record would say of a file."""
    return dict(zip(STAMP, (status.st_dev, status.st_ino, status.st_size,
                            status.st_mtime_ns, status.st_ctime_ns)))
