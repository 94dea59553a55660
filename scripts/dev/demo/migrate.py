# SPDX-License-Identifier: GPL-2.0-or-later
"""The migration itself, as its user types it, and what can be watched."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

from dev.common import Failure
from dev.demo.process import PATIENCE, Machine
from dev.rig.qmp import Json, QmpClosed, QmpError

PORT = 4444
POLL_SECONDS = 0.25
FINAL = ("completed", "failed", "cancelled")


@dataclass
class Migration:
    """What was seen of a migration; times are time.monotonic()."""

    begin: float
    end: float = 0.0
    # When each phase was entered, by the events of the source.
    phases: list[tuple[str, float]] = field(default_factory=list)
    source: Json = field(default_factory=dict)          # query-wsm
    destination: Json = field(default_factory=dict)     # query-wsm
    status: Json = field(default_factory=dict)  # query-migrate, the source's

    def phase_at(self, moment: float) -> str:
        """Returns the phase that the migration was in at this moment."""
        name = "before"
        for phase, begin in self.phases:
            if begin <= moment:
                name = phase
        return name

    def entered(self, phase: str) -> float | None:
        """Returns when a phase was entered, None if it never was."""
        return dict(self.phases).get(phase)


def migrate(source: Machine, destination: Machine,
            on_poll: Callable[[Migration], None],
            on_phase: Callable[[Migration, str, float], None]) -> Migration:
    """Moves the guest; returns when both sides say that all is over.

    :raise Failure: the migration failed; the text has QEMU's reason.
    """
    try:
        uri = f"tcp:{destination.host.address}:{PORT}"
        destination.command("migrate-incoming", uri=uri)
        result = Migration(begin=time.monotonic())
        source.command("migrate", uri=uri)
        while not _poll(result, source, destination, on_phase):
            on_poll(result)
            if time.monotonic() > result.begin + PATIENCE:
                raise Failure("the migration did not end within "
                              f"{PATIENCE:.0f} s (phase "
                              f"{result.source.get('phase')})")
            time.sleep(POLL_SECONDS)
    except QmpError as error:
        raise Failure(f"QEMU refused '{error.command}': {error}") from error
    except QmpClosed as error:
        raise Failure("a QEMU ended during the migration:\n" + "\n".join(
            f"  {machine.name}: {machine.describe_end()}"
            for machine in (source, destination))) from error
    return result


def _poll(result: Migration, source: Machine, destination: Machine,
          on_phase: Callable[[Migration, str, float], None]) -> bool:
    """Asks both sides for news; returns whether both have completed."""
    # Whoever has completed here shows its last figures below.
    result.status = source.qmp.cmd("query-migrate")
    arrived = destination.qmp.cmd("query-migrate")
    result.source = source.qmp.cmd("query-wsm")
    result.destination = destination.qmp.cmd("query-wsm")
    now, wall = time.monotonic(), time.time()
    for event in source.qmp.events:
        if event["event"] == "WSM_PHASE":
            stamp = event["timestamp"]
            moment = (stamp["seconds"] + stamp["microseconds"] / 1e6
                      - wall + now)
            phase = event["data"]["phase"]
            result.phases.append((phase, moment))
            on_phase(result, phase, moment)
    source.qmp.events.clear()
    destination.qmp.events.clear()
    for name, status, wsm in (
            ("source", result.status, result.source),
            ("destination", arrived, result.destination)):
        if status.get("status") in ("failed", "cancelled"):
            reasons = (status.get("error-desc"), wsm.get("error"))
            raise Failure(f"the migration {status['status']} ({name}): "
                          + "; ".join(text for text in reasons if text))
        if status.get("status") == "postcopy-paused":
            raise Failure("the migration lost its connection in post-copy "
                          "and is paused; on a private link that is a bug")
    finished = bool(result.status.get("status") == "completed"
                    and arrived.get("status") == "completed")
    if finished:
        result.end = now
    return finished
