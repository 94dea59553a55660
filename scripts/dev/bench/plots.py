# SPDX-License-Identifier: GPL-2.0-or-later
"""The plots of docs/benchmarks.md, drawn from the samples by gnuplot."""

import subprocess
from pathlib import Path
from typing import Callable

from dev.bench.limits import finished, median_of
from dev.bench.methods import COPY, METHODS, MIRROR, SHARED, SYNC, WSM
from dev.bench.peers import RSYNC
from dev.bench.plots_memory import bar_lines
from dev.bench.report_compare import by_link
from dev.bench.rows import Getter, field_of, number
from dev.bench.settings import LOADS
from dev.rig.basics import TestFailure
from dev.rig.image import MIB
from dev.rig.qmp import Json

Rows = dict[str, list[Json]]
Line = list[tuple[str, float]]      # place on the x axis, value

# Colours that also those who see few colours can tell apart
COLOURS = {WSM: '#0072b2', MIRROR: '#e69f00', SYNC: '#d55e00',
           SHARED: '#555555', COPY: '#cc79a7'}
TITLES = {RSYNC: 'rsync, guest stopped, without memory'}
LICENCE = '<!-- SPDX-License-Identifier: GPL-2.0-or-later -->'
WIDTH, PANEL = 720, 150             # pixels
APART = 0.3                         # seconds; names would cover each other
HIDDEN = ('setup', 'completed')     # phases that would only cover others
STYLE = ('set encoding utf8', 'set grid lc rgb "#dddddd"',
         'set yrange [0:*]', 'set key noenhanced', 'set tics font ",9"')


def title_of(way: str) -> str:
    return METHODS[way].title if way in METHODS else TITLES[way]


def colour_of(way: str) -> str:
    return COLOURS.get(way, '#000000')


def gnuplot(path: Path, height: int, lines: list[str]) -> None:
    script = [f'set terminal svg size {WIDTH},{height} font "sans,10" '
              'background "white"', f'set output "{path}"', *STYLE, *lines]
    done = subprocess.run(['gnuplot'], input='\n'.join(script) + '\n',
                          text=True, check=False, capture_output=True)
    if done.returncode:
        raise TestFailure(f'gnuplot: {done.stderr}')
    head, _, rest = path.read_text('utf-8').partition('\n')
    path.write_text(f'{head}\n{LICENCE}\n{rest}', 'utf-8')


def data_block(name: str, points: list[tuple[object, float]]) -> list[str]:
    return [f'${name} << END',
            *(f'{where} {value:.6g}' for where, value in points), 'END']


# Throughput over time

