# SPDX-License-Identifier: GPL-2.0-or-later
"""Who did what: rows that are only added, each with a hash over all before.

Whoever changes or removes a row breaks the chain from there on.  That the last
ones were cut off can only be told by somebody who has noted their hash.
"""

import hashlib
import json
from dataclasses import dataclass
from typing import Any, Iterator, Mapping

from wsm.controller.storage import Connection

BEGIN = "0" * 64


@dataclass(frozen=True)
class Entry:
    """One row."""

    seq: int
    at: float
    who: str
    what: str
    data: Mapping[str, Any]
    epoch: int
    hash: str


def link(before: str, at: float, who: str, what: str, data: str,
         epoch: int) -> str:
    """Return the hash of a row that comes after that with hash @before."""
    text = json.dumps([before, at, who, what, data, epoch])
    return hashlib.sha256(text.encode()).hexdigest()


def add(connection: Connection, at: float, who: str, what: str,
        data: Mapping[str, Any], epoch: int) -> None:
    """Add a row, in the transaction of that which it is about."""
    text = json.dumps(data, sort_keys=True)
    last, before = connection.execute(
        "SELECT seq, hash FROM audit ORDER BY seq DESC LIMIT 1"
        ).fetchone() or (0, BEGIN)
    connection.execute(
        "INSERT INTO audit (seq, at, who, what, data, epoch, hash) "
        "VALUES (?, ?, ?, ?, ?, ?, ?)",
        (last + 1, at, who, what, text, epoch,
         link(before, at, who, what, text, epoch)))


def wrong(rows: Iterator[tuple[Any, ...]]) -> int:
    """
    Return the number of the first row that is not as it was written; 0: none.

    @rows are (seq, at, who, what, data, epoch, hash), in order.
    """
    before, expected = BEGIN, 1
    for seq, at, who, what, data, epoch, found in rows:
        if seq != expected or found != link(before, at, who, what, data,
                                            epoch):
            return int(expected)
        before, expected = found, seq + 1
    return 0
