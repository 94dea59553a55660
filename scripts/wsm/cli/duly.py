# SPDX-License-Identifier: GPL-2.0-or-later
"""Keep a move as slow as its deadline allows, as long as it runs."""

import dataclasses
import time
from dataclasses import dataclass
from typing import Any, Callable, Mapping

from wsm.cli import outlook
from wsm.cli.drive import ALL
from wsm.plan import learn
from wsm.plan.estimate import Link, rate_for
from wsm.plan.inventory import Host
from wsm.plan.pace import BEGUN, LEAST, Due, Pace, gentle, takes

HELD = 0.9                      # of the rate that it was to have


@dataclass
class Duly:
    """What a driver asks for the rate of its move; see drive.Pace."""

    subject: outlook.Subject
    there: Host
    due: Due
    clock: Callable[[], float] = time.time
    asked: float = 0.0          # bytes/s, the last time

    def __call__(self, figures: Mapping[str, Any]) -> tuple[float, str]:
        """Return the rate for now, and whether it will be late."""
        found, link, now = self.pace(figures), self.link(), self.clock()
        late = max(found.late, self.lag(figures, link, now))
        self.asked = found.rate
        note = late and (f"late by {outlook.seconds_text(late)}: it ends "
                         "about " + time.strftime("%H:%M:%S", time.localtime(
                             min(self.due.at + late, now + 9e7))))
        return (ALL if found.rate >= link.unlimited * 0.999 else found.rate,
                note or "")

    def link(self) -> Link:
        """Return the link with all that it has."""
        return outlook.link_of(self.subject.here, self.there,
                               past=self.subject.past)

    def learned(self) -> tuple[float, float]:
        """Return what earlier moves of these hosts teach."""
        taught = learn.about(self.subject.past, self.subject.here.name,
                             self.there.name)
        return taught.factor, taught.start

    def pace(self, figures: Mapping[str, Any]) -> Pace:
        """Return what it needs, by what was expected until QEMU knows more."""
        link, now = self.link(), self.clock()
        if figures.get("phase") in BEGUN:
            return gentle(figures, outlook.load_of(self.subject), link,
                          self.due, now, *self.learned())

        def seconds(rate: float) -> float:
            return outlook.cost_of(self.subject, self.there, rate).seconds

        rate = rate_for(seconds, link.unlimited, self.due.aim(now), LEAST)
        return Pace(rate, seconds(rate), max(
            0.0, seconds(rate) - (self.due.at - now)))

    def lag(self, figures: Mapping[str, Any], link: Link,
            now: float) -> float:
        """Return how late it will be at the rate at which it is held."""
        held = float(figures.get("limits", {}).get("rate", 0))
        if figures.get("phase") not in BEGUN or not (
                0 < held < HELD * min(self.asked, link.unlimited)):
            return 0.0
        return max(0.0, takes(figures, outlook.load_of(self.subject),
                              dataclasses.replace(link, rate=held),
                              *self.learned()) - (self.due.at - now))
