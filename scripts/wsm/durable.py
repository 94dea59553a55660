# SPDX-License-Identifier: GPL-2.0-or-later
"""Small files that are there whole, or not, also after a power cut."""

import contextlib
import json
import os
import tempfile
from pathlib import Path
from typing import Any, Optional, TypeVar

from wsm.plan.plain import BadData, from_plain, to_plain

T = TypeVar("T")


def sync_folder(folder: Path) -> None:
    """Make sure that names in @folder are on the disk."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write(path: Path, data: bytes, mode: int = 0o600) -> None:
    """Give @path the content @data; when this returns it is on the disk."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=".new-")
    try:
        with os.fdopen(handle, "wb") as stream:
            stream.write(data)
            stream.flush()
            os.fchmod(stream.fileno(), mode)
            os.fsync(stream.fileno())
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)
        raise
    sync_folder(path.parent)


def save(path: Path, value: Any) -> None:
    """Write a dataclass as JSON."""
    write(path, json.dumps(to_plain(value), indent=4).encode() + b"\n")


def load(kind: type[T], path: Path) -> Optional[T]:
    """Return the dataclass in @path, None if it is not there."""
    try:
        return from_plain(kind, json.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError:
        return None
    except (ValueError, BadData) as error:
        raise BadData(f"{path}: {error}") from error


def remove(path: Path) -> None:
    """Remove a file, for good; it may be gone already."""
    try:
        path.unlink()
    except FileNotFoundError:
        return
    sync_folder(path.parent)
