# SPDX-License-Identifier: GPL-2.0-or-later
"""Which QMP commands an agent may send, and with which arguments.

Whatever asks the agent, QEMU hears nothing but this: no human monitor, no
program or file as the way of a migration, no device, no change of the block
graph.
"""

import re
from typing import Any, Callable, Mapping

Arguments = Mapping[str, Any]

KEY_ID = re.compile(r"move-[0-9a-f-]{1,64}")
PATH = re.compile(r"/machine(/(?!\.)[A-Za-z0-9_.\[\]:-]+)*")
ADDRESS = re.compile(r"tcp:([0-9.]+|\[[0-9a-fA-F:]+\]|[A-Za-z0-9.-]+):(\d+)")
QUERIES = frozenset("""
    query-block query-blockstats query-cpus-fast query-hotpluggable-cpus
    query-machines query-memdev query-memory-size-summary query-migrate
    query-migrate-capabilities query-migrate-parameters query-named-block-nodes
    query-name query-status query-uuid query-version query-wsm
    query-wsm-options query-dirty-rate query-balloon query-stats
""".split())
CAPABILITIES = frozenset(["auto-converge", "events", "multifd",
                          "postcopy-ram", "return-path", "validate-uuid",
                          "whole-system"])
MEMORY_KINDS = ("disk", "image", "template")
SWITCHES = ("disk-packing", "keep-memory")
# Of migrate-set-parameters and wsm-set-options: least and most
NUMBERS = {
    "max-bandwidth": (1, 1 << 40),
    "max-postcopy-bandwidth": (0, 1 << 40),     # 0: no limit
    "downtime-limit": (1, 10000),
    "bandwidth": (0, 1 << 40),
    "compare-bandwidth": (0, 1 << 40),
    "channels": (1, 16),
    "max-residue": (0, 3600000),
    "switchover-timeout": (1000, 600000),
    "sync-points": (0, 64),
}


class Forbidden(Exception):
    """A command that is not let through."""


def nothing(arguments: Arguments) -> bool:
    """No arguments."""
    return not arguments


def anything(_arguments: Arguments) -> bool:
    """A query."""
    return True


def path(arguments: Arguments) -> bool:
    """A place in QOM."""
    return (set(arguments) <= {"path", "property"}
            and PATH.fullmatch(str(arguments.get("path"))) is not None)


def capabilities(arguments: Arguments) -> bool:
    """Known capabilities."""
    return set(arguments) == {"capabilities"} and all(
        each.get("capability") in CAPABILITIES
        and isinstance(each.get("state"), bool)
        for each in arguments["capabilities"])


def numbers(arguments: Arguments) -> bool:
    """Known parameters within their bounds, and our keys."""
    for name, value in arguments.items():
        if name == "tls-creds":
            if value != "" and not KEY_ID.fullmatch(str(value)):
                return False
        elif (name not in NUMBERS or not isinstance(value, int)
              or not NUMBERS[name][0] <= value <= NUMBERS[name][1]):
            return False
    return True


def options(arguments: Arguments) -> bool:
    """The same of a migration with its disks, and what it sends less of."""
    rest = dict(arguments)
    kinds = rest.pop("memory-references", [])
    switches = [rest.pop(name, False) for name in SWITCHES]
    return (all(isinstance(each, bool) for each in switches)
            and isinstance(kinds, list)
            and all(each in MEMORY_KINDS for each in kinds) and numbers(rest))


def address(arguments: Arguments) -> bool:
    """A TCP address, and perhaps 'resume'."""
    return (set(arguments) <= {"uri", "resume"}
            and ADDRESS.fullmatch(str(arguments.get("uri"))) is not None)


def key(arguments: Arguments) -> bool:
    """A shared key of a move."""
    kind = arguments.get("qom-type")
    return (kind in (None, "tls-creds-psk")
            and set(arguments) <= {"qom-type", "id", "dir", "endpoint"}
            and KEY_ID.fullmatch(str(arguments.get("id"))) is not None)


def migration_only(arguments: Arguments) -> bool:
    """Break only what belongs to the migration."""
    return dict(arguments) == {"instances": [{"type": "migration"}]}


def histogram(arguments: Arguments) -> bool:
    """Latency histograms of one device."""
    return set(arguments) <= {"id", "boundaries"}


RULES: dict[str, Callable[[Arguments], bool]] = {
    **{name: anything for name in QUERIES},
    "qom-get": path, "qom-list": path,
    "calc-dirty-rate": lambda arguments: arguments.get("mode") in (
        None, "page-sampling"),
    "block-latency-histogram-set": histogram,
    "migrate-set-capabilities": capabilities,
    "migrate-set-parameters": numbers, "wsm-set-options": options,
    "migrate": address, "migrate-incoming": address,
    "migrate-recover": address,
    "migrate_cancel": nothing, "migrate-pause": nothing,
    "yank": migration_only,
    "object-add": key, "object-del": key,
    "cont": nothing, "stop": nothing, "quit": nothing,
    "system_powerdown": nothing, "wsm-adopt": nothing,
}


def check(command: str, arguments: Arguments) -> None:
    """Raise Forbidden unless an agent may send this."""
    rule = RULES.get(command)
    if rule is None:
        raise Forbidden(f"QMP command {command[:60]!r} is not allowed")
    if not rule(arguments):
        raise Forbidden(f"QMP command {command}: these arguments are not "
                        f"allowed: {str(dict(arguments))[:200]}")
