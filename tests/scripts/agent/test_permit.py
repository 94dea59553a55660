# SPDX-License-Identifier: GPL-2.0-or-later
"""Tests of what QEMU may be told: little."""

import unittest
from typing import Any

from wsm.plan import permit

GOOD: list[tuple[str, dict[str, Any]]] = [
    ("query-wsm", {}), ("query-named-block-nodes", {"flat": True}),
    ("qom-get", {"path": "/machine", "property": "type"}),
    ("qom-list", {"path": "/machine/peripheral-anon/device[0]"}),
    ("migrate-set-capabilities", {"capabilities": [
        {"capability": "whole-system", "state": True}]}),
    ("migrate-set-parameters", {"max-bandwidth": 1 << 30}),
    ("migrate-set-parameters", {"tls-creds": "move-0f-1"}),
    ("migrate-set-parameters", {"tls-creds": ""}),
    ("wsm-set-options", {"channels": 4}),
    ("wsm-set-options", {"memory-references": ["disk", "template"],
                         "disk-packing": True, "keep-memory": True,
                         "channels": 4}),
    ("migrate-set-capabilities", {"capabilities": [
        {"capability": "multifd", "state": False}]}),
    ("migrate", {"uri": "tcp:10.0.0.2:47000"}),
    ("migrate", {"uri": "tcp:[fd00::1]:47000", "resume": True}),
    ("migrate-incoming", {"uri": "tcp:beta:47000"}),
    ("migrate_cancel", {}), ("wsm-adopt", {}), ("quit", {}),
    ("yank", {"instances": [{"type": "migration"}]}),
    ("object-add", {"qom-type": "tls-creds-psk", "id": "move-0f",
                    "dir": "/run/x", "endpoint": "server"}),
    ("object-del", {"id": "move-0f"}),
    ("calc-dirty-rate", {"calc-time": 1}),
]
BAD: list[tuple[str, dict[str, Any]]] = [
    ("human-monitor-command", {"command-line": "quit"}),
    ("device_add", {"driver": "e1000"}), ("qom-set", {"path": "/machine"}),
    ("blockdev-add", {}), ("query-command-line-options", {}),
    ("migrate", {"uri": "exec:rm -rf /"}), ("migrate", {"uri": "fd:5"}),
    ("migrate", {"uri": "file:/etc/passwd"}), ("migrate", {}),
    ("migrate", {"uri": "tcp:beta:1", "detach": True}),
    ("migrate", {"channels": []}),
    ("migrate-incoming", {"uri": "unix:/x"}),
    ("qom-get", {"path": "/objects/tls0", "property": "dir"}),
    ("qom-get", {"path": "/machine/../objects"}),
    ("migrate-set-capabilities", {"capabilities": [
        {"capability": "x-colo", "state": True}]}),
    ("migrate-set-capabilities", {"capabilities": [
        {"capability": "events", "state": "yes"}]}),
    ("migrate-set-parameters", {"max-bandwidth": 0}),
    ("migrate-set-parameters", {"max-bandwidth": "1G"}),
    ("migrate-set-parameters", {"tls-creds": "tls0"}),
    ("migrate-set-parameters", {"mode": "cpr-reboot"}),
    ("wsm-set-options", {"disks": []}),
    ("wsm-set-options", {"memory-references": ["ram"]}),
    ("wsm-set-options", {"memory-references": True}),
    ("wsm-set-options", {"disk-packing": 1}),
    ("wsm-set-options", {"keep-memory-file": "/etc/passwd"}),
    ("wsm-set-options", {"memory-references": [], "basis": []}),
    ("yank", {"instances": [{"type": "chardev", "id": "c"}]}),
    ("object-add", {"qom-type": "secret", "id": "move-0f"}),
    ("object-add", {"qom-type": "tls-creds-psk", "id": "other"}),
    ("object-del", {"id": "iothread0"}),
    ("migrate_cancel", {"x": 1}), ("wsm-adopt", {"disks": ["vd0"]}),
    ("calc-dirty-rate", {"calc-time": 1, "mode": "dirty-bitmap"}),
]


class PermitTest(unittest.TestCase):
    """Commands and their arguments."""

    def test_good(self) -> None:
        """What a move needs."""
        for command, arguments in GOOD:
            permit.check(command, arguments)

    def test_bad(self) -> None:
        """All else."""
        for command, arguments in BAD:
            with self.assertRaises(permit.Forbidden, msg=(command, arguments)):
                permit.check(command, arguments)

    def test_all_tried(self) -> None:
        """Each rule that looks at arguments has a case that it refuses."""
        tried = {command for command, _ in BAD}
        open_rules = (permit.anything, permit.nothing)
        for command, rule in permit.RULES.items():
            if rule not in open_rules and command not in (
                    "qom-list", "migrate-recover",
                    "block-latency-histogram-set"):
                self.assertIn(command, tried)