def typical(samples: list[Json]) -> Json:
    """The sample whose time is the median one."""
    good = sorted(finished(samples) or samples,
                  key=lambda sample: float(sample['synchronised']))
    return good[len(good) // 2]


def phase_marks(sample: Json) -> list[str]:
    """A line and a name where each phase begins."""
    lines = ['unset arrow', 'unset label']
    last = float('-inf')
    for name, when in sorted(sample['phases'].items(),
                             key=lambda item: float(item[1])):
        if name not in HIDDEN and when > last + APART:
            last = when
            lines += [f'set arrow from {when},graph 0 to {when},graph 1 '
                      'nohead dashtype 3',
                      f'set label "{name}" at {when},graph 0.97 rotate right '
                      'offset 0.6,0 font ",7"']
    return lines


def draw_throughput(rows: Rows, unit: str, path: Path) -> None:
    """One panel for each way, on the same axes."""
    ways = [way for way in rows if typical(rows[way])['series']]
    samples = {way: typical(rows[way]) for way in ways}
    first = min(point[0] for sample in samples.values()
                for point in sample['series'])
    last = max(point[0] for sample in samples.values()
               for point in sample['series'])
    top = max(point[1] for sample in samples.values()
              for point in sample['series'])
    lines = [f'set multiplot layout {len(ways)},1',
             f'set xrange [{first}:{last}]', f'set yrange [0:{top * 1.05}]',
             f'set ylabel "{unit}" font ",8"', 'set lmargin 10',
             'unset key']
    for index, way in enumerate(ways):
        sample = samples[way]
        ready = '' if sample['synchronised'] else ' (never ready)'
        if way == ways[-1]:
            lines.append('set xlabel "seconds since it was begun"')
        lines += [f'set title "{title_of(way)}{ready}" offset 0,-0.6',
                  *data_block(f'd{index}', sample['series']),
                  *phase_marks(sample),
                  f'plot $d{index} using 1:2 with lines lw 1.5 '
                  f'lc rgb "{colour_of(way)}"']
    gnuplot(path, PANEL * len(ways) + 40, [*lines, 'unset multiplot'])


# Something by something

def draw_by(points: dict[str, Line], across: str, up: str,
            path: Path) -> None:
    """@points: for each way, the value at each place of the x axis."""
    places = list(dict.fromkeys(where for line in points.values()
                                for where, _ in line))
    lines, plots = [], []
    for index, (way, line) in enumerate(points.items()):
        lines += data_block(f'd{index}', [(places.index(where), value)
                                          for where, value in line])
        plots.append(f'$d{index} using 1:2 with linespoints pt 7 ps 0.6 '
                     f'lw 1.5 lc rgb "{colour_of(way)}" '
                     f'title "{title_of(way)}"')
    tics = ', '.join(f'"{where}" {index}'
                     for index, where in enumerate(places))
    gnuplot(path, 300, [
        *lines, f'set xtics ({tics})', f'set xlabel "{across}"',
        f'set ylabel "{up}"', f'set xrange [-0.3:{len(places) - 0.7}]',
        'set key outside top center horizontal', 'plot ' + ', '.join(plots)])


def collect_by(groups: dict[str, Rows], getter: Getter) -> dict[str, Line]:
    points: dict[str, Line] = {}
    for where, rows in groups.items():
        for way, samples in rows.items():
            value = median_of(samples, getter)
            if value is not None and way != COPY:
                points.setdefault(way, []).append((where, value))
    return points


def load_groups(sections: dict[str, Rows]) -> dict[str, Rows]:
    groups = {load.name: sections.get(f'load-{load.name}', {})
              for load in LOADS if not load.sequential}
    return {name: rows for name, rows in groups.items() if rows}


def back_points(rows: Rows, getter: Getter,
                rsync: Getter) -> dict[str, Line]:
    """Keys are BYTES (ours), "rsync BYTES", and MIRROR, whatever was written.

    What rsync shows is the disk alone, @rsync.
    """
    points: dict[str, Line] = {WSM: [], MIRROR: [], RSYNC: []}
    for key, samples in rows.items():
        if not key.isdigit():
            continue
        where = f'{int(key) / MIB:.0f}'
        for way, value in (
                (WSM, median_of(samples, getter)),
                (MIRROR, median_of(rows.get(MIRROR, []), getter)),
                (RSYNC, median_of(rows.get(f'{RSYNC} {key}', []), rsync))):
            if value is not None:
                points[way].append((where, value))
    return points


Draw = Callable[[dict[str, Rows], Path], bool]


def throughput_of(section: str, unit: str) -> Draw:
    def draw(sections: dict[str, Rows], path: Path) -> bool:
        rows = sections.get(section, {})
        if not any(typical(samples)['series'] for samples in rows.values()):
            return False
        draw_throughput(rows, unit, path)
        return True
    return draw


def by_load(getter: Getter, up: str) -> Draw:
    def draw(sections: dict[str, Rows], path: Path) -> bool:
        groups = load_groups(sections)
        if len(groups) > 1:
            draw_by(collect_by(groups, getter), 'guest writes per second',
                    up, path)
        return len(groups) > 1
    return draw


def draw_links(sections: dict[str, Rows], path: Path) -> bool:
    groups = by_link(sections.get('links', {}))
    if groups:
        draw_by(collect_by(groups, field_of('synchronised')),
                'Mbit/s of the link', 'seconds until all is synchronised',
                path)
    return bool(groups)


def back_by(getter: Getter, rsync: Getter, up: str) -> Draw:
    def draw(sections: dict[str, Rows], path: Path) -> bool:
        points = back_points(sections.get('back', {}), getter, rsync)
        if points[WSM]:
            draw_by(points, 'MiB that the guest wrote since it had come', up,
                    path)
        return bool(points[WSM])
    return draw


def memory_bars(section: str) -> Draw:
    def draw(sections: dict[str, Rows], path: Path) -> bool:
        lines = bar_lines(sections.get(section, {}))
        if lines:
            gnuplot(path, 300, lines)
        return bool(lines)
    return draw


GAP_BY_LOAD = by_load(field_of('gap', 1000), 'heartbeat gap, ms')
BYTES_BY_LOAD = by_load(field_of('link_bytes', 1 / MIB), 'MiB on the link')

APP_UNITS = {'postgresql': 'transactions per second',
             'web': 'requests per second', 'fio': 'reads, writes per second',
             'build': 'steps per second'}

# section whose text shows it -> (file, what it shows, how it is drawn)
PLOTS: dict[str, list[tuple[str, str, Draw]]] = {
    **{f'load-{load.name}': [(
        f'throughput-{load.name}.svg', 'Guest writes over time',
        throughput_of(f'load-{load.name}', 'guest writes per second'))]
       for load in LOADS if load.writers},
    **{f'app-{name}': [(
        f'throughput-{name}.svg', f'{unit} over time',
        throughput_of(f'app-{name}', unit))]
       for name, unit in APP_UNITS.items()},
    'links': [('time-by-link.svg', 'Total time by the speed of the link',
               draw_links)],
    'back': [('back-time.svg', 'Time of the way back',
              back_by(field_of('synchronised'), number('seconds'),
                      'seconds')),
             ('back-bytes.svg', 'Bytes of the way back',
              back_by(field_of('link_bytes', 1 / MIB),
                      number('both ways', 1 / MIB), 'MiB on the link'))],
}
PLOTS |= {f'memory-{name}': [(f'memory-{name}.svg',
                              'Bytes on the link by guest and way',
                              memory_bars(f'memory-{name}'))]
          for name in ('siblings', 'hard', 'back')}
PLOTS['load-idle'] = [
    ('gap-by-load.svg', 'Heartbeat gap by write rate', GAP_BY_LOAD),
    ('bytes-by-load.svg', 'Bytes on the link by write rate', BYTES_BY_LOAD)]


def draw_all(sections: dict[str, Rows],
             folder: Path) -> dict[str, list[str]]:
    """Draw what the samples suffice for; lines for the text by section."""
    folder.mkdir(parents=True, exist_ok=True)
    lines: dict[str, list[str]] = {}
    for section, plots in PLOTS.items():
        for name, caption, draw in plots:
            if section in sections and draw(sections, folder / name):
                lines.setdefault(section, []).append(
                    f'![{caption}]({folder.name}/{name})')
    return lines
