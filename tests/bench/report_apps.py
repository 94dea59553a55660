# SPDX-License-Identifier: GPL-2.0-or-later
"""Tables and goals of the applications in a Debian guest."""

import statistics
from typing import Optional

from apps import APPLICATIONS, WAYS
from lib.qmp import Json
from methods import METHODS, MIRROR, SHARED, SYNC, WSM
from rows import (CLIENT_P99, DOWN_EXTRA, DOWN_FACTOR, PEER_LOADED, Getter,
                  Row, Value, collect, failed, field_of, make, share,
                  wrong_row)
from settings import Settings

Samples = dict[str, list[Json]]

USABLE = 0.5                        # of the throughput before


def latency(window: str, name: str) -> Getter:
    """In milliseconds."""
    def getter(sample: Json) -> Value:
        value = sample['latency'].get(window, {}).get(name)
        return None if value is None else float(value)
    return getter


def mean_throughput(sample: Json) -> Value:
    """From the begin until all is synchronised, relative to before."""
    during = sample['numbers'].get('rate during')
    if during is None or not sample['rate_before']:
        return None
    return float(during / sample['rate_before'])


# A client that catches up later does not hide a stall from this one
throughput = share('rates', statistics.median)


def seen(section: str, what: str, samples: list[Json], getter: Getter,
         goal: Value = None, unit: str = '', at_least: bool = False) -> Row:
    """With those that were given up: their clients' figures until then."""
    values = [value for value in map(getter, samples) if value is not None]
    return Row(section, what, values, goal, unit, at_least,
               len(samples) - len(values))


def fastest(rows: Samples) -> Optional[float]:
    """The time of the best way that moves the disk and is usable."""
    found = []
    for way in (MIRROR, SYNC):
        usable = [sample for sample in rows.get(way, [])
                  if not failed(sample)
                  and (throughput(sample) or 0.0) >= USABLE]
        times, missing = collect(usable, field_of('synchronised'))
        if times and not missing:
            found.append(statistics.median(times))
    return min(found, default=None)


def before_row(section: str, rows: Samples) -> Row:
    """Before it moves the guest is the same in all ways."""
    samples = [sample for way in WAYS for sample in rows.get(way, [])]
    return seen(section, 'all ways: p99 before', samples,
                latency('before', 'p99'), unit='ms')


def gap_goal(rows: Samples) -> Value:
    """In milliseconds."""
    gaps, _ = collect(rows.get(SHARED, []), field_of('gap'))
    if not gaps:
        return None
    return (DOWN_FACTOR * statistics.median(gaps) + DOWN_EXTRA) * 1000


def way_rows(section: str, way: str, rows: Samples,
             before: Row) -> list[Row]:
    samples, title = rows.get(way, []), METHODS[way].title
    best = fastest(rows)
    is_wsm = way == WSM
    latency_goal = (CLIENT_P99 * before.median
                    if is_wsm and before.values else None)
    return [
        make(section, f'{title}: guest runs there after', samples,
             field_of('running'), unit='s'),
        make(section, f'{title}: all synchronised after', samples,
             field_of('synchronised'),
             PEER_LOADED * best if is_wsm and best else None, 's'),
        make(section, f'{title}: downtime (heartbeat gap)', samples,
             field_of('gap', 1000), gap_goal(rows) if is_wsm else None, 'ms'),
        seen(section, f'{title}: p99 until the handover', samples,
             latency('during', 'p99'), latency_goal, 'ms'),
        seen(section, f'{title}: p99 after the handover', samples,
             latency('after', 'p99'), unit='ms'),
        seen(section, f'{title}: longest answer', samples,
             latency('move', 'max'), unit='ms'),
        seen(section, f'{title}: throughput, median second', samples,
             throughput, unit='%'),
        seen(section, f'{title}: throughput, mean while it moves', samples,
             mean_throughput, unit='%'),
        seen(section, f'{title}: bytes on the link', samples,
             field_of('link_bytes'), unit='MiB'),
    ]


def app_rows(section: str, rows: Samples, _settings: Settings) -> list[Row]:
    before = before_row(section, rows)
    result = [row for way in WAYS
              for row in way_rows(section, way, rows, before)]
    wrong = wrong_row(section, rows.get(WSM, []))
    wrong.what = f'{METHODS[WSM].title}: damage found in the guest\'s data'
    return [before, *result, wrong]


APP_ROWS = {f'app-{name}': app_rows for name in APPLICATIONS}

APP_TITLES = {
    'app-postgresql': 'PostgreSQL, with pgbench outside the guest',
    'app-web': 'nginx, with its clients outside the guest',
    'app-fio': 'fio: random reads and writes',
    'app-build': 'Building many small files in the guest',
}

DEFAULTS = Settings()
ABOUT_APPS = (
    f'A Debian guest with {DEFAULTS.app_memory} MiB of RAM and a disk of '
    '1 GiB, of which 0.5 GiB are allocated, is moved over a link of '
    f'{DEFAULTS.app_link_mbit} Mbit/s in each of the ways. Its clients are '
    'in a third network namespace and reach it over a LAN that is not the '
    'link. {} "Until the handover" is from the command until the guest is '
    'stopped, "after" is what was asked from when it runs there to '
    f'{DEFAULTS.app_after:.0f} s after all is synchronised; "longest answer" '
    'and "while it moves" have the switchover in them. An event that does '
    f'not come within {DEFAULTS.app_give_up:.0f} times the time that the '
    'disk takes on the link is waited for no longer; then the clients\' '
    'figures are those until then. The downtime is the longest silence of a '
    'UDP heartbeat (10 ms). The goal of the time is relative to the best '
    'way with a disk of its own that keeps at least half of the throughput '
    'in the median second, '
    'that of the p99 to the median before in all ways. The images lie in '
    'memory: on the one disk of the machine, what one host flushes would '
    'delay the guest at the other. At the end the file system is '
    'checked{}.')
ON_TIME = ('The time of an answer counts from when the request was due, so '
           'waiting while the guest is silent is in it.')

APP_NOTES = {
    'app-postgresql': ABOUT_APPS.format(
        f'pgbench asks for {DEFAULTS.app_transactions} transactions per '
        'second (TPC-B like) on 4 connections over TCP and logs each. '
        + ON_TIME, ', and the balances and checksums of the database'),
    'app-web': ABOUT_APPS.format(
        f'8 connections stay open and fetch {DEFAULTS.app_requests} files of '
        '64 KiB per second; nginx writes its access log. ' + ON_TIME, ''),
    'app-fio': ABOUT_APPS.format(
        'In the guest, fio reads and writes 4 KiB at random places of a file '
        f'of 64 MiB, past the page cache, 4 at a time: {DEFAULTS.app_iops} '
        'reads and as many writes per second. An operation that the freeze '
        'interrupts is counted with the time of the freeze. While one takes '
        'long, fio asks for few others, and makes up for it later; so a '
        'stall shows in the median second rather than in the p99.', ''),
    'app-build': ABOUT_APPS.format(
        'In the guest, modules of Python\'s library are read and compiled, '
        'and source, code and a record of each are written to new files, '
        f'{DEFAULTS.app_steps} modules per second at most; all is removed '
        'when the next pass is over. An answer is one module; its time is '
        'that since the one before.', ''),
}
