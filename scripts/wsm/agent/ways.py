# SPDX-License-Identifier: GPL-2.0-or-later
"""How far other hosts are: round trips and losses, as the kernel's TCP saw them.

A few small questions on one connection to the other agent's door, and what
TCP_INFO says of it then.  So there is no port more, and no flood: some 20 kB.
"""

import asyncio
import socket
import ssl
import struct
import time
from pathlib import Path

from wsm import pki
from wsm.agent.config import Config
from wsm.plan.inventory import Way

QUESTIONS = 8
TIMEOUT = 10.0                  # s
PAD = "x" * 1200                # a segment for each question
LIMIT = 1 << 16                 # bytes of an answer
MOST = 64                       # other hosts that are remembered
MANY = 4000                     # segments, of which older ones count half
# struct tcp_info: tcpi_rtt (us), tcpi_total_retrans, tcpi_min_rtt (us),
# tcpi_data_segs_out
RTT, RETRANS, LEAST, SEGMENTS = 68, 100, 148, 156
SIZE = 232


class NoWay(OSError):
    """Who is there is not who shall be, or does not answer."""


def seen(sock: socket.socket) -> tuple[float, int, int]:
    """Return (s of a round trip, segments sent, and sent again)."""
    info = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, SIZE)

    def word(at: int) -> int:
        return int(struct.unpack_from("=I", info, at)[0]) if (
            len(info) >= at + 4) else 0

    return (word(LEAST) or word(RTT)) / 1e6, word(SEGMENTS), word(RETRANS)


class Ways:
    """Of this host to others."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self.known: dict[str, Way] = {}

    async def measure(self, peer: str, at: str) -> Way:
        """Measure the way to a host whose agent listens @at; raise NoWay."""
        try:
            found = await asyncio.wait_for(self._ask(peer, at), TIMEOUT)
        except (OSError, ValueError, EOFError, asyncio.TimeoutError,
                asyncio.LimitOverrunError) as error:
            raise NoWay(f"the way to {peer} ({at}) is not known: "
                        f"{str(error) or 'no answer in time'}") from error
        self.note(peer, *found)
        return self.known[peer]

    def note(self, peer: str, rtt: float, sent: int, lost: int) -> None:
        """Add what was seen; of many others the oldest is forgotten."""
        old = self.known.pop(peer, Way(rtt))
        part = 0.5 if old.sent > MANY else 1.0
        self.known[peer] = Way(rtt, int(part * old.sent) + sent,
                               int(part * old.lost) + lost, time.time())
        while len(self.known) > MOST:
            del self.known[next(iter(self.known))]

    async def _ask(self, peer: str, at: str) -> tuple[float, int, int]:
        address, _, port = at.rpartition(":")
        tls = self.config.tls
        context: ssl.SSLContext = pki.client_context(
            Path(tls.ca), Path(tls.cert), Path(tls.key))
        reader, writer = await asyncio.open_connection(
            address.strip("[]"), int(port), ssl=context, limit=LIMIT)
        try:
            if not pki.is_for(writer.get_extra_info("peercert") or {},
                              self.config.cluster, "agent", peer):
                raise NoWay("another one answers there")
            for _ in range(QUESTIONS):
                writer.write(f"GET /v1/ping HTTP/1.1\r\nHost: {peer}\r\n"
                             f"X-Pad: {PAD}\r\n\r\n".encode())
                await self._read(reader)
            return seen(writer.get_extra_info("socket"))
        finally:
            writer.close()

    @staticmethod
    async def _read(reader: asyncio.StreamReader) -> None:
        """Read an answer, whatever it is."""
        head = await reader.readuntil(b"\r\n\r\n")
        for line in head.lower().split(b"\r\n"):
            name, _, value = line.partition(b":")
            if name == b"content-length":
                await reader.readexactly(min(int(value), LIMIT))
