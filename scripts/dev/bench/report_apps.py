# SPDX-License-Identifier: GPL-2.0-or-later
"""Tables and goals of the applications in a Debian guest."""

import statistics
from typing import Callable

from dev.bench.apps import APPLICATIONS
from dev.bench.limits import longest_answer
from dev.bench.methods import WSM
from dev.bench.report_compare import (RowsOf, Samples, p99_rows, peer_rows,
                                      seen_row, ways_table)
from dev.bench.rows import Row, Value, field_of, make, share, wrong_row
from dev.bench.settings import Settings
from dev.rig.qmp import Json


def mean_throughput(sample: Json) -> Value:
    """From the begin until all is synchronised, relative to before."""
    during = sample['numbers'].get('rate during')
    if during is None or not sample['rate_before']:
        return None
    return float(during / sample['rate_before'])


def app_rows(section: str, rows: Samples, _settings: Settings) -> list[Row]:
    wsm = rows.get(WSM, [])
    wrong = wrong_row(section, wsm)
    wrong.what = "damage found in the guest's data"
    return [
        make(section, 'T0', wsm, field_of('t0'), unit='s'),
        *peer_rows(section, rows, True),
        *p99_rows(section, rows),
        seen_row(section, 'longest answer', wsm, longest_answer, unit='ms'),
        seen_row(section, 'throughput, median second', wsm,
                 share('rates', statistics.median), unit='%'),
        seen_row(section, 'throughput, worst second', wsm,
                 share('rates', min), unit='%'),
        seen_row(section, 'throughput, mean while it moves', wsm,
                 mean_throughput, unit='%'), wrong]


APP_ROWS: dict[str, RowsOf] = {
    f'app-{name}': app_rows for name in APPLICATIONS}
APP_TABLES: dict[str, Callable[[Samples], list[str]]] = {
    f'app-{name}': ways_table for name in APPLICATIONS}

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
    'figures are those until then. The heartbeat is one of UDP, '
    'every 10 ms. The images lie in memory: on the one disk of the '
    'machine, what one host flushes would delay the guest at the other. At '
    'the end the file system is checked{}.')
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
        f'{DEFAULTS.app_steps} modules per second at most; the next pass '
        'over them removes them one by one. An answer is one module; its '
        'time is that since the one before.', ''),
}
