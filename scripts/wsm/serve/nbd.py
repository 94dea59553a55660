# SPDX-License-Identifier: GPL-2.0-or-later
"""Read a disk from an NBD server, and learn where it has data.

As much of the protocol (doc/proto.md of the NBD project) as qemu-nbd needs to
serve a disk to one reader.
"""

import socket
import struct
from typing import Optional

INIT_MAGIC = 0x4e42444d41474943
OPTION_MAGIC = 0x49484156454f5054
REPLY_MAGIC = 0x3e889045565a9
REQUEST_MAGIC = 0x25609513
CHUNK_MAGIC = 0x668e33ef
FIXED_NEWSTYLE, NO_ZEROES = 1, 2
OPT_GO, OPT_STRUCTURED_REPLY, OPT_SET_META_CONTEXT = 7, 8, 10
REP_ACK, REP_INFO, REP_META_CONTEXT, REP_ERROR = 1, 3, 4, 1 << 31
INFO_EXPORT = 0
CMD_READ, CMD_DISCONNECT, CMD_STATUS = 0, 2, 7
CHUNK_NONE, CHUNK_DATA, CHUNK_HOLE, CHUNK_STATUS = 0, 1, 2, 5
CHUNK_ERROR = 1 << 15
DONE = 1                        # flag of the last chunk
STATE_ZERO = 2
CONTEXT = b"base:allocation"
MAX_CHUNK = 64 << 20
MAX_STATUS = 1 << 30            # so much of the disk is asked for at once


class NbdError(OSError):
    """The server failed, or broke the protocol."""


class NbdClient:
    """A connection to a server; one request at a time."""

    def __init__(self, path: str, timeout: float) -> None:
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.cookie = 0
        self.size = 0
        try:
            self.socket.settimeout(timeout)
            self.socket.connect(path)
            self._negotiate()
        except (OSError, struct.error):
            self.socket.close()
            raise
        # A disk may take its time
        self.socket.settimeout(None)

    def _receive(self, size: int) -> bytes:
        data = bytearray(size)
        view = memoryview(data)
        while view:
            got = self.socket.recv_into(view)
            if not got:
                raise NbdError("the NBD server has hung up")
            view = view[got:]
        return bytes(data)

    def _option(self, option: int, data: bytes) -> list[tuple[int, bytes]]:
        """Ask for an option; return its replies up to the last."""
        self.socket.sendall(struct.pack(">QII", OPTION_MAGIC, option,
                                        len(data)) + data)
        replies: list[tuple[int, bytes]] = []
        while True:
            magic, echo, kind, length = struct.unpack(
                ">QIII", self._receive(20))
            if magic != REPLY_MAGIC or echo != option or length > 1 << 16:
                raise NbdError("the NBD server does not speak NBD")
            payload = self._receive(length)
            if kind & REP_ERROR:
                raise NbdError(f"the NBD server refuses option {option}: "
                               f"{payload.decode(errors='replace')}")
            if kind == REP_ACK:
                return replies
            replies.append((kind, payload))

    def _negotiate(self) -> None:
        magic, option_magic, flags = struct.unpack(">QQH", self._receive(18))
        if (magic, option_magic) != (INIT_MAGIC, OPTION_MAGIC) or \
                not flags & FIXED_NEWSTYLE:
            raise NbdError("the NBD server is too old, or none")
        self.socket.sendall(struct.pack(">I", flags & (FIXED_NEWSTYLE |
                                                       NO_ZEROES)))
        self._option(OPT_STRUCTURED_REPLY, b"")
        contexts = self._option(
            OPT_SET_META_CONTEXT,
            struct.pack(">III", 0, 1, len(CONTEXT)) + CONTEXT)
        if [kind for kind, _ in contexts] != [REP_META_CONTEXT]:
            raise NbdError("the NBD server does not tell where data is")
        for kind, info in self._option(OPT_GO, struct.pack(">IH", 0, 0)):
            if kind == REP_INFO and info[:2] == struct.pack(">H", INFO_EXPORT):
                self.size, = struct.unpack_from(">Q", info, 2)

    def _request(self, command: int, offset: int, length: int) -> None:
        self.cookie += 1
        self.socket.sendall(struct.pack(">IHHQQI", REQUEST_MAGIC, 0, command,
                                        self.cookie, offset, length))

    def _chunk(self) -> tuple[int, int, bytes]:
        """Return (flags, type, payload) of the next part of the answer."""
        magic, flags, kind, cookie, length = struct.unpack(
            ">IHHQI", self._receive(20))
        if magic != CHUNK_MAGIC or cookie != self.cookie or length > MAX_CHUNK:
            raise NbdError("the NBD server answers what nobody has asked")
        payload = self._receive(length)
        if kind & CHUNK_ERROR:
            code, = struct.unpack_from(">I", payload)
            text = payload[6:].decode(errors="replace")
            raise NbdError(code, text or f"error {code} of the NBD server")
        return flags, kind, payload

    def read(self, offset: int, length: int) -> bytes:
        """Return what the disk has there."""
        data = bytearray(length)
        self._request(CMD_READ, offset, length)
        flags = 0
        while not flags & DONE:
            flags, kind, payload = self._chunk()
            if kind == CHUNK_DATA:
                where, = struct.unpack_from(">Q", payload)
                part = payload[8:]
                if where < offset or \
                        where + len(part) > offset + length:
                    raise NbdError("the NBD server sends what nobody has "
                                   "asked for")
                data[where - offset:where - offset + len(part)] = part
            elif kind not in (CHUNK_NONE, CHUNK_HOLE):
                raise NbdError(f"the NBD server sends a chunk {kind}")
        return bytes(data)

    def extent(self, offset: int) -> tuple[int, bool]:
        """Return where the extent ends that is there; is it all zeroes?"""
        length = min(MAX_STATUS, self.size - offset)
        found: Optional[tuple[int, bool]] = None
        self._request(CMD_STATUS, offset, length)
        flags = 0
        while not flags & DONE:
            flags, kind, payload = self._chunk()
            if kind == CHUNK_STATUS and len(payload) >= 12:
                _, size, state = struct.unpack_from(">III", payload)
                found = offset + min(size, length), bool(state & STATE_ZERO)
        if found is None or found[0] <= offset:
            raise NbdError("the NBD server does not say where data is")
        return found

    def close(self) -> None:
        """Hang up; the server ends then."""
        try:
            self._request(CMD_DISCONNECT, 0, 0)
        except OSError:
            pass
        self.socket.close()
