# SPDX-License-Identifier: GPL-2.0-or-later
"""A plot of what each way sends of a guest's memory: bars, side by side."""

from dev.bench.limits import median_of
from dev.bench.memory_ways import DEFAULT, MEMORY_WAYS
from dev.bench.tables_memory import BYTES, groups_of
from dev.rig.qmp import Json

Rows = dict[str, list[Json]]
# In grey what QEMU has, in orange the ideas of others, in blue ours
GREYS = ('#333333', '#666666', '#888888', '#aaaaaa', '#cccccc')
ORANGES = ('#f0c060', '#e69f00', '#d55e00')
BLUES = ('#9fd8f5', '#56b4e9', '#0072b2', '#003f6b', '#001f3a')


def bars(rows: Rows) -> tuple[list[str], list[tuple[str, list[float]]]]:
    """Ways; and for each guest the percentages of default, -1: unknown."""
    groups = groups_of(rows)
    ways = [way for way in MEMORY_WAYS if way != DEFAULT
            and any(way in group for group in groups.values())]
    found = []
    for guest, group in groups.items():
        base = median_of(group.get(DEFAULT, []), BYTES)
        values = [median_of(group.get(way, []), BYTES) for way in ways]
        if base:
            found.append((guest, [-1.0 if value is None
                                  else 100 * value / base
                                  for value in values]))
    return ways, found


def colours(ways: list[str]) -> list[str]:
    greys, oranges, blues = list(GREYS), list(ORANGES), list(BLUES)
    return [(blues if MEMORY_WAYS[way].own else
             oranges if MEMORY_WAYS[way].kinds else greys).pop(0)
            for way in ways]


def bar_lines(rows: Rows) -> list[str]:
    """gnuplot's; none if there is nothing to show."""
    ways, found = bars(rows)
    if not found:
        return []
    lines = ['$bars << END',
             *(' '.join([f'"{guest}"', *(f'{value:.3f}' for value in values)])
               for guest, values in found), 'END',
             'set style data histograms', 'set style histogram gap 1',
             'set style fill solid', 'set boxwidth 0.9',
             'set yrange [0:105]', 'set ylabel "% of default on the link"',
             'set key outside top center horizontal']
    plots = [f'{"$bars" if not index else chr(39) * 2} using {index + 2}'
             f'{":xtic(1)" if not index else ""} lc rgb "{colour}" '
             f'title "{MEMORY_WAYS[way].title}"'
             for index, (way, colour) in enumerate(zip(ways, colours(ways)))]
    return [*lines, 'plot ' + ', '.join(plots)]
