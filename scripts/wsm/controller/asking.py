# SPDX-License-Identifier: GPL-2.0-or-later
"""Ask many agents at once, and believe none of them to be well."""

from typing import Any, Mapping, Optional, Protocol

from wsm.cli.agents import AgentSaid, NoAnswer
from wsm.cli.home import Home
from wsm.pki import Identity
from wsm.visit import GONE, Visitor


class Asker(Protocol):
    """Whoever can be asked about hosts."""

    async def get(self, host: str, path: str, timeout: float,
                  query: Optional[Mapping[str, str]] = None) -> Any:
        """Return an answer; raise NoAnswer, AgentSaid."""


class Agents:
    """Agents by HTTPS.  Made in the event loop that uses it."""

    def __init__(self, home: Home) -> None:
        self.home = home
        self._visitor = Visitor(*home.certificate())

    async def close(self) -> None:
        """Hang up."""
        await self._visitor.close()

    async def get(self, host: str, path: str, timeout: float,
                  query: Optional[Mapping[str, str]] = None) -> Any:
        """Return an answer; raise NoAnswer, AgentSaid."""
        cluster = self.home.cluster
        address = cluster.hosts[host].address
        try:
            status, found = await self._visitor.get(
                f"https://{address}/v1{path}", cluster.name,
                Identity("agent", host), timeout, query)
        except GONE as error:
            raise NoAnswer(f"{host} ({address}): "
                           f"{str(error) or 'no answer in time'}") from error
        if status >= 400:
            said = found if isinstance(found, dict) else {}
            raise AgentSaid(str(said.get("code", ""))[:80],
                            f"{host}: {str(said.get('text', ''))[:1000]}")
        return found
