# SPDX-License-Identifier: GPL-2.0-or-later
"""Memory by reference: what the two QEMUs of a move are told."""

import contextlib
from typing import Any, Mapping, Sequence

from wsm.agent.monitor import Monitor, QmpFailed
from wsm.plan import spec
from wsm.plan.plain import BadData

def kinds(vm: spec.Spec, host: Sequence[str]) -> list[str]:
    """
    Return the kinds for a VM that leaves a host whose choice is @host.

    With memory that the guest pulls QEMU cannot do it.
    """
    found = list(vm.move.memory or host)
    return [] if spec.NO_KIND in found or vm.placement.postcopy_ram else found


def checked(found: Any) -> list[str]:
    """Return the kinds that another program says; raise BadData."""
    if not isinstance(found, list) or not set(map(str, found)) <= {
            *spec.MEMORY_KINDS}:
        raise BadData(f"memory: {str(found)[:80]!r} is no list of kinds")
    return found


def capability(memory: Sequence[str]) -> dict[str, Any]:
    """Return the capability that both sides must have the same."""
    return {"capability": "multifd", "state": bool(memory)}


async def tell_source(monitor: Monitor, memory: Sequence[str],
                      packing: bool) -> None:
    """Tell the source what to do without, and what to keep for the way back."""
    options = {"memory-references": list(memory), "disk-packing": packing,
               "keep-memory": "image" in memory}
    wanted = bool(memory) or packing
    # A QEMU that knows neither has nothing to switch off
    with contextlib.nullcontext() if wanted else contextlib.suppress(
            QmpFailed):
        await monitor.call("wsm-set-options", options)


def keeps(info: Mapping[str, Any]) -> bool:
    """
    Return whether a source that says @info keeps its memory just now.

    It would give that up if it was told to end.
    """
    return bool(info.get("kept-memory", {}).get("state") == "writing")
