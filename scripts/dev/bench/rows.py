# SPDX-License-Identifier: GPL-2.0-or-later
"""One figure with its values and its goal; from samples to figures."""

import statistics
from dataclasses import dataclass
from typing import Callable, Optional

from dev.rig.image import MIB
from dev.rig.qmp import Json

Value = Optional[float]
Getter = Callable[[Json], Value]
GAP_FACTOR, GAP_EXTRA = 1.3, 0.03   # what another gap may be longer; seconds

# Against the other ways
DOWN_FACTOR, DOWN_EXTRA = 1.2, 0.02     # of the gap on shared storage; seconds
CLIENT_P99 = 1.5                        # times that before
PEER_IDLE, PEER_LOADED = 1.0, 0.9       # of the best usable peer


@dataclass
class Row:
    """One figure, with all its values; no goal: only shown."""
    section: str
    what: str
    values: list[float]
    goal: Value = None
    unit: str = ''
    at_least: bool = False          # the goal is a lower bound
    failed: int = 0                 # rounds that gave no value
    use_worst: bool = False         # all values must meet the goal
    least: Value = None             # for disk and memory once, in any way

    @property
    def median(self) -> float:
        return statistics.median(self.values)

    def met(self) -> Optional[bool]:
        if self.goal is None:
            return None
        if self.failed or not self.values:
            return False
        value = self.median
        if self.use_worst:
            value = min(self.values) if self.at_least else max(self.values)
        return value >= self.goal if self.at_least else value <= self.goal

    def excuse(self) -> str:
        """That no way could meet the goal, if so."""
        if (self.met() is not False or self.goal is None or self.least is None
                or self.least <= self.goal):
            return ''
        return f': disk and memory alone take {self.show(self.least)}'

    def cells(self) -> list[str]:
        met = {None: '', True: 'yes',
               False: f'**no**{self.excuse()}'}[self.met()]
        goal = '' if self.goal is None else (
            f'{">=" if self.at_least else "<="} {self.show(self.goal)}')
        if not self.values:
            return [self.what, goal, 'failed', '', met]
        spread = f'{self.show(min(self.values))} - ' \
                 f'{self.show(max(self.values))}'
        if self.failed:
            spread += f', {self.failed} of ' \
                      f'{self.failed + len(self.values)} failed'
        return [self.what, goal, self.show(self.median), spread, met]

    def show(self, value: float) -> str:
        if self.unit == '%':
            digits = 0 if abs(value) >= 0.1 else 2
            return f'{value * 100:.{digits}f} %'
        if self.unit == 'MiB':
            return f'{value / MIB:.1f} MiB'
        if self.unit == 'ms' and abs(value) < 10:
            return f'{value:.2f} ms'
        digits = {'T0': 2, 's': 2, 'GB/s': 2, 'times': 2}.get(self.unit, 0)
        return f'{value:.{digits}f} {self.unit}'.strip()


def failed(sample: Json) -> bool:
    """It was not measured to the end, or never came to one."""
    return bool((sample['failure'] or 'given up' in sample['numbers'])
                and not sample['synchronised'])


def collect(samples: list[Json], getter: Getter) -> tuple[list[float], int]:
    """The values of the samples that have one, and how many have none."""
    values = [None if failed(sample) else getter(sample)
              for sample in samples]
    good = [value for value in values if value is not None]
    return good, len(values) - len(good)


def make(section: str, what: str, samples: list[Json], getter: Getter,
         goal: Value = None, unit: str = '', at_least: bool = False) -> Row:
    values, missing = collect(samples, getter)
    return Row(section, what, values, goal, unit, at_least, missing)


def share(name: str, function: Callable[[list[float]], float]) -> Getter:
    """A rate relative to that before the migration."""
    def getter(sample: Json) -> Value:
        if not sample[name] or not sample['rate_before']:
            return None
        return function(sample[name]) / float(sample['rate_before'])
    return getter


def field_of(name: str, factor: float = 1.0) -> Getter:
    return lambda sample: float(sample[name]) * factor


def number(name: str, factor: float = 1.0) -> Getter:
    """One of Sample.numbers."""
    def getter(sample: Json) -> Value:
        value = sample['numbers'].get(name)
        return None if value is None else value * factor
    return getter


def growth(side: str) -> Getter:
    """Of resident memory, in bytes."""
    def getter(sample: Json) -> Value:
        value = sample['memory'].get(side)
        return None if value is None else float(value)
    return getter


def per_t0(name: str) -> Getter:
    return lambda sample: float(sample[name]) / float(sample['t0'])


def downtime(sample: Json) -> Value:
    """As QEMU counts it, in milliseconds."""
    value = sample['wsm'].get('downtime-ms')
    return None if value is None else float(value)


def wrong_row(section: str, samples: list[Json]) -> Row:
    def wrong(sample: Json) -> Value:
        return float(sample['wrong']) if sample['wrong'] >= 0 else None

    row = make(section, 'wrong blocks', samples, wrong, 0)
    row.use_worst = True
    return row
