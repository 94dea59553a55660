# SPDX-License-Identifier: GPL-2.0-or-later
"""Tests of what the two QEMUs are told of memory by reference."""

import asyncio
import unittest
from typing import Any, cast

from wsm.agent import config, reference
from wsm.agent.monitor import Monitor, QmpFailed
from wsm.plan import spec
from wsm.plan.plain import BadData


class Heard:
    """A monitor that writes down what it is told, or knows nothing of it."""

    def __init__(self, known: bool) -> None:
        self.known = known
        self.told: list[tuple[str, Any]] = []

    async def call(self, command: str, arguments: Any) -> None:
        """Hear one command."""
        self.told.append((command, arguments))
        if not self.known:
            raise QmpFailed("GenericError", "no such option")


def tell(known: bool, *arguments: Any) -> list[tuple[str, Any]]:
    """Return what a source is told."""
    heard = Heard(known)
    asyncio.run(reference.tell_source(cast(Monitor, heard), *arguments))
    return heard.told


class ReferenceTest(unittest.TestCase):
    """Kinds, and who is told of them."""

    def test_kinds(self) -> None:
        """The VM's own, else the host's; none with memory that is pulled."""
        pulled = spec.Placement(postcopy_ram=True)
        for own, host, place, expected in (
                ((), (), spec.Placement(), []),
                ((), ("disk",), spec.Placement(), ["disk"]),
                (("image",), ("disk",), spec.Placement(), ["image"]),
                (("none",), ("disk",), spec.Placement(), []),
                ((), ("disk",), pulled, [])):
            one = spec.Spec("a", (), placement=place, move=spec.Move(own))
            self.assertEqual(reference.kinds(one, host), expected)

    def test_checked(self) -> None:
        """What comes from elsewhere is looked at."""
        self.assertEqual(reference.checked(["disk"]), ["disk"])
        for bad in ("disk", ["none"], [1], None):
            with self.assertRaises(BadData):
                reference.checked(bad)

    def test_capability(self) -> None:
        """It is switched off as well: both sides must have the same."""
        self.assertTrue(reference.capability(["disk"])["state"])
        self.assertFalse(reference.capability([])["state"])

    def test_tell(self) -> None:
        """A QEMU that does not know it is told only if it must."""
        self.assertEqual(tell(True, ["disk"], True), [("wsm-set-options", {
            "memory-references": ["disk"], "disk-packing": True,
            "keep-memory": False})])
        self.assertTrue(tell(True, ["image"], False)[0][1]["keep-memory"])
        self.assertEqual(len(tell(False, [], False)), 1)
        for wanted in (["disk"], False), ([], True):
            with self.assertRaises(QmpFailed):
                tell(False, *wanted)

    def test_keeps(self) -> None:
        """A source is not told to end while it keeps its memory."""
        self.assertFalse(reference.keeps({}))
        for state in "kept", "failed", "writing":
            self.assertIs(reference.keeps({"kept-memory": {"state": state}}),
                          state == "writing")

    def test_host(self) -> None:
        """A host's kinds are looked at when it starts."""
        text = "host = 'a'\n[migration]\nmemory = ['{}']\n"
        self.assertEqual(config.loads(text.format("disk")).migration.memory,
                         ("disk",))
        with self.assertRaises(BadData):
            config.loads(text.format("ram"))
