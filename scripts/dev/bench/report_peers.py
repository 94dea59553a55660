# SPDX-License-Identifier: GPL-2.0-or-later
"""The table of the way back, with what users have beside it."""

from dev.bench.methods import METHODS, MIRROR
from dev.bench.peers import RSYNC
from dev.bench.report_back import BACK_NOTES, Samples, back_rows
from dev.bench.rows import Row, field_of, make, number, wrong_row
from dev.bench.settings import Settings
from dev.rig.image import MIB


def rsync_rows(section: str, rows: Samples, settings: Settings) -> list[Row]:
    result = []
    for written in settings.back_writes:
        samples = rows.get(f'{RSYNC} {written}', [])
        name = f'rsync, w = {written / MIB:.0f} MiB'
        equal = wrong_row(section, samples)
        equal.what = f'{name}: blocks that differ after it'
        result += [
            make(section, f'{name}: blocks that differ', samples,
                 number('differs'), unit='MiB'),
            make(section, f'{name}: all on the link, both ways', samples,
                 number('both ways'), unit='MiB'),
            make(section, f'{name}: guest stands still for', samples,
                 number('seconds'), unit='s'), equal]
    return result


def mirror_rows(section: str, rows: Samples) -> list[Row]:
    samples, name = rows.get(MIRROR, []), METHODS[MIRROR].title
    return [
        make(section, f'{name}: all on the link', samples,
             field_of('link_bytes'), unit='MiB'),
        make(section, f'{name}: guest runs there after', samples,
             field_of('running'), unit='s'),
        wrong_row(section, samples)]


def peer_rows(section: str, rows: Samples, settings: Settings) -> list[Row]:
    ours = {key: samples for key, samples in rows.items() if key.isdigit()}
    result = back_rows(section, ours, settings) if ours else []
    if MIRROR in rows:
        result += mirror_rows(section, rows)
        result += rsync_rows(section, rows, settings)
    return result


PEER_ROWS = {'back': peer_rows}
PEER_NOTES = {'back': BACK_NOTES['back'] + (
    ' For comparison: stock QEMU knows nothing of what the other host has, '
    'so its mirror copies all again. rsync (`--inplace --no-whole-file -B '
    '4096`, from its daemon on the other host) compares the whole disk with '
    'an image from before the writes, while the guest stands still; its '
    'figures are without RAM. "Blocks that differ" is the exact bound of '
    'what any method must send.')}
