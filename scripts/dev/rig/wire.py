# SPDX-License-Identifier: GPL-2.0-or-later
"""Messages of a block channel, written anew from the protocol's text.

Used by strangers that send bad ones and by the relay that stops at some.
"""

import enum
import struct
import uuid
from dataclasses import dataclass
from typing import Optional

PREAMBLE = b'WSMB'
MAGIC = 0x57534d31
VERSION = 4
TCG, KVM = 0x40, 0x80            # features: what runs the guest
FEATURES = 0x20 | TCG | KVM     # of a source without options: LACK too
HEADER = struct.Struct('>IHHIIQQ')
HELLO = struct.Struct('>16sHBBI')


class Type(enum.IntEnum):
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
    GO = 11
    ABORT = 12
    PULL = 13
    HAVE = 14
    BASIS = 15
    OWN = 16
    HASH = 17
    HASHES = 18
    POINT = 19
    GIVE_UP = 20
    SALT = 21
    NACK = 22
    WANT = 23
    PAGE = 24
    DONE = 25
    SETS = 26
    DIGESTS = 27
    STOP = 28


@dataclass(frozen=True)
class Message:
    type: int
    disk: int = 0
    epoch: int = 0
    offset: int = 0
    count: int = 0      # bytes of the range
    payload: bytes = b''
    length: Optional[int] = None        # if it shall not fit the payload
    magic: int = MAGIC

    def encode(self) -> bytes:
        length = len(self.payload) if self.length is None else self.length
        return HEADER.pack(self.magic, self.type, self.disk, self.epoch,
                           length, self.offset, self.count) + self.payload


def hello(session: str, channel: int = 1, channels: int = 3,
          version: int = VERSION, features: int = FEATURES) -> bytes:
    payload = HELLO.pack(uuid.UUID(session).bytes, version, channel,
                         channels, features)
    return Message(Type.HELLO, payload=payload).encode()


class NewerSource:
    """What a relay makes of a source: one of another version, or that can more.

    START has version, oldest version, features, required features; HELLO
    has the first and the third of these.
    """

    START = struct.Struct('>HHII')

    def __init__(self, version: int, features: int, required: int) -> None:
        self._start = self.START.pack(version, VERSION, features, required)
        self._version = struct.pack('>H', version)
        self._features = struct.pack('>I', features)
        self.starts = 0         # how many were changed
        self.hellos = 0

    def __call__(self, _kind: str, data: bytes) -> bytes:
        changed = bytearray(data)
        # Behind the name come instance, version of the section, length
        place = data.find(b'wsm-start')
        if place >= 0:
            place += len(b'wsm-start') + 12
            changed[place:place + self.START.size] = self._start
            self.starts += 1
        place = data.find(struct.pack('>IH', MAGIC, Type.HELLO))
        if place >= 0:
            place += HEADER.size + 16
            changed[place:place + 2] = self._version
            changed[place + 4:place + 8] = self._features
            self.hellos += 1
        return bytes(changed)


def other_accelerator(_kind: str, data: bytes) -> bytes:
    """What a relay makes of WELCOME: the destination has KVM, not TCG."""
    place = data.find(struct.pack('>IH', MAGIC, Type.WELCOME))
    if place < 0:
        return data
    place += HEADER.size
    features = int.from_bytes(data[place:place + 4], 'big') ^ TCG ^ KVM
    return data[:place] + struct.pack('>I', features) + data[place + 4:]


class Parser:
    """Finds the messages in one direction of a block channel."""

    def __init__(self, skip: int) -> None:
        self._skip = skip       # bytes until the next header
        self._head = b''
        self.counts: dict[int, int] = {}

    def feed(self, data: bytes, stop: frozenset[int]) -> Optional[int]:
        """Where in @data the first message of a type in @stop begins.

        A header that began in data fed before counts as beginning at 0.
        """
        place = 0
        found: Optional[int] = None
        while place < len(data):
            if self._skip:
                step = min(self._skip, len(data) - place)
                self._skip -= step
                place += step
                continue
            step = min(HEADER.size - len(self._head), len(data) - place)
            begin = max(0, place - len(self._head))
            self._head += data[place:place + step]
            place += step
            if len(self._head) < HEADER.size:
                break
            fields = HEADER.unpack(self._head)
            self._head = b''
            self._skip = fields[4]
            self.counts[fields[1]] = self.counts.get(fields[1], 0) + 1
            if found is None and fields[1] in stop:
                found = begin
        return found
