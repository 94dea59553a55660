# SPDX-License-Identifier: GPL-2.0-or-later
"""What rules came to, as a table of medians and as a drawing (SVG)."""

import math
from dataclasses import dataclass
from html import escape
from typing import Iterator, Mapping, Sequence

from wsm.plan.series import percentile

SVG = "//www.w3.org/2000/svg"   # a name: nobody asks that host
WIDTH, HEIGHT = 640, 400
LEFT, RIGHT, TOP, BOTTOM = 70, 110, 40, 50
LEAST = 1.0                     # moves a day: fewer are drawn as so many
OURS = "ours"
Found = Mapping[str, Mapping[str, float]]       # "rule seed": figures


@dataclass(frozen=True)
class Spread:
    """A figure over some seeds."""

    least: float
    median: float
    most: float

    def text(self, digits: int) -> str:
        """Say it; "0.08 (0.07 to 0.10)"."""
        if self.least == self.most:
            return f"{self.median:.{digits}f}"
        return (f"{self.median:.{digits}f} ({self.least:.{digits}f} to "
                f"{self.most:.{digits}f})")


def spread(values: Sequence[float]) -> Spread:
    """Return it of some values."""
    return Spread(min(values), percentile(values, 0.5), max(values))


def by_rule(found: Found) -> dict[str, list[Mapping[str, float]]]:
    """Return the figures of each rule, one for each seed."""
    rules: dict[str, list[Mapping[str, float]]] = {}
    for name, figures in found.items():
        rules.setdefault(name.split()[0], []).append(figures)
    return rules


def spreads(found: Found, figure: str) -> dict[str, Spread]:
    """Return a figure of each rule."""
    return {rule: spread([each[figure] for each in seeds])
            for rule, seeds in by_rule(found).items()}


@dataclass(frozen=True)
class Axes:
    """Where a point is: moves a day (logarithmic) and a part that lacked."""

    moves: float                # at most
    part: float

    def x(self, moves: float) -> float:
        """Return how far to the right."""
        whole = math.log10(max(10 * LEAST, self.moves) / LEAST)
        return LEFT + (WIDTH - LEFT - RIGHT) * math.log10(
            max(moves, LEAST) / LEAST) / whole

    def y(self, part: float) -> float:
        """Return how far down."""
        return HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * part / (
            self.part or 1.0)


def line(x1: float, y1: float, x2: float, y2: float, kind: str) -> str:
    """Return a line."""
    return (f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" '
            f'class="{kind}"/>')


def words(x: float, y: float, text: str, anchor: str = "start") -> str:
    """Return words."""
    return (f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">'
            f'{escape(text)}</text>')


def frame(axes: Axes, title: str) -> Iterator[str]:
    """Yield the axes with their numbers."""
    yield words(LEFT, TOP - 18, title)
    low, right = HEIGHT - BOTTOM, WIDTH - RIGHT
    for number in range(5):
        part = axes.part * number / 4
        yield line(LEFT, axes.y(part), right, axes.y(part), "grid")
        yield words(LEFT - 6, axes.y(part) + 4, f"{part:.2f} %", "end")
    for power in range(1 + int(math.log10(max(10 * LEAST, axes.moves)))):
        x = axes.x(10.0 ** power)
        yield line(x, TOP, x, low, "grid")
        yield words(x, low + 18, f"{10 ** power}" if power else "0 to 1",
                    "middle")
    yield words((LEFT + right) / 2, HEIGHT - 12, "moves a day", "middle")


def mark(axes: Axes, rule: str, moves: Spread, part: Spread) -> Iterator[str]:
    """Yield a rule: the medians, and lines from the least to the most."""
    x, y = axes.x(moves.median), axes.y(part.median)
    kind = OURS if rule == OURS else "rival"
    yield line(x, axes.y(part.least), x, axes.y(part.most), kind)
    yield line(axes.x(moves.least), y, axes.x(moves.most), y, kind)
    yield f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4" class="{kind}"/>'
    yield words(x + 8, y - 6, rule)


def svg(found: Found, title: str, figure: str = "unmet_percent") -> str:
    """Return a drawing: what was lacking against the moves that it took."""
    moves, parts = spreads(found, "moves_a_day"), spreads(found, figure)
    axes = Axes(max(each.most for each in moves.values()),
                max(each.most for each in parts.values()))
    body = [*frame(axes, title), *(part for rule in moves for part in mark(
        axes, rule, moves[rule], parts[rule]))]
    return (f'<svg xmlns="http:{SVG}" width="{WIDTH}" '
            f'height="{HEIGHT}" font-family="sans-serif" font-size="12">\n'
            '<style>.grid{stroke:#ddd}.rival{stroke:#666;fill:#666}'
            '.ours{stroke:#b22;fill:#b22;stroke-width:2}</style>\n'
            '<rect width="100%" height="100%" fill="white"/>\n'
            + "\n".join(body) + "\n</svg>\n")
