# SPDX-License-Identifier: GPL-2.0-or-later
"""Tests of the demo's report, with figures made by hand."""

import unittest
from typing import Any

from dev.demo.migrate import Migration
from dev.demo.story import MOVES
from dev.demo.summary import TITLE_WIDTH, WIDTH, Findings, Way, report

MIB = 1 << 20


def way(name: str, seconds: float, disk: int, memory: int,
        kinds: dict[str, int]) -> Way:
    """Return a way that took @seconds and sent MiB of disk and memory."""
    wsm: dict[str, Any] = {
        "phase": "completed", "phases": [],
        "disks": [{"sent": disk * MIB, "basis": {"kind": "sync-point",
                                                 "reason": "both know it"}}]}
    if kinds:
        wsm["memory"] = {"kinds": [
            {"kind": kind, "referenced": count * MIB}
            for kind, count in kinds.items()]}
    return Way(
        name=name, source_bytes=0, destination_bytes=0, host_load=1.0,
        link_bytes=(disk + memory) * MIB, gaps_before=[], gaps_during=[],
        gaps_freeze=[], before=[], during=[], migration=Migration(
            begin=100.0, end=101.0 + seconds,
            phases=[("postcopy", 100.0 + seconds)], source=wsm,
            status={"ram": {"transferred": memory * MIB,
                            "normal-bytes": 250 * MIB}}))


def lines(*given_up: str) -> list[str]:
    """
    Return the report of two ways with references, and two without.

    At the first one the kind was given up, for that reason.
    """
    first = way("there", 39.0, 500, 100, {"disk": 180})
    for why in given_up:
        first.migration.source["memory"]["kinds"][0]["off"] = why
    return report(Findings(ways=[
        first,
        way("back", 1.0, 20, 10, {"disk": 7, "image": 230}),
        way("there again", 11.0, 30, 251, {}),
        way("back again", 9.0, 25, 252, {})],
        link_megabits=160, after=[])).splitlines()


class Report(unittest.TestCase):
    """report()."""

    def cells(self, title: str) -> list[str]:
        """Return the cells of the row with this @title."""
        found, = (line for line in lines()
                  if line[:TITLE_WIDTH].strip() == title)
        return found[TITLE_WIDTH:].split()

    def test_rows_of_memory(self) -> None:
        """Each way says what went by reference, and what was sent."""
        numbers = {title: self.cells(title)[::2] for title in (
            "Memory without zeroes", "of it by reference, disk",
            "of it by reference, image", "Memory sent")}
        self.assertEqual(numbers, {
            "Memory without zeroes": ["250"] * 4,
            "of it by reference, disk": ["180", "7.0", "0.0", "0.0"],
            "of it by reference, image": ["0.0", "230", "0.0", "0.0"],
            "Memory sent": ["100", "10.0", "251", "252"]})
        self.assertEqual(self.cells("Memory by reference"),
                         ["disk", "disk,", "image", "no", "no"])

    def test_words(self) -> None:
        """The way back is compared with the way there, and with one without."""
        text = " ".join(lines())
        self.assertIn("the way back took 1/20 of the time and sent 1/25 of "
                      "the disk's bytes; with memory, 1/20 of all bytes",
                      text)
        self.assertIn("The way back sent 10.0 MiB for 250 MiB of memory that "
                      "is not zero, and the guest ran there after 1.0 s.",
                      text)
        self.assertIn("with no memory by reference: the way back sent 252 MiB "
                      "for 250 MiB, and the guest ran there after 9.0 s.",
                      text)

    def test_given_up(self) -> None:
        """A kind that was in vain is named, and why."""
        said = "Way there: no more of memory by reference, disk, after a "
        self.assertIn(f"{said}while: slow", lines("slow"))
        self.assertNotIn(said, "".join(lines()))

    def test_width(self) -> None:
        """It fits a terminal."""
        self.assertLessEqual(max(map(len, lines())), WIDTH)


class Moves(unittest.TestCase):
    """What the report's words take for granted of the moves."""

    def test_with_and_without(self) -> None:
        """There and back with references, then the same without."""
        self.assertEqual([(move.away, bool(move.options)) for move in MOVES],
                         [(True, True), (False, True), (True, False),
                          (False, False)])
        there, back = (move.options for move in MOVES[:2])
        self.assertTrue(there["keep_memory"])
        self.assertIn("image", back["memory_references"])
