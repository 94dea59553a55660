# SPDX-License-Identifier: GPL-2.0-or-later
"""Whether the samples of one figure say that it is too hot.

It was over its limit in k of the last n samples, and will be so or is far over
it: k of n and the forecast are Sandpiper's (Wood et al., NSDI 2007).

Under its hard limit a host has what its VMs want: a move is a precaution, and
not begun before the host has come near that limit.  Over it they lack it, and
what has lasted is not looked at again.
"""

import math

from wsm.plan.policy import Hot, Limit, Policy
from wsm.plan.series import HOUR, Series


def is_hot(series: Series, unit: float, limit: Limit, hot: Hot,
           guess: bool = True) -> tuple[int, bool] | None:
    """
    Return (samples over, hard), None if it is not.

    @unit is what limits are parts of.  @guess: it must also be to come.
    """
    if not series.was_over(limit.limit * unit, hot.newest):
        return None
    recent = series.recent(hot.of)
    over = sum(value > limit.limit * unit for value in recent)
    if over < hot.over:
        return None
    hard = len(recent) > 1 and min(recent[-2:]) > limit.hard * unit
    if guess and not hard and series.forecast <= limit.limit * unit:
        return None
    return over, hard


def is_short(series: Series, unit: float, limit: Limit,
             policy: Policy) -> bool:
    """
    Whether it was over its hard limit for so long that no sample need follow.

    Samples of 10 s are noise, one of 5 minutes is not.
    """
    newest = series.recent(max(1, math.ceil(policy.hot.lasting
                                            / policy.interval)))
    return (min(newest) > limit.hard * unit
            and policy.hot.lasting <= len(newest) * policy.interval
            and series.forecast > limit.limit * unit)


def came_near(series: Series, unit: float, limit: Limit, hot: Hot) -> bool:
    """Whether there was hardly room for more in the last hour, if known."""
    near = limit.limit + hot.near * (limit.hard - limit.limit)
    return (not series.lately(HOUR)
            or max(series.peak, *series.recent(hot.of)) >= near * unit)


def is_full(series: Series, unit: float, limit: Limit,
            policy: Policy) -> tuple[int, bool] | None:
    """Return (samples over, hard) if a host has too little, else None."""
    if not series.was_over(limit.limit * unit, policy.hot.newest):
        return None
    if is_short(series, unit, limit, policy):
        return sum(value > limit.limit * unit
                   for value in series.recent(policy.hot.of)), True
    found = is_hot(series, unit, limit, policy.hot)
    return found if found and came_near(series, unit, limit,
                                        policy.hot) else None
