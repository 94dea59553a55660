# SPDX-License-Identifier: GPL-2.0-or-later
"""Tests of what a person decides after a loss: never two guests."""

import argparse
import contextlib
import io
import tempfile
import unittest
from typing import Any, cast

from wsm.cli import relocate
from wsm.cli.agents import Agents, AgentSaid, NoAnswer
from wsm.cli.home import CliError, Cluster, Home, HostEntry, Move
from wsm.plan.ends import End, Stage, Word
from wsm.plan.plain import to_plain


class FakeAgent:
    """An agent whose end of the move is like this."""

    def __init__(self, name: str, word: Word, orders: list[str]) -> None:
        self.name = name
        self.end = End(word, missing=5)
        self.orders = orders
        self.error: Exception | None = None

    def get(self, _path: str, **_: Any) -> Any:
        """Show the end."""
        if isinstance(self.error, NoAnswer):
            raise self.error
        return {"end": to_plain(self.end), "figures": {}}

    def order(self, path: str, **_: Any) -> None:
        """Note the order, or fail."""
        self.orders.append(f"{self.name} {path.rsplit('/', 1)[1]}")
        if self.error:
            raise self.error


class DecideTest(unittest.TestCase):
    """wsmctl recover --from-source, --keep."""

    def decide(self, source: Word, destination: Word, *, keep: bool = False,
               error: Exception | None = None, **more: Any) -> list[str]:
        """Decide something; return the orders that were given."""
        orders: list[str] = []
        agents = {"a": FakeAgent("a", source, orders),
                  "b": FakeAgent("b", destination, orders)}
        agents["b"].error = error
        args = argparse.Namespace(**{
            "json": False, "keep": keep, "from_source": not keep,
            "accept_loss": True, "i_know": "", **more})
        with tempfile.TemporaryDirectory() as name, (
                contextlib.redirect_stdout(io.StringIO())):
            home = Home(name)
            home.save(Cluster("test", "x", {
                "a": HostEntry("a:1"), "b": HostEntry("b:1")}))
            move = home.new_move(Move("m-1", "vm", "a", "b",
                                      stage=int(Stage.PERFORMED)))
            relocate.decide(home, cast(Agents, agents), move, args)
            self.assertFalse(home.open_moves())
        return orders

    def test_from_source(self) -> None:
        """What is at the destination ends before the source boots."""
        for source, destination in ((Word.PAUSED, Word.DEAD),
                                    (Word.DEAD, Word.PAUSED),
                                    (Word.DEAD, Word.DEAD)):
            self.assertEqual(self.decide(source, destination),
                             ["b give-up", "a take-back"])
        self.assertEqual(
            self.decide(Word.PAUSED, Word.DEAD,
                        error=AgentSaid("NoMove", "b knows no move")),
            ["b give-up", "a take-back"])
        with self.assertRaises(AgentSaid):
            self.decide(Word.DEAD, Word.PAUSED,
                        error=AgentSaid("Refused", "all of vm is here"))

    def test_silent(self) -> None:
        """Only who knows that a host is dead goes on without it."""
        with self.assertRaises(CliError):
            self.decide(Word.PAUSED, Word.SILENT, error=NoAnswer("b"))
        self.assertEqual(self.decide(Word.PAUSED, Word.SILENT, i_know="b",
                                     error=NoAnswer("b")),
                         ["b give-up", "a take-back"])

    def test_keep(self) -> None:
        """The destination goes on as it is."""
        self.assertEqual(self.decide(Word.DEAD, Word.PAUSED, keep=True),
                         ["b settle"])
        with self.assertRaisesRegex(CliError, "--accept-loss"):
            self.decide(Word.DEAD, Word.PAUSED, keep=True, accept_loss=False)
