# SPDX-License-Identifier: GPL-2.0-or-later
"""The list of tests."""

import inspect
from dataclasses import dataclass
from typing import Callable, Optional

from dev.rig.scene import Scene
from dev.rig.vm import MachineConfig

TestFunction = Callable[[Scene], None]


@dataclass(frozen=True)
class Test:
    name: str
    function: TestFunction
    config: MachineConfig
    slow: bool
    needs_wsm: bool

    @property
    def summary(self) -> str:
        text = inspect.getdoc(self.function) or ''
        return text.split('\n', maxsplit=1)[0]


TESTS: dict[str, Test] = {}


def add(name: str, function: TestFunction,
        config: Optional[MachineConfig] = None, slow: bool = False,
        needs_wsm: bool = True) -> None:
    assert name not in TESTS, name
    TESTS[name] = Test(name, function, config or MachineConfig(), slow,
                       needs_wsm)


def test(config: Optional[MachineConfig] = None, slow: bool = False,
         needs_wsm: bool = True) -> Callable[[TestFunction], TestFunction]:
    """Decorator: the function is a test, named as it is with dashes."""
    def register(function: TestFunction) -> TestFunction:
        add(function.__name__.replace('_', '-'), function, config, slow,
            needs_wsm)
        return function
    return register
