# SPDX-License-Identifier: GPL-2.0-or-later
"""Ask many agents at once, and believe none of them to be well."""

import asyncio
import json
from typing import Any, Mapping, Optional, Protocol

import aiohttp

from wsm import pki
from wsm.cli.agents import AgentSaid, NoAnswer
from wsm.cli.home import Home

LIMIT = 4 << 20                 # bytes of an answer
AT_ONCE = 64
# What a client raises when the other end is away, or sends rubbish
GONE = (aiohttp.ClientError, asyncio.TimeoutError, OSError, ValueError,
        RecursionError)


class Reply(aiohttp.ClientResponse):
    """An answer that knows who gave it; its connection is soon another's."""

    peer: Mapping[str, Any] = {}

    async def start(self, connection: Any) -> aiohttp.ClientResponse:
        """Read the begin of it."""
        transport = connection.transport
        self.peer = (transport and transport.get_extra_info("peercert")) or {}
        return await super().start(connection)


class Asker(Protocol):
    """Whoever can be asked about hosts."""

    async def get(self, host: str, path: str, timeout: float,
                  query: Optional[Mapping[str, str]] = None) -> Any:
        """Return an answer; raise NoAnswer, AgentSaid."""


class Agents:
    """Agents by HTTPS.  Made in the event loop that uses it."""

    def __init__(self, home: Home) -> None:
        self.home = home
        self._context = pki.client_context(*home.certificate())
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=AT_ONCE),
            auto_decompress=False, response_class=Reply)

    async def close(self) -> None:
        """Hang up."""
        await self._session.close()

    async def get(self, host: str, path: str, timeout: float,
                  query: Optional[Mapping[str, str]] = None) -> Any:
        """Return an answer; raise NoAnswer, AgentSaid."""
        cluster = self.home.cluster
        address = cluster.hosts[host].address
        try:
            return await asyncio.wait_for(self._get(
                f"https://{address}/v1{path}", host, cluster.name,
                query or {}), timeout)
        except GONE as error:
            raise NoAnswer(f"{host} ({address}): "
                           f"{str(error) or 'no answer in time'}") from error

    async def _get(self, url: str, host: str, cluster: str,
                   query: Mapping[str, str]) -> Any:
        async with self._session.get(url, params=query, ssl=self._context,
                                     allow_redirects=False) as reply:
            assert isinstance(reply, Reply)
            if not pki.is_for(reply.peer, cluster, "agent", host):
                reply.close()
                raise NoAnswer(f"who answers at {url} is not the agent of "
                               f"{host}")
            data = await self._read(reply)
        found = json.loads(data)
        if reply.status >= 400:
            said = found if isinstance(found, dict) else {}
            raise AgentSaid(str(said.get("code", ""))[:80],
                            f"{host}: {str(said.get('text', ''))[:1000]}")
        return found

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
