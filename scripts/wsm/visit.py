# SPDX-License-Identifier: GPL-2.0-or-later
"""Ask at doors, many at once, and believe none of those who answer.

Certificates at both ends; the other one must be who it shall be, and answers
in a size and in JSON that can be read.
"""

import asyncio
import json
from pathlib import Path
from typing import Any, Mapping, Optional

import aiohttp

from wsm import pki

LIMIT = 4 << 20                 # bytes of an answer
AT_ONCE = 64
# What is raised when the other end is away, or sends rubbish
GONE = (aiohttp.ClientError, asyncio.TimeoutError, OSError, ValueError,
        RecursionError)


class Stranger(OSError):
    """Who answers is not who shall."""


class Reply(aiohttp.ClientResponse):
    """An answer that knows who gave it; its connection is soon another's."""

    peer: Mapping[str, Any] = {}

    async def start(self, connection: Any) -> aiohttp.ClientResponse:
        """Read the begin of it."""
        transport = connection.transport
        self.peer = (transport and transport.get_extra_info("peercert")) or {}
        return await super().start(connection)


class Visitor:
    """One certificate.  Made in the event loop that uses it."""

    def __init__(self, ca: Path, certificate: Path, key: Path) -> None:
        self._context = pki.client_context(ca, certificate, key)
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=AT_ONCE),
            auto_decompress=False, response_class=Reply)

    async def close(self) -> None:
        """Hang up."""
        await self._session.close()

    async def get(self, url: str, cluster: str, who: pki.Identity,
                  timeout: float, query: Optional[Mapping[str, str]] = None
                  ) -> tuple[int, Any]:
        """Return (status, what @who answers); raise one of GONE."""
        return await asyncio.wait_for(self._get(url, cluster, who,
                                                query or {}), timeout)

    async def _get(self, url: str, cluster: str, who: pki.Identity,
                   query: Mapping[str, str]) -> tuple[int, Any]:
        async with self._session.get(url, params=query, ssl=self._context,
                                     allow_redirects=False) as reply:
            assert isinstance(reply, Reply)
            if not pki.is_for(reply.peer, cluster, who.kind, who.name):
                reply.close()
                raise Stranger(f"who answers at {url} is not the {who.kind} "
                               f"of {who.name}")
            data = await self._read(reply)
        return reply.status, json.loads(data)

    @staticmethod
    async def _read(reply: aiohttp.ClientResponse) -> bytes:
        parts, size = [], 0
        async for part in reply.content.iter_chunked(1 << 16):
            size += len(part)
            if size > LIMIT:
                reply.close()
                raise ValueError(f"more than {LIMIT >> 20} MiB in one answer")
            parts.append(part)
        return b"".join(parts)
