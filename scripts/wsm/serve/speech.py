# SPDX-License-Identifier: GPL-2.0-or-later
"""Messages of a block channel, as docs/protocol.md has them.  Does no I/O."""

import enum
import struct
import uuid
from dataclasses import dataclass

PREAMBLE = b"WSMB"
MAGIC = 0x57534d31
VERSION = 4
AFTER_FREEZE = 1                # the epoch
HEADER = struct.Struct(">IHHIIQQ")
HELLO = struct.Struct(">16sHBBI")
MAX_PAYLOAD = 1024              # of what a destination says after the freeze
MAX_RUNS = 1 << 20              # but of LACK
LACKS = 1 << 5                  # feature: the destination says LACK
MAX_ZERO = 64 << 20


class Kind(enum.IntEnum):
    """The types that go over a channel after the freeze, and the first."""

    HELLO = 1
    WELCOME = 2
    REFUSE = 3
    DATA = 4
    ZERO = 5
    ACK = 6
    FAIL = 7
    SYNC = 8
    SYNC_ACK = 9
    READY = 10
    PULL = 13
    HAVE = 14
    POINT = 19
    GIVE_UP = 20
    LACK = 29
    ANEW = 30


class BadMessage(Exception):
    """The destination said what it cannot say; says what."""


@dataclass(frozen=True)
class Message:
    """A message, with the payload that it has."""

    kind: int
    disk: int = 0
    epoch: int = AFTER_FREEZE
    offset: int = 0
    count: int = 0              # bytes of the range, or what the type has
    payload: bytes = b""

    def encode(self) -> bytes:
        """Return it as it goes over the wire."""
        return HEADER.pack(MAGIC, self.kind, self.disk, self.epoch,
                           len(self.payload), self.offset,
                           self.count) + self.payload

    def text(self) -> str:
        """Return a payload that is for people."""
        return self.payload.decode(errors="replace")


@dataclass(frozen=True)
class Head:
    """The header of a message that came; the payload is yet to come."""

    kind: int
    disk: int
    epoch: int
    length: int
    offset: int
    count: int

    def with_payload(self, payload: bytes) -> Message:
        """Return the message."""
        return Message(self.kind, self.disk, self.epoch, self.offset,
                       self.count, payload)


def decode_head(data: bytes) -> Head:
    """Return a header; raise BadMessage."""
    magic, *fields = HEADER.unpack(data)
    if magic != MAGIC:
        raise BadMessage(f"its magic is {magic:08x}, not {MAGIC:08x}")
    head = Head(*fields)
    most = MAX_RUNS if head.kind == Kind.LACK else MAX_PAYLOAD
    if head.length > most:
        raise BadMessage(f"a message of type {head.kind} has "
                         f"{head.length} bytes of payload, at most "
                         f"{most} are allowed")
    return head


def hello(session: str, version: int, channel: int, channels: int,
          features: int) -> Message:
    """Return what is said first on a channel."""
    return Message(Kind.HELLO, epoch=0,
                   payload=HELLO.pack(uuid.UUID(session).bytes, version,
                                      channel, channels, features))


def leb128(value: int) -> bytes:
    """Return an unsigned number as runs have it."""
    out = bytearray()
    while value > 0x7f:
        out.append(value & 0x7f | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def all_changed(disk: int, size: int, granularity: int,
                index: int) -> Message:
    """
    Return POINT: of a sync point, say that every block was written since.

    The killed source knew which ones were.  To say more is safe: a migration
    that builds on the point sends more than it would need to.
    """
    blocks = -(-size // granularity)
    payload = bytes([index, 0]) + leb128(0) + leb128(blocks)
    return Message(Kind.POINT, disk=disk, count=size, payload=payload)
