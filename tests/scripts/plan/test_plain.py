# SPDX-License-Identifier: GPL-2.0-or-later
"""Tests of what goes in and out as JSON and TOML."""

import dataclasses
import json
import unittest
from typing import Any, Mapping, Optional

import tomllib

from wsm.plan import toml
from wsm.plan.inventory import Host, HostState, Pool, VmUse, human
from wsm.plan.plain import BadData, from_plain, to_plain

from tests.scripts.plan.properties import over


@dataclasses.dataclass(frozen=True)
class Sample:
    """One of each kind."""

    class_: str
    number: int = 0
    part: float = 0.0
    flag: bool = False
    maybe: Optional[str] = None
    pair: tuple[str, int] = ("a", 1)
    state: HostState = HostState.ACTIVE
    names: frozenset[str] = frozenset()
    inner: Mapping[str, Pool] = dataclasses.field(default_factory=dict)


class PlainTest(unittest.TestCase):
    """Dataclasses."""

    def test_round_trip(self) -> None:
        """All kinds come back through JSON."""
        one = Sample("x", 3, 0.5, True, "m", ("b", 2), HostState.CORDONED,
                     frozenset("ab"), {"p": Pool(1, 2)})
        data = json.loads(json.dumps(to_plain(one)))
        self.assertEqual(data["class"], "x")
        self.assertEqual(from_plain(Sample, data), one)
        self.assertEqual(to_plain(Sample("x")), {"class": "x"})
        self.assertEqual(from_plain(Sample, {"class": "x", "part": 1}).part,
                         1.0)

    def test_refused(self) -> None:
        """Wrong types, unknown and missing names: the place is named."""
        for data, words in (
                ({}, "class is missing"),
                ({"class": "x", "more": 1}, "more is not known"),
                ({"class": 1}, "class: '1' is no str"),
                ({"class": "x", "number": True}, "number: 'True' is no int"),
                ({"class": "x", "flag": 1}, "flag: '1' is no bool"),
                ({"class": "x", "part": float("nan")}, "no finite number"),
                ({"class": "x", "part": 10**400}, "no finite number"),
                ({"class": "x", "number": 1 << 64}, "no number of 64 bits"),
                ({"class": "x", "state": "odd"}, "'odd' is none of active"),
                ({"class": "x", "pair": ["a"]}, "1 values, 2 are needed"),
                ({"class": "x", "names": "ab"}, "names: 'ab' is no list"),
                ({"class": "x", "inner": {"p": {"free": 1}}},
                 "inner.p.total is missing"),
                ({"class": "x", "inner": 1}, "inner: '1' is no table"),
                ([], "is no table")):
            with self.assertRaises(BadData) as caught:
                from_plain(Sample, data)
            self.assertIn(words, str(caught.exception))

    def test_inventory(self) -> None:
        """What agents send comes back as it was."""
        host = Host("a", 4.0, 8 << 30, 4 << 30, tags=("rack:1",),
                    pools={"default": Pool(5, 9)})
        self.assertEqual(from_plain(Host, to_plain(host)), host)
        use = VmUse("v", "a", 1, 1, 1, dirty={"1": 7})
        self.assertEqual(from_plain(VmUse, to_plain(use)), use)

    def test_human(self) -> None:
        """Figures for people."""
        self.assertEqual([human(number) for number in
                          (5, 2048, 3 << 30, 5 << 40)],
                         ["5 B", "2.0 KiB", "3.0 GiB", "5.0 TiB"])


class TomlTest(unittest.TestCase):
    """TOML is written so that Python reads the same."""

    def test_layout(self) -> None:
        """Tables of tables get titles of their own, options their lines."""
        text = toml.dumps({"name": "a", "args": ["-m", "64", "-nodefaults",
                                                 "-smp", "2"],
                           "disk": {"vd0": {"size": 5, "at": {"b": "raw"}}},
                           "sla": {"class": "gold"}})
        self.assertEqual(text, 'name = "a"\nargs = [\n    "-m", "64",\n'
                         '    "-nodefaults",\n    "-smp", "2",\n]\n\n'
                         '[disk.vd0]\nsize = 5\nat = { b = "raw" }\n\n'
                         '[sla]\nclass = "gold"\n')

    @over(lambda st: st.dictionaries(
        st.text(st.characters(blacklist_categories=["Cs"]), min_size=1),
        st.recursive(
            st.one_of(st.booleans(), st.integers(-2**63, 2**63 - 1),
                      st.floats(allow_nan=False, allow_infinity=False),
                      st.text(st.characters(blacklist_categories=["Cs"]))),
            lambda inner: st.one_of(
                st.lists(inner, max_size=6),
                st.dictionaries(st.text(st.characters(
                    blacklist_categories=["Cs"]), min_size=1), inner,
                    max_size=3)), max_leaves=8)))
    def test_any(self, data: Any) -> None:
        """Whatever is in it."""
        self.assertEqual(tomllib.loads(toml.dumps(data)), data)
