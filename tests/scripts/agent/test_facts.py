# SPDX-License-Identifier: GPL-2.0-or-later
"""Tests of what is made of what QEMU says of its disks."""

import asyncio
import unittest
from typing import Any

from wsm.agent import facts
from wsm.plan.inventory import DiskUse


def entry(name: str, **image: Any) -> dict[str, Any]:
    """Return a disk as query-block has it."""
    return {"qdev": f"/machine/peripheral/{name}/virtio-backend", "inserted": {
        "ro": False, "image": {"virtual-size": 1000, "filename": f"/{name}",
                               "format": "qcow2", **image}}}


class DiskTest(unittest.TestCase):
    """What a move of a disk has to send."""

    def uses(self, *entries: dict[str, Any], content: int = 0
             ) -> dict[str, DiskUse]:
        """Return the disks; @content is what qemu-img measures."""
        async def call(command: str, *_: Any) -> Any:
            if command == "query-block":
                return list(entries)
            return {"images": [
                {"name": "a", "points": [{"id": "p", "changed": 5}]},
                {"name": "b", "problem": "odd", "points": [
                    {"id": "q", "changed": 6}]}]}

        found = asyncio.run(facts.disk_uses(
            call, {"a": 7.0}, lambda path, kind: content))
        return {use.id: use for use in found}

    def test_sizes(self) -> None:
        """A sparse image is what it takes; one that cannot tell is full."""
        found = self.uses(entry("a", **{"actual-size": 300}), entry("b"))
        self.assertEqual(found["a"], DiskUse("a", 1000, 300, 7.0, {"p": 5}))
        self.assertEqual(found["b"], DiskUse("b", 1000, 1000, 0.0, {}))

    def test_snapshots(self) -> None:
        """Internal snapshots stay behind, and do not count."""
        image = {"actual-size": 900, "snapshots": [{"name": "old"}]}
        for content, allocated in ((400, 400), (0, 900), (2000, 900)):
            found = self.uses(entry("a", **image), content=content)
            self.assertEqual(found["a"].allocated, allocated)
        found = self.uses(entry("a", **{"actual-size": 900}), content=400)
        self.assertEqual(found["a"].allocated, 900)

    def test_left_out(self) -> None:
        """What is read-only, or no guest's."""
        other = entry("a")
        other["inserted"]["ro"] = True
        self.assertEqual(self.uses(other, {"qdev": "x"}, {
            **entry("b"), "qdev": ""}), {})
