# SPDX-License-Identifier: GPL-2.0-or-later
"""Tests over random input, if Debian's python3-hypothesis is there."""

import os
import unittest
from typing import Any, Callable

from dev.common import BUILD

os.environ.setdefault("HYPOTHESIS_STORAGE_DIRECTORY",
                      str(BUILD / "hypothesis"))
try:
    from hypothesis import HealthCheck, given, settings, strategies
except ImportError:
    PRESENT = False
else:
    PRESENT = True
    settings.register_profile(
        "wsm", database=None, deadline=None, derandomize=True,
        max_examples=50,
        suppress_health_check=[HealthCheck.too_slow])
    settings.load_profile("wsm")

Test = Callable[..., None]


def over(make: Callable[[Any], Any]) -> Callable[[Test], Test]:
    """Run a test for many values of the strategy that @make returns."""
    def decorate(test: Test) -> Test:
        if not PRESENT:
            return unittest.skip("install python3-hypothesis")(test)

        # given() tells what to pass by the names of the arguments
        def run(self: unittest.TestCase, value: Any) -> None:
            test(self, value)

        run.__name__, run.__doc__ = test.__name__, test.__doc__
        wrapped: Test = given(value=make(strategies))(run)
        return wrapped

    return decorate
