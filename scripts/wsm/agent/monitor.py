# SPDX-License-Identifier: GPL-2.0-or-later
"""A monitor of a QEMU: QEMU's own library, with time-outs and limits."""

import asyncio
import contextlib
from pathlib import Path
from typing import Any, Optional

from qemu.qmp import (EventListener, ExecuteError, QMPClient, QMPError,
                      Runstate)

from wsm.plan import permit

TIMEOUT = 15.0          # s for an answer
EVENTS = 1000           # kept
# What QEMU's library raises when the other end has gone, or sends rubbish;
# ValueError is for more than 10 MiB at once
GONE = (QMPError, EOFError, OSError, ValueError, asyncio.TimeoutError)
LIFE = ("WSM_PHASE", "MIGRATION", "SHUTDOWN", "STOP", "RESUME")


class QmpFailed(Exception):
    """QEMU refused a command; the text is its own."""


class QmpGone(Exception):
    """QEMU does not answer, or has ended."""


class Monitor:
    """
    One connection.  Used from one event loop only.

    From its begin to its end it keeps what QEMU says of itself, so that it
    can be told whether a guest ever ran.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.events: list[tuple[str, dict[str, Any]]] = []
        self.ended = False
        self._client = QMPClient(path.parent.name)
        self._listener = EventListener()
        self._client.register_listener(self._listener)
        self._task: Optional[asyncio.Task[None]] = None

    async def connect(self, timeout: float = TIMEOUT) -> "Monitor":
        """Say hello; raise QmpGone."""
        try:
            await asyncio.wait_for(self._client.connect(str(self.path)),
                                   timeout)
        except GONE as error:
            self.ended = True
            raise QmpGone(f"{self.path}: {error or 'no answer'}") from error
        self._task = asyncio.create_task(self._listen())
        return self

    def is_open(self) -> bool:
        """Return whether QEMU has not hung up, as far as is known."""
        return not self.ended and self._client.runstate is Runstate.RUNNING

    async def _listen(self) -> None:
        async for message in self._listener:
            if message["event"] in LIFE and len(self.events) < EVENTS:
                data = message.get("data")
                self.events.append((str(message["event"]), dict(data)
                                    if isinstance(data, dict) else {}))

    async def call(self, command: str,
                   arguments: Optional[dict[str, Any]] = None,
                   oob: bool = False, timeout: float = TIMEOUT) -> Any:
        """
        Run a command and return its answer.

        Raises permit.Forbidden, QmpFailed, or QmpGone; after the last the
        connection is not used any more.
        """
        permit.check(command, arguments or {})
        if self.ended:
            raise QmpGone(f"{self.path}: the connection is closed")
        message = self._client.make_execute_msg(command, arguments, oob)
        try:
            return await asyncio.wait_for(self._client.execute_msg(message),
                                          timeout)
        except asyncio.TimeoutError as error:
            raise QmpGone(f"{command}: no answer in {timeout:.0f} s"
                          ) from error
        except ExecuteError as error:
            raise QmpFailed(str(error)) from error
        except GONE as error:
            await self.close()
            raise QmpGone(f"{command}: {error}") from error

    async def drain(self) -> None:
        """Wait until a QEMU that has ended was heard to its last event."""
        with contextlib.suppress(*GONE):
            await asyncio.wait_for(self._client.runstate_changed(), 2)
        for _ in range(3):
            await asyncio.sleep(0)

    async def close(self) -> None:
        """Hang up; only one of those who find it broken does."""
        if self.ended:
            return
        self.ended = True
        if self._task:
            self._task.cancel()
        with contextlib.suppress(*GONE):
            await asyncio.wait_for(self._client.disconnect(), 2)

    def phases(self) -> list[str]:
        """Return the phases that QEMU has told of."""
        return [str(data.get("phase")) for name, data in self.events
                if name == "WSM_PHASE"]

    def was_shut(self) -> bool:
        """Return whether the guest has ended by itself, or by an order."""
        return any(name == "SHUTDOWN" for name, _ in self.events)
